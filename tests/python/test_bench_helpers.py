"""What the benchmark scripts choose: the tau of the 99% point and the version of a model."""

import sys

import harness

sys.path.insert(0, str(harness.ROOT / "bench"))
import evaluate_budgets


def test_the_99_percent_point_keeps_it_at_all_smaller_taus():
    qualities = {0.0: 1.0, 0.2: 0.95, 0.1: 0.995, 0.3: 1.0}
    points = [{"tau": tau, "quality": quality} for tau, quality in qualities.items()]
    assert evaluate_budgets.tau_of_99_percent(points) == 0.1


def test_versions_are_numbers(tmp_path):
    for name in ("9", "10", "latest"):
        (tmp_path / name).mkdir()
    assert harness.newest_version(tmp_path).name == "10"
