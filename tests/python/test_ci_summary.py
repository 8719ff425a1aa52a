""".ci/summarize.py names everything that went wrong, and `make check` runs all of its steps."""

import pathlib
import subprocess
import sys

import harness

SUITE = '<testsuite><testcase classname="c" name="{name}">{inside}</testcase></testsuite>'


def summarize(results: pathlib.Path, *broken: str) -> subprocess.CompletedProcess:
    command = [sys.executable, harness.ROOT / ".ci/summarize.py", results, *broken]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_failing_test_hides_no_broken_step(tmp_path):
    (tmp_path / "release-ctest.xml").write_text(
        SUITE.format(name="WordPieceVectors", inside='<failure message="no"/>')
    )
    done = summarize(tmp_path, "make deps", "make check")
    assert done.returncode == 1
    assert "FAILED  release-ctest: WordPieceVectors" in done.stdout
    assert "FAILED  make deps failed" in done.stdout
    assert "FAILED  make check failed" in done.stdout


def test_check_goes_on_after_a_failing_step(tmp_path):
    calls = tmp_path / "calls"
    fake = tmp_path / "make"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *lint*) exit 1;; esac\n')
    fake.chmod(0o755)
    command = ["make", "-C", harness.ROOT, "check", f"MAKE={fake}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    called = calls.read_text().splitlines()
    assert len(called) == 4
    for line, step in zip(
        called, ("lint", "package-test", "PRESET=asan", "PRESET=tsan"), strict=True
    ):
        assert step in line
