"""Programs of their own beside a test: those of tests/faults/programs, and servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import edgepool

PROGRAMS = Path(__file__).parents[1] / "faults" / "programs"
SOURCES = Path(edgepool.__file__).parents[1]
IN_TIME = 60.0


def environment(**variables):
    """Give what a program finds around it, whichever edgepool it is that is tested."""
    paths = [str(SOURCES), str(PROGRAMS.parents[1]), str(PROGRAMS)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}


def run_program(name, *arguments, **variables):
    """Run a program as a user would; give what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAMS / name, *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=2 * IN_TIME,
        check=False,
    )

    assert done.returncode == 0, done.stderr

    return done.stdout


def run_code(code):
    """Run a program given by its text; give what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=True
    ).stdout
