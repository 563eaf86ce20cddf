"""The work: transfers by many threads or tasks, without a pool and with one.

A worker is the same in both cases. All that differs is `connect`, which it enters
for each transfer: it opens a connection, or it borrows one of the pool's.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)
from functools import partial
from time import monotonic
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

from bank.ledger import make_transfer, make_transfer_async, random_transfers
from bank.score import Score
from edgepool import AsyncConnectionPool, ConnectionPool

POOL_SIZE = 10
OPEN_FILES = 2_000  # a thousand connections and some; often 256 or 1024 are allowed
CONNECT_TIMEOUT = 5  # seconds; a swamped server may not answer at all

Connect = Callable[[], AbstractContextManager["Connection[Any]"]]
ConnectAsync = Callable[[], AbstractAsyncContextManager["AsyncConnection[Any]"]]


# -- threads ---------------------------------------------------------------------------


def threads_without_pool(conninfo: str, score: Score, workers: int, each: int) -> None:
    """Let every transfer open a connection of its own, and close it."""
    connect = partial(psycopg.connect, conninfo, connect_timeout=CONNECT_TIMEOUT)
    run_threads(connect, score, workers, each)


def threads_with_pool(conninfo: str, score: Score, workers: int, each: int) -> None:
    """Let every transfer borrow one of the pool's connections."""
    with ConnectionPool(conninfo, max_size=POOL_SIZE) as pool:
        run_threads(pool.connection, score, workers, each)


def run_threads(connect: Connect, score: Score, workers: int, each: int) -> None:
    """Run the workers until all is done or the time is up."""
    with ThreadPoolExecutor(workers) as executor:
        running = [
            executor.submit(worker, connect, score, seed, each)
            for seed in range(workers)
        ]
        try:
            for future in running:
                future.result()
        finally:
            score.end()


def worker(connect: Connect, score: Score, seed: int, each: int) -> None:
    """Make some transfers, one after the other. One that fails is not tried again."""
    for transfer in random_transfers(seed, each):
        if score.time_is_up():
            return
        asked = monotonic()
        try:
            with connect() as conn:
                waited = monotonic() - asked
                make_transfer(conn, transfer)
        except (psycopg.Error, OSError) as error:
            score.failed(error)
        else:
            score.succeeded(waited)


# -- asyncio ---------------------------------------------------------------------------


def tasks_without_pool(conninfo: str, score: Score, workers: int, each: int) -> None:
    """Let every transfer open a connection of its own, and close it."""
    connect = partial(open_connection, conninfo)
    asyncio.run(run_tasks(connect, score, workers, each))


def tasks_with_pool(conninfo: str, score: Score, workers: int, each: int) -> None:
    """Let every transfer borrow one of the pool's connections."""
    asyncio.run(run_tasks_with_pool(conninfo, score, workers, each))


async def run_tasks_with_pool(
    conninfo: str, score: Score, workers: int, each: int
) -> None:
    """Keep the pool open as long as the tasks run."""
    async with AsyncConnectionPool(conninfo, max_size=POOL_SIZE, open=False) as pool:
        await run_tasks(pool.connection, score, workers, each)


async def run_tasks(
    connect: ConnectAsync, score: Score, workers: int, each: int
) -> None:
    """Run the workers until all is done or the time is up."""
    tasks = (worker_async(connect, score, seed, each) for seed in range(workers))
    try:
        await asyncio.gather(*tasks)
    finally:
        score.end()


async def worker_async(
    connect: ConnectAsync, score: Score, seed: int, each: int
) -> None:
    """Make some transfers, one after the other. One that fails is not tried again."""
    for transfer in random_transfers(seed, each):
        if score.time_is_up():
            return
        asked = monotonic()
        try:
            async with connect() as conn:
                waited = monotonic() - asked
                await make_transfer_async(conn, transfer)
        except (psycopg.Error, OSError) as error:
            score.failed(error)
        else:
            score.succeeded(waited)


@asynccontextmanager
async def open_connection(conninfo: str) -> AsyncIterator[AsyncConnection[Any]]:
    """Open a connection for one transfer: commit at the end, and close it."""
    conn = await AsyncConnection.connect(conninfo, connect_timeout=CONNECT_TIMEOUT)
    async with conn:
        yield conn


def allow_open_files() -> None:
    """Raise the limit of open files and sockets, where it is too low for the demo."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = OPEN_FILES
    if hard != resource.RLIM_INFINITY:
        count = min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
