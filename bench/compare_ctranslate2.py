#!/usr/bin/env python3
"""Times greedy generation of a GPT-2 package against CTranslate2 (fp32) in one interleaved run.

    bench/compare_ctranslate2.py --model DIR --text FILE [--batch 1,16] [--tau 0] [--threads 1]
    bench/compare_ctranslate2.py --random gpt2 ...

The package is converted by CTranslate2's own converter, as the dense model that it also is. Both
sides get the same prompts and run the same number of steps (no token ends a text), and take turns,
so that a change of the machine's speed meets both. Prompts are the first tokens of the documents of
--text (between <|endoftext|> marks), without it random ids. --random makes a checkpoint of random weights:
"gpt2" of GPT-2 base's shape, "stories" of 4 layers of width 256. Needs ctranslate2 besides
tests/python/requirements.txt (see bench/requirements.txt).
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import ctranslate2
import ctranslate2.converters
import numpy as np
import torch
import transformers

import machine

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {
    "gpt2": {},
    "stories": {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 2048, "n_positions": 512},
}
# Its threads spin for a while after a run and would take part in the other side's time.
PAUSE_SECONDS = 0.02


def main():
    options = parse_arguments()
    report = {"machine": machine.describe(), "threads": options.threads}
    report |= {"prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        package = options.model or make_random(options.random, folder / "checkpoint")
        reference = load_reference(package, folder / "ctranslate2", options.threads)
        prompts = make_prompts(package, max(options.batch), options)
        with Dimmer(options, without_end(package, folder / "endless")) as dimmer:
            report["results"] = [
                measure(reference, dimmer, prompts[:size], options) for size in options.batch
            ]
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_table(report)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=pathlib.Path, help="directory of a GPT-2 package")
    source.add_argument("--random", choices=SHAPES, help="random weights of this shape")
    parser.add_argument("--text", type=pathlib.Path, help="documents whose beginnings are prompts")
    parser.add_argument("--batch", default="1,16", help="sequences per batch")
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--tau", default="0", help="the engine's taus; 0 is always measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15, help="per batch size")
    parser.add_argument("--binary", default=ROOT / "build/release/bin/dimmer-bench")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.batch = [int(size) for size in options.batch.split(",")]
    options.tau = sorted({0.0, *map(float, options.tau.split(","))})
    return options


def make_random(shape, folder):
    torch.manual_seed(1)
    config = transformers.GPT2Config(**SHAPES[shape], bos_token_id=0, eos_token_id=0)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


class NamesOfIds:
    """Stands for a tokenizer: the converter wants a name for every id, and no more."""

    def __init__(self, size):
        self.size = size
        self.unk_token = self.bos_token = self.eos_token = "0"

    def get_vocab(self):
        return {str(index): index for index in range(self.size)}


class Converter(ctranslate2.converters.TransformersConverter):
    def load_tokenizer(self, _tokenizer_class, path, **_):
        return NamesOfIds(
            json.loads((pathlib.Path(path) / "config.json").read_text())["vocab_size"]
        )


def load_reference(package, folder, threads):
    Converter(str(package)).convert(str(folder), quantization="float32")
    return ctranslate2.Generator(
        str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
    )


def without_end(package, folder):
    """The same package, but no token ends its texts."""
    folder.mkdir()
    for file in package.resolve().iterdir():
        if file.name not in ("config.json", "generation_config.json", "dimmer.json"):
            (folder / file.name).symlink_to(file)
    config = json.loads((package / "config.json").read_text()) | {"eos_token_id": None}
    changed = json.dumps(config).encode()
    (folder / "config.json").write_bytes(changed)
    if (package / "dimmer.json").exists():
        spec = json.loads((package / "dimmer.json").read_text())
        spec["checksums"]["config.json"] = "sha256:" + hashlib.sha256(changed).hexdigest()
        (folder / "dimmer.json").write_text(json.dumps(spec))
    return folder


def make_prompts(package, count, options):
    length = options.prompt_tokens
    if not options.text:
        vocabulary = json.loads((package / "config.json").read_text())["vocab_size"]
        return np.random.default_rng(7).integers(1, vocabulary, (count, length)).tolist()
    tokenizer = transformers.AutoTokenizer.from_pretrained(package)
    documents = options.text.read_text(encoding="utf-8").split("<|endoftext|>")
    encoded = (tokenizer.encode(document.strip())[:length] for document in documents)
    prompts = list(itertools.islice((ids for ids in encoded if len(ids) == length), count))
    if len(prompts) < count:
        raise SystemExit(
            f"{options.text}: found {len(prompts)} documents of {length} tokens, expected {count}"
        )
    return prompts


def run_reference(generator, prompts, new_tokens):
    names = [[str(index) for index in prompt] for prompt in prompts]
    start = time.perf_counter()
    results = generator.generate_batch(
        names,
        max_length=new_tokens,
        min_length=new_tokens,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    seconds = time.perf_counter() - start
    return seconds, [result.sequences_ids[0] for result in results]


class Dimmer:
    """dimmer-bench generate as a child process that times itself."""

    def __init__(self, options, package):
        command = [options.binary, "generate", "--model", package, "--threads", options.threads]
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):  # it has said why it ended
            self.process.stdin.close()
        self.process.wait()

    def run(self, prompts, new_tokens, tau):
        order = {"ids": prompts, "new_tokens": new_tokens, "tau": tau}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("dimmer-bench gave no answer")
        answer = json.loads(line)
        for row in answer["results"]:
            if "error" in row:
                raise SystemExit(row["error"])
            if len(row["ids"]) != new_tokens:
                raise SystemExit(
                    f"found {len(row['ids'])} tokens, expected {new_tokens}: this side would look"
                    " faster than it is"
                )
        return answer


def measure(generator, dimmer, prompts, options):
    agreement = check_agreement(generator, dimmer, prompts, options.new_tokens)
    reference, ours, share = [], {tau: [] for tau in options.tau}, {}
    start = time.monotonic()
    while time.monotonic() - start < options.seconds or len(reference) < 5:
        time.sleep(PAUSE_SECONDS)
        reference.append(run_reference(generator, prompts, options.new_tokens)[0])
        for tau in options.tau:
            time.sleep(PAUSE_SECONDS)
            answer = dimmer.run(prompts, options.new_tokens, tau)
            ours[tau].append(answer["seconds"])
            flops = sum(row["flops"] for row in answer["results"])
            share[tau] = flops / sum(row["dense_flops"] for row in answer["results"])
    tokens = len(prompts) * options.new_tokens
    median = statistics.median(reference)
    return {
        "batch": len(prompts),
        "runs": len(reference),
        "same_first_tokens": agreement,
        "ctranslate2_tokens_per_second": tokens / median,
        "dimmer": [
            {
                "tau": tau,
                "tokens_per_second": tokens / statistics.median(times),
                "of_ctranslate2": median / statistics.median(times),
                "flop_fraction": share[tau],
            }
            for tau, times in ours.items()
        ],
    }


def check_agreement(generator, dimmer, prompts, new_tokens):
    """A comparison between different functions would mean nothing. Where a rounding decides between
    two tokens the texts part, for good: the first token must be the same, later ones are counted."""
    wanted = run_reference(generator, prompts, new_tokens)[1]
    got = [row["ids"] for row in dimmer.run(prompts, new_tokens, 0.0)["results"]]
    for ours, theirs in zip(got, wanted, strict=True):
        if ours[0] != theirs[0]:
            raise SystemExit(
                f"first tokens {ours[0]} and {theirs[0]}: these are not the same models"
            )
    same = [
        next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))
        for ours, theirs in zip(got, wanted, strict=True)
    ]
    return min(same)


def print_table(report):
    print(report["machine"]["cpu"], "|", report["threads"], "threads |", end=" ")
    print(report["prompt_tokens"], "+", report["new_tokens"], "tokens")
    print(f"{'batch':>6} {'':>12} {'tokens/s':>10} {'of CT2':>7} {'FLOPs':>6}")
    for row in report["results"]:
        speed = row["ctranslate2_tokens_per_second"]
        print(f"{row['batch']:>6} {'ctranslate2':>12} {speed:>10.0f}")
        for cell in row["dimmer"]:
            print(
                f"{row['batch']:>6} {'tau ' + str(cell['tau']):>12}"
                f" {cell['tokens_per_second']:>10.0f} {cell['of_ctranslate2']:>7.2f}"
                f" {cell['flop_fraction']:>6.3f}"
            )


if __name__ == "__main__":
    main()
