"""A cold pool and everybody at once: how fast it opens connections. Wall time.

20 borrowers, 20 connections, each 20 ms slower to open than a local one, as over a
network with TLS. Every borrower keeps what it got until all have theirs, so that none
can be served by a connection that another has returned.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from time import perf_counter

from ..model import Bench, Contender, Metric, Row, Sample, Target
from ..peers import Peer, Recipe, Settings, usual
from ..sides import TASKS, THREADS, Side

BORROWERS = 20
CONNECT_DELAY = 0.020


async def burst(bench: Bench, recipe: Recipe, min_size: int) -> float:
    """Milliseconds from opening the pool until every borrower was served."""
    side = recipe.side
    meet = side.meeting(BORROWERS)
    settings = Settings(
        bench.server.conninfo,
        BORROWERS,
        min_size=min_size,
        connect_delay=CONNECT_DELAY,
        warm=False,
    )
    peer: Peer
    opened = 0.0

    async with AsyncExitStack() as stack:

        async def open_pool() -> None:
            nonlocal opened, peer
            opened = perf_counter()
            peer = await stack.enter_async_context(recipe.open(settings))

        async def borrower(_number: int) -> float:
            async with peer.session():
                served = perf_counter()
                await meet()
            return served

        served = await side.crew(borrower, BORROWERS, prepare=open_pool)

    return (max(served) - opened) * 1e3


def contenders(side: Side, bench: Bench) -> list[Contender]:
    """The usual peers, told to open all from the start, and told to open none."""

    def sample(recipe: Recipe) -> Sample:
        return Sample(
            {
                "filled": side.run(burst(bench, recipe, BORROWERS)),
                "grown": side.run(burst(bench, recipe, 0)),
            }
        )

    return [
        Contender(each.name, partial(sample, each), each.other_driver)
        for each in usual(side)
    ]


def row(name: str, title: str, side: Side) -> Row:
    target = Target(0.45, 0.35)
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric("filled", "all served, min_size=20", "ms", "wall", target),
            Metric("grown", "all served, min_size=0", "ms", "wall", target),
        ),
        contenders=partial(contenders, side),
        rounds=7,
    )


ROWS = (
    row(
        "burst-sync",
        "20 connections opened at 20 ms each, cold pool, 20 threads at once",
        THREADS,
    ),
    row(
        "burst-async",
        "20 connections opened at 20 ms each, cold pool, 20 tasks at once",
        TASKS,
    ),
)
