"""A few seconds of what `make soak` does for minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def soak(*options):
    return subprocess.run(
        [sys.executable, "-m", "soak", *options],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_nothing_is_violated_in_a_few_seconds_of_everything():
    run = soak("--minutes", "0.15", "--without", "fork", "--without", "interrupt")

    assert run.returncode == 0, run.stdout + run.stderr
    assert "nothing was violated" in run.stdout


def test_a_soak_says_its_seed_and_takes_one():
    run = soak("--minutes", "0.01", "--seed", "42", "--without", "fork")

    assert run.stdout.startswith("seed 42, ")
