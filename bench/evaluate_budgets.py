"""Quality and cost of a served classifier over labelled rows, as JSON.

    build/python/bin/python bench/evaluate_budgets.py --data val.txt [--target HOST:PORT]

--data holds one `text;label` row per line. For every tau of the package's calibration: accuracy
and share of dense FLOPs, with 95% intervals from a paired bootstrap over rows. The tau of the 99%
point is read from the package's calibration alone; the rows here only judge it. For flop_fraction:
realised less asked share, one text per call. Without --target, starts a server on --models.
"""

import argparse
import contextlib
import itertools
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests/python"))
import numpy as np
import tritonclient.grpc as triton

import harness
import machine

BATCH = 64
RESAMPLES = 10_000


def infer(client, model, texts, **budget):
    """Labels, FLOPs run and dense FLOPs of one call."""
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    result = client.infer(model, [tensor], parameters=budget)
    used = result.get_response().parameters
    labels = [label.decode() for label in result.as_numpy("label")]
    return labels, used["flops"].int64_param, used["dense_flops"].int64_param


def sweep(client, model, texts, labels, tau):
    """Right or wrong for each row, and the share of dense FLOPs of all rows."""
    right, flops, dense = [], 0, 0
    for begin in range(0, len(texts), BATCH):
        got, run, full = infer(client, model, texts[begin : begin + BATCH], tau=tau)
        right += [a == b for a, b in zip(got, labels[begin : begin + BATCH], strict=True)]
        flops, dense = flops + run, dense + full
    return np.array(right, dtype=float), flops / dense


def interval(samples):
    return [round(float(bound), 5) for bound in np.percentile(samples, [2.5, 97.5])]


def budget_errors(client, model, texts, asked):
    errors = []
    for text in texts:
        _, flops, dense = infer(client, model, [text], flop_fraction=asked)
        errors.append(flops / dense - asked)
    errors = np.array(errors)
    return {
        "asked": asked,
        "mean": round(float(errors.mean()), 5) + 0.0,
        "p95_of_absolute": round(float(np.percentile(np.abs(errors), 95)), 5),
        "largest_absolute": round(float(np.abs(errors).max()), 5),
    }


def tau_of_99_percent(points):
    """The largest calibrated tau that, like all smaller ones, keeps 99% of the dense quality."""
    points = sorted(points, key=lambda point: point["tau"])
    wanted = 0.99 * points[0]["quality"]
    keeping = itertools.takewhile(lambda point: point["quality"] >= wanted, points)
    return max(point["tau"] for point in keeping)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, default=harness.MODELS)
    parser.add_argument("--model", default="emotion")
    parser.add_argument("--target", help="a running server, HOST:PORT")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    lines = options.data.read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit(";", 1) for line in lines if line]
    texts, labels = [row[0] for row in rows], [row[1] for row in rows]
    spec = harness.newest_version(options.models / options.model) / "dimmer.json"
    points = json.loads(spec.read_text())["calibration"]["points"]
    chosen = tau_of_99_percent(points)
    taus = sorted({0.0, chosen, *(point["tau"] for point in points)})

    with contextlib.ExitStack() as stack:
        target = options.target
        if not target:
            target = stack.enter_context(harness.Server(options.models)).target()
        client = stack.enter_context(triton.InferenceServerClient(target))
        swept = {tau: sweep(client, options.model, texts, labels, tau) for tau in taus}
        errors = [budget_errors(client, options.model, texts, asked) for asked in (0.5, 0.7)]

    picks = np.random.default_rng(options.seed).integers(len(rows), size=(RESAMPLES, len(rows)))
    dense = swept[0.0][0]
    dense_means = dense[picks].mean(axis=1)
    table = []
    for tau, (right, share) in swept.items():
        means = right[picks].mean(axis=1)
        table.append(
            {
                "tau": tau,
                "flop_fraction": round(share, 4),
                "accuracy": round(float(right.mean()), 4),
                "accuracy_interval": interval(means),
                "of_dense": round(float(right.mean() / dense.mean()), 4),
                "of_dense_interval": interval(means / dense_means),
            }
        )
    print(
        json.dumps(
            {
                "machine": machine.describe(),
                "rows": len(rows),
                "point_99_percent": next(entry for entry in table if entry["tau"] == chosen),
                "budget_errors": errors,
                "taus": table,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
