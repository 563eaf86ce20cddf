"""After the sessions, or the server, are gone: failures, and the time until served.

Failed requests are part of the answer here: a pool that hands the failure to its
borrower is not faster than one that waits.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from ..model import Bench, Contender, Metric, Row, Sample, Target
from ..peers import (
    Recipe,
    Settings,
    asyncpgs,
    edgepools,
    psycopg_pools,
    psycopg_pools_checked,
    sqlalchemy,
)
from ..sides import TASKS, THREADS, Side

SESSIONS = 8
REQUESTS = 25
CONNECTS = 5
"""Bare connects per sample, to say how long one takes at that moment."""

FAREWELL = 0.002
"""Seconds between a session leaving ``pg_stat_activity`` and closing its socket."""

CLIENTS = 8
CONNECTIONS = 4
BETWEEN_REQUESTS = 0.005
DOWN = 0.55
GIVE_UP = 20.0

Scenario = Callable[[Bench, Recipe], Coroutine[Any, Any, Sample]]

CHECKOUT = Path(__file__).parents[2]


async def connect_time(bench: Bench, side: Side) -> float:
    """Seconds for a connection without a pool, now."""
    took = []
    for _ in range(CONNECTS):
        started = monotonic()
        await side.connect(bench.server.conninfo)
        took.append(monotonic() - started)
    return median(took)


async def terminated(bench: Bench, recipe: Recipe) -> Sample:
    """End all idle sessions; at once, 8 workers make 25 requests each.

    The workers come one after the other, as fast as they can be made. Released in the
    same instant, each would meet a single dead connection.
    """
    side = recipe.side
    failed = 0
    started = connect = 0.0
    first_served: dict[int, float] = {}

    async with recipe.open(Settings(bench.server.conninfo, SESSIONS)) as peer:

        async def kill() -> None:
            nonlocal started, connect
            connect = await connect_time(bench, side)
            await side.offload(bench.server.terminate_sessions)
            await side.sleep(FAREWELL)
            started = monotonic()

        async def worker(number: int) -> None:
            nonlocal failed
            for _ in range(REQUESTS):
                if await peer.attempt():
                    first_served.setdefault(number, monotonic())
                else:
                    failed += 1

        await side.crew(worker, SESSIONS, prepare=kill, gate=False)

    if not first_served:
        raise RuntimeError("no worker was ever served")
    served = max(first_served.values()) - started
    return Sample(
        {
            "failed": failed,
            "served": served * 1e3,
            "connects": served / connect,
        },
        errors=SESSIONS - len(first_served),
    )


class Prober:
    """Another process that tells when the server accepts connections again."""

    def __init__(self, conninfo: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.prober", conninfo],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def accepting(self) -> float:
        """Wait for the server; return the moment, as ``time.monotonic()``."""
        answer, _ = self._process.communicate(timeout=60)
        return float(answer)


async def restarted(bench: Bench, recipe: Recipe) -> Sample:
    """Stop the server under 8 clients, start it again half a second later."""
    side, server = recipe.side, bench.server
    failed = 0
    stopped = False
    down = accepting = float("inf")
    first_served: dict[int, float] = {}

    async with recipe.open(Settings(server.conninfo, CONNECTIONS)) as peer:

        async def client(number: int) -> None:
            nonlocal failed
            while not stopped:
                served = await peer.attempt()
                now = monotonic()
                if not served:
                    failed += 1
                elif now > down:
                    first_served.setdefault(number, now)
                await side.sleep(BETWEEN_REQUESTS)

        async def operator() -> None:
            nonlocal stopped, down, accepting
            try:
                await side.sleep(0.1)
                await side.offload(server.stop)
                down = monotonic()

                prober = await side.offload(Prober, server.conninfo)
                await side.sleep(down + DOWN - monotonic())
                await side.offload(server.start)
                accepting = await side.offload(prober.accepting)

                while len(first_served) < CLIENTS and monotonic() < down + GIVE_UP:
                    await side.sleep(0.01)
            finally:
                stopped = True

        async def worker(number: int) -> None:
            await (operator() if number == CLIENTS else client(number))

        await side.crew(worker, CLIENTS + 1)

    if not first_served:
        raise RuntimeError(f"no client was served within {GIVE_UP:g} s")
    after = [max(0.0, moment - accepting) for moment in first_served.values()]
    return Sample(
        {
            "first": min(after) * 1e3,
            "all": max(after) * 1e3,
            "failed": failed,
        },
        errors=CLIENTS - len(first_served),
    )


def contenders(
    scenario: Scenario, recipes: list[Recipe], bench: Bench
) -> list[Contender]:
    """*scenario* for each of the *recipes*."""

    def sample(recipe: Recipe) -> Sample:
        return recipe.side.run(scenario(bench, recipe))

    return [
        Contender(each.name, partial(sample, each), each.other_driver)
        for each in recipes
    ]


def after_termination(side: Side) -> list[Recipe]:
    """Peers with and without what they have against dead connections."""
    recipes = [
        psycopg_pools(side),
        psycopg_pools_checked(side),
        edgepools(side),
        sqlalchemy(side),
        sqlalchemy(side, pre_ping=True),
    ]
    return recipes if side is THREADS else [*recipes, asyncpgs()]


def after_restart(side: Side) -> list[Recipe]:
    recipes = [
        psycopg_pools(side),
        psycopg_pools_checked(side),
        edgepools(side),
    ]
    last = sqlalchemy(side, pre_ping=True) if side is THREADS else asyncpgs()
    return [*recipes, last]


def termination_row(name: str, title: str, side: Side) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric(
                "failed",
                "failed requests of 200",
                "",
                "count",
                Target(0, on="value"),
                comparable=False,
            ),
            Metric("served", "every worker served after", "ms", "wall"),
            Metric(
                "connects",
                "the same, in bare connect times",
                "x",
                "wall",
                Target(3, on="value"),
                comparable=False,
            ),
        ),
        contenders=partial(contenders, terminated, after_termination(side)),
        rounds=7,
        quick_rounds=2,
    )


def restart_row(name: str, title: str, side: Side) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric(
                "first",
                "first served after it accepts again",
                "ms",
                "wall",
                Target(60, 25, on="value"),
            ),
            Metric("all", "all clients served", "ms", "wall"),
            Metric(
                "failed",
                "failed requests",
                "",
                "count",
                Target(CONNECTIONS, 0, on="value"),
                comparable=False,
            ),
        ),
        contenders=partial(contenders, restarted, after_restart(side)),
        rounds=5,
        quick_rounds=1,
        note="requests on their way when the server stopped may fail: 4 at most",
    )


ROWS = (
    termination_row(
        "terminated-sync", "8 idle sessions terminated, 8 threads", THREADS
    ),
    termination_row("terminated-async", "8 idle sessions terminated, 8 tasks", TASKS),
    restart_row(
        "restart-sync", "server restarted, 8 waiting threads on 4 connections", THREADS
    ),
    restart_row(
        "restart-async", "server restarted, 8 waiting tasks on 4 connections", TASKS
    ),
)
