"""How well generations keep to the flop_fraction they were given, as JSON.

    build/python/bin/python bench/evaluate_generations.py --text FILE [--model stories]

Prompts are the beginnings of the documents of --text (between <|endoftext|> marks), sampled on at
temperature 1 through a live server on --models; texts that end before --least tokens, prompt and
output together, are left out and counted. For each share asked: realised less asked.
"""

import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/python"))
import numpy as np
import tritonclient.grpc as triton

import harness
import machine

PROMPT_CHARACTERS = 60


def generate(client, model, prompt, **parameters):
    """Tokens, FLOPs and dense FLOPs of one text."""
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([prompt.encode()], dtype=np.object_))
    used = client.infer(model, [tensor], parameters=parameters).get_response().parameters
    tokens = used["prompt_tokens"].int64_param + used["output_tokens"].int64_param
    return tokens, used["flops"].int64_param, used["dense_flops"].int64_param


def measure(client, options, prompts, asked):
    errors = []
    for seed, prompt in enumerate(prompts, start=1):
        parameters = {"max_tokens": options.max_tokens, "temperature": 1.0, "seed": seed}
        tokens, flops, dense = generate(
            client, options.model, prompt, flop_fraction=asked, **parameters
        )
        if tokens >= options.least:
            errors.append(flops / dense - asked)
    errors = np.array(errors)
    return {
        "asked": asked,
        "texts": len(errors),
        "too_short": len(prompts) - len(errors),
        "mean": round(float(errors.mean()), 5) + 0.0,
        "p95_of_absolute": round(float(np.percentile(np.abs(errors), 95)), 5),
        "largest_absolute": round(float(np.abs(errors).max()), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=harness.MODELS)
    parser.add_argument("--model", default="stories")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--least", type=int, default=128, help="tokens of a text that counts")
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--shares", default="0.55,0.6,0.7,0.8,0.9")
    options = parser.parse_args()
    documents = options.text.read_text(encoding="utf-8").split("<|endoftext|>")
    prompts = [document.strip()[:PROMPT_CHARACTERS] for document in documents[: options.texts]]
    with (
        harness.Server(options.models) as server,
        triton.InferenceServerClient(server.target()) as client,
    ):
        shares = map(float, options.shares.split(","))
        results = [measure(client, options, prompts, asked) for asked in shares]
    report = {"machine": machine.describe(), "model": options.model, "least_tokens": options.least}
    print(json.dumps(report | {"budget_errors": results}, indent=2))


if __name__ == "__main__":
    main()
