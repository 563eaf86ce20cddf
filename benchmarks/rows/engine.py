"""What a checkout costs an engine of SQLAlchemy, by its own pools and by edgepool's.

CPU time of `with engine.connect(): pass`, both ways as in `overhead`. The pools of both
come as an engine has them; an engine's transactions, events and records are in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

import edgepool.sqlalchemy as ours

from ..model import JUDGED, Bench, Contender, Metric, Row
from ..peers import TIMEOUT, Peer, Recipe, Settings
from ..sides import TASKS, THREADS, Side
from .overhead import Loop, contender, with_tasks, with_threads

QUEUE_POOL = "QueuePool"


@asynccontextmanager
async def opened(
    side: Side, settings: Settings, create: Any, **options: Any
) -> AsyncIterator[Peer]:
    """Make an engine; what it lends is SQLAlchemy's connection."""
    engine = create(
        ours.create_engine(settings.conninfo).url,
        pool_size=settings.size,
        max_overflow=0,
        pool_timeout=TIMEOUT,
        **options,
    )

    async def select_one(conn: Any) -> None:
        result = conn.execute(sqlalchemy.text("SELECT 1"))
        (await result if side is TASKS else result).fetchone()

    try:
        yield Peer(
            connection=engine.connect,
            getconn=engine.connect,
            putconn=lambda conn: conn.close(),
            session=lambda: side.entered(engine.connect()),
            select_one=select_one,
        )
    finally:
        disposed = engine.dispose()
        if side is TASKS:
            await disposed


def recipes(side: Side) -> list[Recipe]:
    usual, mine = sqlalchemy.create_engine, ours.create_engine
    if side is TASKS:
        usual, mine = create_async_engine, ours.create_async_engine
    ping = {"create": usual, "pool_pre_ping": True}
    return [
        Recipe(QUEUE_POOL, side, opened, {"create": usual}),
        Recipe(f"{QUEUE_POOL} + pre_ping", side, opened, ping),
        Recipe(JUDGED, side, opened, {"create": mine}),
    ]


def contenders(side: Side, loop: Loop, bench: Bench) -> list[Contender]:
    return [contender(bench, recipe, loop) for recipe in recipes(side)]


def row(name: str, title: str, side: Side, loop: Loop) -> Row:
    names = [recipe.name for recipe in recipes(side)]
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric("tight", "in a tight loop", "ns", "CPU"),
            Metric("rested", "after 150 us of rest", "ns", "CPU"),
        ),
        contenders=partial(contenders, side, loop),
        rounds=15,
        against=dict.fromkeys(names, QUEUE_POOL),
        note="x: against the pool that an engine has by itself",
    )


ROWS = (
    row(
        "engine-sync",
        "`with engine.connect()` and return, idle pool, sync",
        THREADS,
        with_threads,
    ),
    row(
        "engine-async",
        "`async with engine.connect()` and return, idle pool, asyncio",
        TASKS,
        with_tasks,
    ),
)
