"""What one borrow and return costs when a connection is idle: CPU time.

Measured twice. In a tight loop the connection was in use a moment ago, and a pool may
know from that alone that it lives. So the same is measured with every borrow after a
rest, as a server sees it that is not saturated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from time import perf_counter, process_time_ns

from ..model import Bench, Contender, Metric, Row, Sample, Target
from ..peers import Peer, Recipe, Settings, usual
from ..sides import TASKS, THREADS, Side

SIZE = 4
"""Connections in the pool: psycopg_pool's default."""

REST = 150e-6
"""Seconds between borrows, where they rest: a probe may be skipped under 100 us."""

Loop = Callable[[Peer, int], Awaitable[None]]


async def with_threads(peer: Peer, times: int) -> None:
    connection = peer.connection
    for _ in range(times):
        with connection():
            pass


async def with_tasks(peer: Peer, times: int) -> None:
    connection = peer.connection
    for _ in range(times):
        async with connection():
            pass


async def pair_threads(peer: Peer, times: int) -> None:
    getconn, putconn = peer.getconn, peer.putconn
    for _ in range(times):
        putconn(getconn())


async def pair_tasks(peer: Peer, times: int) -> None:
    getconn, putconn = peer.getconn, peer.putconn
    for _ in range(times):
        await putconn(await getconn())


async def nothing(peer: Peer, times: int) -> None:
    _connection = peer.connection
    for _ in range(times):
        pass


async def tight(loop: Loop, peer: Peer, times: int) -> float:
    """Nanoseconds of CPU per turn of *loop*, one right after the other."""
    await loop(peer, 100)

    started = process_time_ns()
    await loop(peer, times)
    return (process_time_ns() - started) / times


async def rested(side: Side, loop: Loop, peer: Peer, times: int) -> float:
    """Nanoseconds of CPU per turn of *loop*, each after a rest that is not counted.

    Reading the CPU clock costs as much as a borrow, and more when the processor's
    caches are cold, so every other turn is an empty one, as rested as the real ones,
    and is taken off. Medians, since an interrupt can hit any single turn.
    """

    async def turn(loop: Loop) -> int:
        await side.sleep(0)
        awake = perf_counter() + REST
        while perf_counter() < awake:
            pass

        started = process_time_ns()
        await loop(peer, 1)
        return process_time_ns() - started

    turns = [(await turn(loop), await turn(nothing)) for _ in range(times)]
    return median(real for real, _ in turns) - median(empty for _, empty in turns)


async def measure(bench: Bench, recipe: Recipe, loop: Loop) -> Sample:
    """Open a pool, and measure *loop* on it both ways."""
    settings = Settings(bench.server.conninfo, SIZE)
    async with recipe.open(settings) as peer:
        values = {
            "tight": await tight(loop, peer, bench.pick(2000, 1000)),
            "rested": await rested(recipe.side, loop, peer, bench.pick(250, 80)),
        }
    return Sample(values)


def contenders(side: Side, loop: Loop, bench: Bench) -> list[Contender]:
    """The usual peers, each turning *loop*."""
    return [contender(bench, recipe, loop) for recipe in usual(side)]


def contender(bench: Bench, recipe: Recipe, loop: Loop) -> Contender:
    """One peer turning *loop*."""

    def sample() -> Sample:
        return recipe.side.run(measure(bench, recipe, loop))

    return Contender(recipe.name, sample, recipe.other_driver)


def metrics(target: Target) -> tuple[Metric, ...]:
    """The same target holds for both ways."""
    return (
        Metric("tight", "in a tight loop", "ns", "CPU", target),
        Metric("rested", "after 150 us of rest", "ns", "CPU", target),
    )


def row(name: str, title: str, side: Side, loop: Loop, target: Target) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=metrics(target),
        contenders=partial(contenders, side, loop),
        rounds=15,
        quick_rounds=3,
    )


ROWS = (
    row(
        "context-sync",
        "`with pool.connection()` and return, idle pool, sync",
        THREADS,
        with_threads,
        Target(0.25, 0.15),
    ),
    row(
        "context-async",
        "`async with pool.connection()` and return, idle pool, asyncio",
        TASKS,
        with_tasks,
        Target(0.15, 0.10),
    ),
    row(
        "pair-sync",
        "`getconn` + `putconn`, sync",
        THREADS,
        pair_threads,
        Target(0.35, 0.20),
    ),
    row(
        "pair-async",
        "`getconn` + `putconn`, asyncio",
        TASKS,
        pair_tasks,
        Target(0.25, 0.15),
    ),
)
