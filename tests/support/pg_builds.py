"""PostgreSQL as it was built elsewhere: Debian's, or another one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def bin_dir(variable: str, why: str, suits: Callable[[Path], bool]) -> Path:
    """Give the folder of the programs of the newest that suits.

    Args:
        variable: of the environment, which may say the folder.
        why: what needs it, and how to get it.
        suits: tells whether those in a folder will do.
    """
    if said := os.environ.get(variable):
        return Path(said)
    places = [*Path("/usr/lib/postgresql").glob("*/bin")]
    if shutil.which("pg_config"):
        places.append(Path(said_by("pg_config", "--bindir")))
    found = [p for p in places if (p / "postgres").is_file() and suits(p)]
    if not found:
        raise FileNotFoundError(f"{why}; or say where one is with {variable}")
    return max(found, key=lambda place: [int(n) for n in place.parts if n.isdecimal()])


def said_by(*command: str | Path) -> str:
    """Give what a program prints."""
    return subprocess.check_output(command, text=True).strip()
