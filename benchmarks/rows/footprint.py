"""What a pool costs before anybody uses it: threads, tasks, import time.

Each sample is a fresh interpreter, so that nothing is counted twice or found warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ..model import BASELINE, JUDGED, Bench, Contender, Metric, Row, Sample, Target
from ..peers import edgepools, psycopg_pools, sqlalchemy
from ..sides import TASKS, THREADS, Side

CACHE = TemporaryDirectory(prefix="edgepool-bench-")

CHECKOUT = Path(__file__).parents[2]

IMPORTS = {
    BASELINE: "from psycopg_pool import ConnectionPool, AsyncConnectionPool",
    JUDGED: "from edgepool import ConnectionPool, AsyncConnectionPool",
    "SQLAlchemy": "from sqlalchemy.pool import QueuePool, AsyncAdaptedQueuePool",
    "asyncpg": "import asyncpg",
}

TIMED_IMPORT = """
import json, sys, time
import psycopg

modules = len(sys.modules)
started = time.perf_counter()
{statement}
took = time.perf_counter() - started
print(json.dumps({{"took": took * 1e3, "modules": len(sys.modules) - modules}}))
"""


def fresh_interpreter(*arguments: str) -> Sample:
    """Run Python on *arguments*, which prints its values as JSON."""
    # Whatever this environment says: compiled modules are cached, as users have them.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": CACHE.name}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise RuntimeError("".join(done.stderr.splitlines()[-1:]) or "no answer")
    return Sample(json.loads(done.stdout))


def idle_contenders(side: Side, bench: Bench) -> list[Contender]:
    """Pools that are open, filled, used once, and left alone."""

    def sample(name: str) -> Sample:
        return fresh_interpreter(
            "-m", "benchmarks.idler", side.name, name, bench.server.conninfo
        )

    recipes = [psycopg_pools(side), edgepools(side), sqlalchemy(side)]
    return [Contender(each.name, partial(sample, each.name)) for each in recipes]


def import_contenders(_bench: Bench) -> list[Contender]:
    def sample(statement: str) -> Sample:
        return fresh_interpreter("-c", TIMED_IMPORT.format(statement=statement))

    return [
        Contender(name, partial(sample, statement), name == "asyncpg")
        for name, statement in IMPORTS.items()
    ]


def idle_row(name: str, title: str, side: Side) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric(
                "threads",
                "threads",
                "",
                "count",
                Target(1, 0, on="value"),
                comparable=False,
            ),
            Metric("tasks", "asyncio tasks", "", "count", comparable=False),
        ),
        contenders=partial(idle_contenders, side),
        rounds=3,
        quick_rounds=1,
    )


ROWS = (
    idle_row("idle-sync", "threads of an idle open pool, sync", THREADS),
    idle_row("idle-async", "threads and tasks of an idle open pool, asyncio", TASKS),
    Row(
        name="import",
        title="import, on top of psycopg",
        metrics=(
            Metric("took", "time", "ms", "wall", Target(6, on="value")),
            Metric("modules", "modules", "", "count", comparable=False),
        ),
        contenders=import_contenders,
        rounds=21,
        quick_rounds=3,
        note="fresh interpreters that have imported psycopg, compiled modules cached",
    ),
)
