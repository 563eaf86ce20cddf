"""More workers than connections: throughput, and who gets how much of it. Wall time.

A closed loop: each worker borrows, works, returns and borrows again until the time is
up. In such a loop a pool that is not first come, first served shows at once.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Any

from ..model import Bench, Contender, Metric, Row, Sample, Target
from ..peers import Recipe, Settings, Work, usual
from ..sides import TASKS, THREADS

THREAD_COUNT = 64
TASK_COUNT = 100
SIZE = 4

HOLD = 200e-6
"""Asked of ``time.sleep``, which lets go of the interpreter lock as a query does.

The kernel makes about 280 us of it.
"""


async def hold(_conn: Any) -> None:
    await THREADS.sleep(HOLD)


async def closed_loop(
    bench: Bench,
    recipe: Recipe,
    workers: int,
    seconds: float,
    work: Work | None = None,
) -> Sample:
    """Let *workers* borrow, *work* and return for *seconds*; count what each got done.

    Without *work* it is `SELECT 1`.
    """
    errors = 0
    deadline = 0.0

    async with recipe.open(Settings(bench.server.conninfo, SIZE)) as peer:

        async def begin() -> None:
            nonlocal deadline
            deadline = perf_counter() + seconds

        async def worker(_number: int) -> int:
            nonlocal errors
            served = 0
            while perf_counter() < deadline:
                if not await peer.attempt(work):
                    errors += 1
                elif perf_counter() < deadline:
                    served += 1
            return served

        served = await recipe.side.crew(worker, workers, prepare=begin)

    values = {
        "throughput": sum(served) / seconds,
        "spread": max(served) / max(1, min(served)),
    }
    return Sample(values, errors)


async def without_a_pool(bench: Bench, seconds: float) -> Sample:
    """As many tasks as connections, each with its own: what the driver can do."""

    async def worker(_number: int) -> int:
        served = 0
        conn = await TASKS.connection_class.connect(
            bench.server.conninfo, autocommit=True
        )
        async with conn:
            deadline = perf_counter() + seconds
            while perf_counter() < deadline:
                await TASKS.select_one(conn)
                served += 1
        return served

    served = await TASKS.crew(worker, SIZE)
    return Sample({"throughput": sum(served) / seconds})


def thread_contenders(bench: Bench) -> list[Contender]:
    """64 threads that hold their connection for a while."""

    def sample(recipe: Recipe) -> Sample:
        seconds = bench.pick(1.0, 0.2)
        return THREADS.run(closed_loop(bench, recipe, THREAD_COUNT, seconds, hold))

    return [Contender(each.name, partial(sample, each)) for each in usual(THREADS)]


def task_contenders(bench: Bench) -> list[Contender]:
    """100 tasks with one query each time, and the driver alone."""
    seconds = bench.pick(0.6, 0.2)

    def sample(recipe: Recipe) -> Sample:
        return TASKS.run(closed_loop(bench, recipe, TASK_COUNT, seconds))

    def alone() -> Sample:
        return TASKS.run(without_a_pool(bench, seconds))

    return [
        *(
            Contender(each.name, partial(sample, each), each.other_driver)
            for each in usual(TASKS)
        ),
        Contender("no pool, 4 tasks", alone),
    ]


ROWS = (
    Row(
        name="contended-sync",
        title="64 threads on 4 connections, 200 us hold",
        metrics=(
            Metric(
                "throughput",
                "throughput",
                "/s",
                "wall",
                Target(1.0, at_least=True),
            ),
            Metric(
                "spread",
                "most to least served thread",
                "",
                "count",
                Target(1.1, on="value"),
                comparable=False,
            ),
        ),
        contenders=thread_contenders,
        rounds=7,
    ),
    Row(
        name="queries-async",
        title="100 tasks on 4 connections, `SELECT 1`, autocommit",
        metrics=(
            Metric(
                "throughput",
                "throughput",
                "/s",
                "wall",
                Target(1.5, 1.8, at_least=True),
            ),
            Metric(
                "spread",
                "most to least served task",
                "",
                "count",
                comparable=False,
            ),
        ),
        contenders=task_contenders,
        rounds=9,
    ),
)
