"""What a clean session costs: each way of having one, and none. Wall time.

In the callbacks is what `reset="clean"` sends, in one string. psycopg_pool's runs
in a worker, edgepool's and the clean-up in the background as well; asyncpg's own reset,
which is always on, is in the caller's time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from edgepool.psycopg._session import CLEAN

from ..model import BASELINE, JUDGED, Bench, Contender, Metric, Row, Sample
from ..peers import Recipe, Settings, asyncpgs, edgepools, psycopg_pools
from ..sides import TASKS, THREADS, Side
from .load import closed_loop

SIZE = 4

WORKERS = 8
"""Twice as many as connections: a clean-up is waited for."""


def callback(side: Side) -> Any:
    text = CLEAN.decode()
    if side is THREADS:

        def reset(conn: Any) -> None:
            conn.execute(text, prepare=False)

        return reset

    async def reset_async(conn: Any) -> None:
        await conn.execute(text, prepare=False)

    return reset_async


def recipes(side: Side) -> list[Recipe]:
    def with_reset(recipe: Recipe, name: str, reset: Any) -> Recipe:
        options = {**recipe.options, "reset": reset}
        return replace(recipe, name=f"{recipe.name} + {name}", options=options)

    theirs, ours = psycopg_pools(side), edgepools(side)
    return [
        theirs,
        with_reset(theirs, "reset callback", callback(side)),
        ours,
        with_reset(ours, "reset callback", callback(side)),
        with_reset(ours, 'reset="clean"', "clean"),
        *([asyncpgs()] if side is TASKS else []),
    ]


async def latency(bench: Bench, recipe: Recipe) -> float:
    """Microseconds from before a borrow until after the return, with one query.

    One worker who pauses for a moment after each: so a connection is ready.
    """
    times: list[float] = []
    async with recipe.open(Settings(bench.server.conninfo, SIZE)) as peer:
        for _ in range(bench.pick(600, 150)):
            started = perf_counter()
            async with peer.session() as conn:
                await peer.select_one(conn)
            times.append(perf_counter() - started)
            await recipe.side.sleep(0.001)
    return median(times) * 1e6


def sample(bench: Bench, recipe: Recipe) -> Sample:
    run = recipe.side.run
    seconds = bench.pick(0.8, 0.2)
    taken = run(closed_loop(bench, recipe, WORKERS, seconds))
    taken.values["latency"] = run(latency(bench, recipe))
    return taken


def contenders(side: Side, bench: Bench) -> list[Contender]:
    return [
        Contender(each.name, partial(sample, bench, each), each.other_driver)
        for each in recipes(side)
    ]


def row(name: str, title: str, side: Side) -> Row:
    return Row(
        name=name,
        title=title,
        metrics=(
            Metric("latency", "borrow, `SELECT 1`, return", "us", "wall"),
            Metric("throughput", "throughput of 8 workers", "/s", "wall"),
        ),
        contenders=partial(contenders, side),
        rounds=7,
        against={
            f"{JUDGED} + reset callback": f"{BASELINE} + reset callback",
            f'{JUDGED} + reset="clean"': f"{BASELINE} + reset callback",
        },
        note="with a reset, x: against psycopg_pool with a callback that does the same",
    )


ROWS = (
    row("hygiene-sync", "a clean session for each borrower, sync", THREADS),
    row("hygiene-async", "a clean session for each borrower, asyncio", TASKS),
)
