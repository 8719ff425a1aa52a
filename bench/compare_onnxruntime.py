#!/usr/bin/env python3
"""Times a package against ONNX Runtime (fp32, all optimisations) in one interleaved run.

    bench/compare_onnxruntime.py --model DIR [--batch 1,32] [--tokens 22] [--tau 0] [--threads 1]

The package is exported through `transformers`, as the dense model that it also is. Both sides get
the same token ids, made from real texts (--texts, one a line), joined and cut to --tokens each, and
take turns, so that a change of the machine's speed meets both. Needs onnxruntime besides
tests/python/requirements.txt (see bench/requirements.txt).
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime
import torch
import transformers

import machine

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = [
    "i woke up early today and felt that the whole week might turn out well after all",
    "nobody answered the phone and i started to worry that something had gone badly wrong",
    "she thanked me twice for the small favour and i was quietly proud for the rest of the day",
    "they cancelled the trip an hour before we were to leave and i am still furious about it",
    "he opened the door in the dark and i nearly jumped out of my skin",
    "the letter said no once more and i do not know how often i can try again",
]
# ONNX Runtime's threads spin for a while after a run and would take part in the other side's time.
PAUSE_SECONDS = 0.02


def main():
    options = parse_arguments()
    config = transformers.AutoConfig.from_pretrained(options.model)
    batches = make_batches(options)
    report = {"machine": machine.describe(), "threads": options.threads, "tokens": options.tokens}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.onnx"
        export(options.model, config, batches[1], path)
        session = make_session(path, options.threads)
        with Dimmer(options) as dimmer:
            report["results"] = [
                measure(session, dimmer, ids, size, options) for size, ids in batches.items()
            ]
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_table(report)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True, help="directory of a package")
    parser.add_argument("--batch", default="1,32", help="texts per batch")
    parser.add_argument("--tokens", type=int, default=22, help="per text, special ones included")
    parser.add_argument("--tau", default="0", help="the engine's taus; 0 is always measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10, help="per batch size")
    parser.add_argument("--texts", type=pathlib.Path, help="one a line, 'text' or 'text;label'")
    parser.add_argument("--binary", default=ROOT / "build/release/bin/dimmer-bench")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.batch = sorted({1, *map(int, options.batch.split(","))})
    options.tau = sorted({0.0, *map(float, options.tau.split(","))})
    return options


def make_batches(options):
    """Batch size -> ids [size, tokens]."""
    tokenizer = transformers.BertTokenizerFast(str(options.model / "vocab.txt"), do_lower_case=True)
    texts = TEXTS
    if options.texts:
        texts = [line.rsplit(";", 1)[0] for line in options.texts.read_text().splitlines()]
    pieces = itertools.cycle(
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    )
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id

    def row():
        ids = []
        while len(ids) < options.tokens - 2:
            ids += next(pieces)
        return [first, *ids[: options.tokens - 2], last]

    return {size: np.array([row() for _ in range(size)]) for size in options.batch}


def export(directory, config, ids, path):
    kind = getattr(transformers, config.architectures[0])
    model = kind.from_pretrained(directory, torch_dtype=torch.float32).eval()
    inputs = torch.tensor(ids)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        model,
        (inputs, torch.ones_like(inputs), torch.zeros_like(inputs)),
        str(path),
        input_names=names,
        output_names=["out"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
        opset_version=14,
    )


def make_session(path, threads):
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


class Dimmer:
    """dimmer-bench logits as a child process that times itself."""

    def __init__(self, options):
        command = [options.binary, "logits", "--model", options.model]
        command += ["--threads", options.threads]
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def run(self, ids, tau):
        self.process.stdin.write(json.dumps({"ids": ids.tolist(), "tau": tau}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def measure(session, dimmer, ids, size, options):
    feed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    check_agreement(session, dimmer, feed)
    reference, ours, share = [], {tau: [] for tau in options.tau}, {}
    start = time.monotonic()
    while time.monotonic() - start < options.seconds or len(reference) < 5:
        time.sleep(PAUSE_SECONDS)
        # Warm caches on both sides: what counts is the second of two runs.
        for _ in range(2):
            before = time.perf_counter()
            session.run(["out"], feed)
            elapsed = time.perf_counter() - before
        reference.append(elapsed)
        for tau in options.tau:
            time.sleep(PAUSE_SECONDS)
            for _ in range(2):
                answer = dimmer.run(ids, tau)
            ours[tau].append(answer["seconds"])
            flops = sum(row["flops"] for row in answer["results"])
            share[tau] = flops / sum(row["dense_flops"] for row in answer["results"])
    reference_median = statistics.median(reference)
    dense = statistics.median(ours[0.0])
    return {
        "batch": size,
        "runs": len(reference),
        "onnxruntime_seconds": reference_median,
        "onnxruntime_best_seconds": min(reference),
        "dimmer": [
            {
                "tau": tau,
                "seconds": statistics.median(times),
                "best_seconds": min(times),
                "of_onnxruntime": statistics.median(times) / reference_median,
                "of_own_dense": statistics.median(times) / dense,
                "flop_fraction": share[tau],
            }
            for tau, times in ours.items()
        ],
    }


def check_agreement(session, dimmer, feed):
    """A comparison of times between different functions would mean nothing."""
    wanted = session.run(["out"], feed)[0]
    results = dimmer.run(feed["input_ids"], 0.0)["results"]
    if "logits" in results[0]:
        got = np.array([row["logits"] for row in results])
    else:
        got = np.array([row["embedding"] for row in results])
        wanted = wanted.mean(axis=1)
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    difference = np.abs(got - wanted).max()
    if difference > 1e-4:
        raise SystemExit(f"results differ by {difference}: these are not the same models")


def print_table(report):
    print(report["machine"]["cpu"], "|", report["threads"], "threads |", report["tokens"], "tokens")
    print(f"{'batch':>6} {'':>14} {'median ms':>10} {'best ms':>9} {'of ORT':>7} {'of dense':>9}")
    for row in report["results"]:
        print(
            f"{row['batch']:>6} {'onnxruntime':>14} {1e3 * row['onnxruntime_seconds']:>10.3f}"
            f" {1e3 * row['onnxruntime_best_seconds']:>9.3f}"
        )
        for cell in row["dimmer"]:
            print(
                f"{row['batch']:>6} {'tau ' + str(cell['tau']):>14} {1e3 * cell['seconds']:>10.3f}"
                f" {1e3 * cell['best_seconds']:>9.3f} {cell['of_onnxruntime']:>7.2f}"
                f" {cell['of_own_dense']:>9.2f}"
            )


if __name__ == "__main__":
    main()
