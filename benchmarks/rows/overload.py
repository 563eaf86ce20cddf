"""Five times as many requests as a pool can serve: who is answered in time. Wall time.

An open loop: requests come when they come, whatever became of those before, and an
answer counts if its request came at most half a second ago. Whoever asked has gone
then, but nobody tells the pool. The work is a query that sleeps, so that it is the
connections that run out, and not the processors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import isawaitable
from math import nan
from time import perf_counter
from typing import Any

from ..model import BASELINE, JUDGED, Bench, Contender, Metric, Row, Sample, Target
from ..peers import Peer, Recipe, Settings, edgepools, psycopg_pools
from ..sides import TASKS, THREADS, Side

SIZE = 4
HOLD = 0.05
LOAD = 5
IN_TIME = 0.5
"""Seconds after which nobody cares for an answer any more."""

CLIENTS = 400
"""Threads or tasks of the server: as many requests can wait; the others wait for them.

A wait is counted from the moment at which a request came in any case.
"""

BURST = 40
"""Requests at once: half a second's work for the pool."""

TARGET = 0.05
SHORT = 2 * TARGET
"""What shedding comes to in an overload, as a plain timeout."""

NOTICED = 1.5
"""Seconds after which an overload is known as one: shedding needs 1.05 for it."""

LINE = int(SHORT / HOLD * SIZE)
"""The same as a number of requests that may wait."""


@dataclass
class Log:
    """What became of requests."""

    answers: list[tuple[float, float, float]] = field(default_factory=list)
    """When each came, when it was served a connection, and when it was answered."""
    refused: int = 0

    def wait(self, share: float, since: float) -> float:
        """Tell how long this share waited at most, of those who came since a moment."""
        waits = sorted(
            served - came for came, served, _ in self.answers if came >= since
        )
        return waits[int(share * (len(waits) - 1))] if waits else nan


async def work(conn: Any) -> None:
    """Keep a connection busy without keeping a processor busy."""
    outcome = conn.execute("SELECT pg_sleep(%s)", [HOLD])
    if isawaitable(outcome):
        await outcome


async def request(peer: Peer, log: Log, came: float) -> None:
    """Make one request that came at some moment."""
    try:
        async with peer.session() as conn:
            served = perf_counter()
            await work(conn)
    except Exception:
        log.refused += 1
    else:
        log.answers.append((came, served, perf_counter()))


async def capacity_of(side: Side, peer: Peer, seconds: float) -> float:
    """Requests per second that the pool serves when as many come as it can serve."""
    log = Log()
    end = perf_counter() + seconds

    async def worker(_number: int) -> None:
        while (now := perf_counter()) < end:
            await request(peer, log, now)

    started = perf_counter()
    await side.crew(worker, SIZE)
    return len(log.answers) / (perf_counter() - started)


async def burst(side: Side, peer: Peer) -> int:
    """Make requests that all come at once; count those that are not served."""
    log = Log()

    async def worker(_number: int) -> None:
        await request(peer, log, perf_counter())

    await side.crew(worker, BURST)
    return log.refused


async def overload(bench: Bench, recipe: Recipe) -> Sample:
    """Measure what the pool can do, then ask five times as much of it."""
    side = recipe.side
    seconds = bench.pick(8.0, 4.0)
    log = Log()
    numbers: Iterator[int] = itertools.count()
    start = 0.0

    async with recipe.open(Settings(bench.server.conninfo, SIZE)) as peer:
        capacity = await capacity_of(side, peer, bench.pick(1.5, 0.5))
        refused = await burst(side, peer)
        rate = LOAD * capacity

        async def begin() -> None:
            nonlocal start
            start = perf_counter()

        async def client(_number: int) -> None:
            end = start + seconds
            while (came := start + next(numbers) / rate) < end > perf_counter():
                await side.sleep(max(0.0, came - perf_counter()))
                await request(peer, log, came)

        await side.crew(client, CLIENTS, prepare=begin)

    end = start + seconds
    in_time = [
        answered
        for came, _, answered in log.answers
        if answered <= min(end, came + IN_TIME)
    ]
    return Sample(
        {
            "goodput": 100 * len(in_time) / seconds / capacity,
            "median": log.wait(0.5, start),
            "p99": log.wait(0.99, start),
            "later": log.wait(0.99, start + NOTICED),
            "burst": float(refused),
        }
    )


def variant(recipe: Recipe, name: str, **options: Any) -> Recipe:
    return replace(
        recipe,
        name=f"{recipe.name}, {name}",
        options={**recipe.options, **options},
    )


SHEDDING = "shedding"


def contenders(side: Side, bench: Bench) -> list[Contender]:
    """Each as it comes, and with what it has against an overload."""
    recipes = [
        psycopg_pools(side),
        variant(psycopg_pools(side), f"timeout {SHORT:g}", timeout=SHORT),
        variant(psycopg_pools(side), f"max_waiting {LINE}", max_waiting=LINE),
        edgepools(side),
        variant(edgepools(side), SHEDDING, shed_target=TARGET),
    ]

    def sample(recipe: Recipe) -> Sample:
        return recipe.side.run(overload(bench, recipe))

    return [Contender(each.name, partial(sample, each)) for each in recipes]


def row(name: str, title: str, side: Side) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric(
                "goodput",
                "answered within 0.5 s, of what the pool can serve",
                "%",
                "wall",
                Target(90, at_least=True, on="value"),
                comparable=False,
            ),
            Metric("median", "wait of who is served, median", "s", "wall"),
            Metric("p99", "the same, 99th percentile", "s", "wall"),
            Metric("later", "the same, of who comes after 1.5 s", "s", "wall"),
            Metric(
                "burst",
                "refused of a burst of 40 that takes half a second",
                "",
                "count",
                Target(0, on="value"),
                comparable=False,
            ),
        ),
        contenders=partial(contenders, side),
        rounds=2,
        quick_rounds=1,
        judged=f"{JUDGED}, {SHEDDING}",
        note=f"x: against {BASELINE} as it comes",
    )


ROWS = (
    row("overload-sync", "5 times what 4 connections can serve, threads", THREADS),
    row("overload-async", "5 times what 4 connections can serve, tasks", TASKS),
)
