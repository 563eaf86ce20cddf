"""What it costs to serve no dead connection: each pool against itself without.

The check of psycopg_pool and SQLAlchemy's pre_ping ask the server; whether a pool does
is not guessed from the time but read off libpq's own trace of the messages sent.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from functools import partial
from typing import IO, Any

from ..model import BASELINE, JUDGED, Bench, Contender, Metric, Row, Sample, Target
from ..peers import (
    Peer,
    Recipe,
    Settings,
    edgepools,
    edgepools_without_liveness,
    psycopg_pools,
    psycopg_pools_checked,
    sqlalchemy,
)
from ..sides import TASKS, THREADS, Side
from .overhead import SIZE, Loop, measure, metrics, with_tasks, with_threads

TRACED = 50
"""Borrows over which the messages are counted."""


async def all_connections(peer: Peer) -> list[Any]:
    """Return libpq's connections of a warm pool, all borrowed at once."""
    async with AsyncExitStack() as borrowed:
        return [
            (await borrowed.enter_async_context(peer.session())).pgconn
            for _ in range(SIZE)
        ]


def sent(trace: IO[str]) -> int:
    """Count the messages from the frontend (us) in libpq's trace."""
    trace.seek(0)
    return sum(1 for line in trace if "\tF\t" in line or line.startswith("F\t"))


async def messages_sent(bench: Bench, recipe: Recipe, loop: Loop) -> float:
    """Count the messages sent to the server per turn of *loop*."""
    settings = Settings(bench.server.conninfo, SIZE)
    async with recipe.open(settings) as peer:
        with tempfile.TemporaryFile("w+") as trace:
            connections = await all_connections(peer)
            for pgconn in connections:
                pgconn.trace(trace.fileno())

            for _ in range(TRACED):
                await recipe.side.sleep(0.0002)
                await loop(peer, 1)

            for pgconn in connections:
                pgconn.untrace()
            return sent(trace) / TRACED


def contenders(side: Side, loop: Loop, bench: Bench) -> list[Contender]:
    """Each pool, with what it has against dead connections and without."""
    recipes = [
        psycopg_pools(side),
        psycopg_pools_checked(side),
        edgepools(side),
        edgepools_without_liveness(side),
        sqlalchemy(side),
        sqlalchemy(side, pre_ping=True),
    ]
    return [
        Contender(each.name, partial(sample, bench, each, loop)) for each in recipes
    ]


def sample(bench: Bench, recipe: Recipe, loop: Loop) -> Sample:
    taken = recipe.side.run(measure(bench, recipe, loop))
    taken.values["sent"] = recipe.side.run(messages_sent(bench, recipe, loop))
    return taken


def row(name: str, title: str, side: Side, loop: Loop) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            *metrics(Target(1.15, 1.0)),
            Metric(
                "sent",
                "messages sent per borrow",
                "",
                "count",
                Target(0, on="value"),
                comparable=False,
            ),
        ),
        contenders=partial(contenders, side, loop),
        rounds=11,
        quick_rounds=3,
        against={
            JUDGED: f"{JUDGED}, liveness off",
            f"{JUDGED}, liveness off": f"{JUDGED}, liveness off",
            f"{BASELINE} + check": BASELINE,
            "SQLAlchemy": "SQLAlchemy",
            "SQLAlchemy + pre_ping": "SQLAlchemy",
        },
        note="x: against the same pool without its liveness check",
    )


ROWS = (
    row(
        "liveness-sync",
        "liveness as shipped, against liveness off, sync",
        THREADS,
        with_threads,
    ),
    row(
        "liveness-async",
        "liveness as shipped, against liveness off, asyncio",
        TASKS,
        with_tasks,
    ),
)
