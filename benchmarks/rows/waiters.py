"""Tasks that wait for a connection, half of which give up: CPU time and memory.

Both figures hold the task itself: it is what a waiting request costs. The floor does
the same with a bare future per task and no pool at all.
"""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from statistics import median
from time import process_time
from typing import Any

from ..model import BASELINE, Bench, Contender, Metric, Row, Sample, Target
from ..peers import Peer, Recipe, Settings, asyncpgs, edgepools, psycopg_pools
from ..sides import TASKS

SIZE = 4
WAITERS = 10_000
SETTLING = 5
"""Turns of the event loop after which every task has reached the queue."""

FLAT = {1_000: 10, 10_000: 3, 100_000: 1}
"""Sizes of queue for flatness, and how often each is measured in a round."""


class Floor:
    """The least a queue can be: tasks that wait for a future. It serves in order."""

    name = "floor: a bare future"
    other_driver = False

    def __init__(self) -> None:
        self._idle = SIZE
        self._queue: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def open(self, _settings: Settings) -> AsyncIterator[Floor]:
        yield self

    def session(self) -> Floor:
        return self

    async def __aenter__(self) -> None:
        if self._idle:
            self._idle -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        await turn

    async def __aexit__(self, *_failure: object) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._idle += 1


Queueing = Recipe | Floor
Sampler = Callable[[Queueing], Coroutine[Any, Any, Sample]]


async def settle() -> None:
    for _ in range(SETTLING):
        await asyncio.sleep(0)


async def exhausted(peer: Peer | Floor) -> AsyncExitStack:
    """Borrow all there is; closing the stack gives it back."""
    borrowed = AsyncExitStack()
    for _ in range(SIZE):
        await borrowed.enter_async_context(peer.session())
    return borrowed


async def queue_up(peer: Peer | Floor, waiters: int) -> tuple[float, int]:
    """CPU microseconds per waiter, and how many met another end than they should.

    Counts all of it: making the tasks, queueing, cancelling every second one, serving
    the others when the connections come back.
    """
    borrowed = await exhausted(peer)
    served = 0

    async def waiter() -> None:
        nonlocal served
        async with peer.session():
            served += 1

    started = process_time()
    tasks = [asyncio.create_task(waiter()) for _ in range(waiters)]
    await settle()
    served_early = served

    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks[::2], return_exceptions=True)

    await borrowed.aclose()
    await asyncio.gather(*tasks[1::2], return_exceptions=True)
    spent = process_time() - started

    cancelled = sum(task.cancelled() for task in tasks)
    wrong = served_early + abs(cancelled - waiters // 2) + abs(served - waiters // 2)
    return spent / waiters * 1e6, wrong


async def weigh(peer: Peer | Floor, waiters: int) -> float:
    """Bytes of Python memory per waiting task."""
    borrowed = await exhausted(peer)

    async def waiter() -> None:
        async with peer.session():
            pass

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tasks = [asyncio.create_task(waiter()) for _ in range(waiters)]
        await settle()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await borrowed.aclose()
    return (after - before) / waiters


async def cpu_sample(bench: Bench, recipe: Queueing) -> Sample:
    settings = Settings(bench.server.conninfo, SIZE)
    async with recipe.open(settings) as peer:
        spent, wrong = await queue_up(peer, WAITERS)
    return Sample({"cpu": spent}, wrong)


async def memory_sample(bench: Bench, recipe: Queueing) -> Sample:
    settings = Settings(bench.server.conninfo, SIZE)
    async with recipe.open(settings) as peer:
        return Sample({"memory": await weigh(peer, WAITERS)})


async def flat_sample(bench: Bench, sizes: tuple[int, ...], recipe: Queueing) -> Sample:
    values: dict[str, float] = {}
    errors = 0
    settings = Settings(bench.server.conninfo, SIZE)
    async with recipe.open(settings) as peer:
        for waiters in sizes:
            runs = [await queue_up(peer, waiters) for _ in range(FLAT[waiters])]
            values[f"cpu_{waiters}"] = median(spent for spent, _ in runs)
            errors += sum(wrong for _, wrong in runs)

    for waiters in sizes[1:]:
        values[f"growth_{waiters}"] = values[f"cpu_{waiters}"] / values["cpu_1000"]
    return Sample(values, errors)


def contenders(recipes: list[Queueing], sample: Sampler) -> list[Contender]:
    """Let each of the *recipes* be measured by *sample*."""

    def run(recipe: Queueing) -> Sample:
        return TASKS.run(sample(recipe))

    return [
        Contender(each.name, partial(run, each), each.other_driver) for each in recipes
    ]


def queueing() -> list[Queueing]:
    return [psycopg_pools(TASKS), edgepools(TASKS), asyncpgs(), Floor()]


def cpu_contenders(bench: Bench) -> list[Contender]:
    return contenders(queueing(), partial(cpu_sample, bench))


def memory_contenders(bench: Bench) -> list[Contender]:
    return contenders(queueing(), partial(memory_sample, bench))


def flat_contenders(bench: Bench) -> list[Contender]:
    """psycopg_pool only up to 10,000, and everybody in a quick run."""
    few = tuple(FLAT)[:2]
    sizes = bench.pick(tuple(FLAT), few)
    return [
        *contenders([psycopg_pools(TASKS)], partial(flat_sample, bench, few)),
        *contenders([edgepools(TASKS), Floor()], partial(flat_sample, bench, sizes)),
    ]


ROWS = (
    Row(
        name="waiters-cpu",
        title="10,000 waiting tasks, half cancelled: CPU",
        metrics=(Metric("cpu", "per waiter", "us", "CPU", Target(0.30)),),
        contenders=cpu_contenders,
        rounds=7,
        quick_rounds=2,
    ),
    Row(
        name="waiters-memory",
        title="10,000 waiting tasks: memory",
        metrics=(Metric("memory", "per waiter", "B", "count", Target(0.40)),),
        contenders=memory_contenders,
        rounds=3,
        quick_rounds=1,
    ),
    Row(
        name="waiters-flat",
        title="waiting tasks, half cancelled: flat from 1,000 to 100,000",
        metrics=(
            *(
                Metric(f"cpu_{waiters}", f"per waiter of {waiters:,}", "us", "CPU")
                for waiters in FLAT
            ),
            Metric(
                "growth_10000",
                "10,000 against 1,000",
                "x",
                "CPU",
                Target(1.3, on="value"),
                comparable=False,
            ),
            Metric(
                "growth_100000",
                "100,000 against 1,000",
                "x",
                "CPU",
                Target(2.5, on="value"),
                comparable=False,
            ),
        ),
        contenders=flat_contenders,
        rounds=3,
        quick_rounds=1,
        note=(
            "the limits of 1.3 and 2.5 are performance.md's, section 10 row 7:"
            f" the floor, which is no pool, grows as well; {BASELINE} up to 10,000"
        ),
    ),
)
