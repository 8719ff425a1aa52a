"""What docs and model card say of models/stories, measured on text that it was not trained on."""

import json
import subprocess

import grpc
import pytest

import harness

pytestmark = pytest.mark.shared_data
TEXT = harness.SHARED_DATA / "lm/tinystories.txt"
STORIES = harness.MODELS / "stories/1"
SPEC = json.loads((STORIES / "dimmer.json").read_text())
DENSE_BITS_PER_BYTE = 1.3
LOSS_INCREASE_AT_60_PERCENT = 0.015
FRACTION_ERROR = 0.03


def tau_of_60_percent() -> float:
    """The smallest tau of the calibration that runs at most 60% of the FLOPs."""
    points = SPEC["calibration"]["points"]
    return min(point["tau"] for point in points if point["flop_fraction"] <= 0.6)


def test_the_loss_on_held_out_text_and_at_60_percent_of_the_flops():
    command = [harness.BINARIES / "dimmer-convert", "evaluate", "--model", STORIES, "--data", TEXT]
    command += ["--part", "test", "--tau", str(tau_of_60_percent()), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    dense, dimmed = (point["bits_per_byte"]["value"] for point in report["points"])
    before = SPEC["provenance"]["base"]["pretraining"]["result"]["test"]["bits_per_byte"]
    assert report["documents"] == SPEC["provenance"]["data"]["test"]["documents"]
    assert before <= DENSE_BITS_PER_BYTE and dense <= DENSE_BITS_PER_BYTE
    assert report["points"][1]["flop_fraction"] <= 0.61
    assert dimmed <= before * (1 + LOSS_INCREASE_AT_60_PERCENT)


@pytest.mark.parametrize("share", [0.6, 0.75])
def test_a_flop_fraction_is_met_over_128_tokens(server, stubs, share):
    openings = [story.strip()[:60] for story in TEXT.read_text().split("<|endoftext|>")[:40:5]]
    long_enough = 0
    with grpc.insecure_channel(server.target()) as channel:
        generate = stubs.inference_grpc.InferenceStub(channel).Generate
        for seed, prompt in enumerate(openings, start=1):
            request = stubs.inference.GenerateRequest(
                model="stories",
                prompt=prompt,
                max_tokens=256,
                temperature=1,
                seed=seed,
                budget={"flop_fraction": share},
            )
            usage = list(generate(request))[-1].usage
            if usage.prompt_tokens + usage.output_tokens < 128:
                continue
            long_enough += 1
            assert usage.flops / usage.dense_flops == pytest.approx(share, abs=FRACTION_ERROR)
    assert long_enough >= len(openings) / 2


def test_the_package_is_small():
    assert sum(file.stat().st_size for file in STORIES.iterdir()) <= 8_000_000
