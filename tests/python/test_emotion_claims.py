"""What docs and model card say of models/emotion, measured through a live server on held-out rows."""

import functools
import json

import numpy as np
import pytest
import tritonclient.grpc as triton

import harness

pytestmark = pytest.mark.shared_data
BATCH = 64
BUDGET_ROWS = 300


@functools.cache
def held_out() -> list[tuple[str, str]]:
    lines = (harness.SHARED_DATA / "emotion/val.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.rsplit(";", 1)) for line in lines if line]


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.target()) as client:
        yield client


def classify(client, texts, **budget) -> tuple[list[str], int, int]:
    """Labels, FLOPs run and FLOPs of the dense model, of one call."""
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_))
    result = client.infer("emotion", [tensor], parameters=budget)
    used = result.get_response().parameters
    labels = [label.decode() for label in result.as_numpy("label")]
    return labels, used["flops"].int64_param, used["dense_flops"].int64_param


def measure(client, tau: float) -> tuple[float, float]:
    """Accuracy, and FLOPs over dense, of all held-out rows."""
    rows, right, flops, dense = held_out(), 0, 0, 0
    for begin in range(0, len(rows), BATCH):
        part = rows[begin : begin + BATCH]
        labels, run, full = classify(client, [text for text, _ in part], tau=tau)
        right += sum(got == label for got, (_, label) in zip(labels, part, strict=True))
        flops, dense = flops + run, dense + full
    return right / len(rows), flops / dense


def tau_of_99_percent() -> float:
    """The largest tau of the calibration that, like all smaller ones, keeps 99% of tau 0's."""
    spec = json.loads((harness.MODELS / "emotion/1/dimmer.json").read_text())
    points = sorted(spec["calibration"]["points"], key=lambda point: point["tau"])
    chosen = points[0]["tau"]
    for point in points:
        if point["quality"] < 0.99 * points[0]["quality"]:
            break
        chosen = point["tau"]
    return chosen


def test_the_dense_model_is_right_on_92_percent(client):
    accuracy, share = measure(client, 0.0)
    assert share == 1
    assert accuracy >= 0.92


def test_the_99_percent_point_runs_55_percent_of_the_flops(client):
    tau = tau_of_99_percent()
    assert tau > 0
    _, share = measure(client, tau)
    assert share <= 0.55


@pytest.mark.parametrize("asked", [0.5, 0.7])
def test_a_flop_fraction_is_met(client, asked):
    errors = []
    for text, _ in held_out()[:: len(held_out()) // BUDGET_ROWS]:
        _, flops, dense = classify(client, [text], flop_fraction=asked)
        errors.append(flops / dense - asked)
    assert len(errors) >= BUDGET_ROWS
    assert abs(np.mean(errors)) <= 0.02
    assert np.percentile(np.abs(errors), 95) <= 0.05
