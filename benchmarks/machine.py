"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from psycopg import pq

from .server import Server

PACKAGES = ("edgepool", "psycopg", "psycopg-pool", "SQLAlchemy", "asyncpg")


@dataclass(frozen=True)
class Machine:
    """The machine, and the versions of all that took part."""

    python: str
    processor: str
    cores: int
    load: str
    server: str
    libpq: str
    packages: dict[str, str]

    def __str__(self) -> str:
        """Tell it in three lines."""
        packages = ", ".join(f"{name} {found}" for name, found in self.packages.items())
        return (
            f"{self.python}; {self.processor}, {self.cores} cores, load {self.load}\n"
            f"PostgreSQL {self.server}; libpq {self.libpq}\n"
            f"{packages}"
        )


def inspect(server: Server) -> Machine:
    """Look at this machine."""
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        processor=_processor(),
        cores=_cores(),
        load=_load(),
        server=server.version(),
        libpq=f"{pq.version_pretty(pq.version())} ({pq.__impl__})",
        packages={name: _version(name) for name in PACKAGES},
    )


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Count the cores this process may use, which need not be all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
