"""Engines where processes fork, tasks are cancelled, and event loops come and go."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import InterfaceError, SAWarning
from sqlalchemy.util import greenlet_spawn

from edgepool import AsyncConnectionPool
from edgepool.sqlalchemy import create_async_engine
from support.engines import PID, engine, pid
from support.forks import Child
from support.parity import eventually, spawn

ONE = text("select 1")
SLEEP = text("select pg_sleep(60)")


async def inside(colour, function, *arguments):
    """Call a function where an engine of the colour works."""
    if colour.asynchronous:
        return await greenlet_spawn(function, *arguments)
    return function(*arguments)


# --- forks ----------------------------------------------------------------------------


@pytest.mark.parametrize("disposes", [False, True], ids=["as it is", "disposed"])
async def test_an_engine_that_was_used_before_a_fork(
    colour, conninfo, sessions, disposes
):
    made = engine(colour, conninfo, max_size=2)
    connected = []
    event.listen(made, "connect", lambda *_: connected.append(os.getpid()))
    before = await inside(colour, pid, made)
    held = await inside(colour, made.connect)

    async def child():
        if disposes:
            made.dispose(close=False)
        pids = {await inside(colour, pid, made) for _ in range(3)}
        await inside(colour, made.dispose)
        return pids, connected.count(os.getpid())

    pids, times = await Child(colour, child).outcome()

    assert before not in pids
    assert 1 == times
    assert before == await inside(colour, held.scalar, PID)
    await inside(colour, held.close)
    assert before == await inside(colour, pid, made)
    await inside(colour, made.dispose)


async def test_a_child_cannot_use_what_its_parent_had_borrowed(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    held = await inside(colour, made.connect)
    before = await inside(colour, held.scalar, PID)

    async def child():
        with pytest.raises(InterfaceError) as caught:
            await inside(colour, held.scalar, ONE)
        await inside(colour, held.rollback)
        await inside(colour, held.close)
        return type(caught.value.orig).__name__, await inside(colour, pid, made)

    error, served = await Child(colour, child).outcome()

    assert "BorrowedBeforeFork" == error
    assert before != served
    assert before == await inside(colour, held.scalar, PID)
    await inside(colour, held.close)
    await inside(colour, made.dispose)


# --- threads and tasks ----------------------------------------------------------------


async def test_many_share_few(colour, conninfo, sessions):
    made = engine(colour, conninfo, max_size=3)
    seen, wrong = set(), []

    def work(mine):
        for number in range(20):
            with made.begin() as conn:
                wanted = mine * 1000 + number
                found, process = conn.execute(
                    text("select cast(:n as int), pg_backend_pid()"), {"n": wanted}
                ).one()
                seen.add(process)
                if found != wanted:
                    wrong.append((wanted, found))

    workers = [spawn(inside, colour, work, number) for number in range(8)]
    for worker in workers:
        await worker

    assert [] == wrong
    assert len(seen) <= 3
    assert 0 == made.pool.checkedout()
    await inside(colour, made.dispose)


async def test_a_query_that_is_cancelled_costs_no_place(conninfo, sessions):
    made = create_async_engine(conninfo, max_size=1)

    async def query():
        async with made.connect() as conn:
            await conn.execute(ONE)
            await conn.execute(SLEEP)

    for _ in range(3):
        task = asyncio.ensure_future(query())
        await eventually(lambda: "select pg_sleep(60)" in sessions.queries)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with made.connect() as conn:
            assert 1 == await conn.scalar(ONE)
    await made.dispose()


async def test_who_is_cancelled_while_he_waits_costs_no_place(conninfo):
    made = create_async_engine(conninfo, max_size=1)

    async def use():
        async with made.connect() as conn:
            await conn.execute(ONE)

    async with made.connect():
        waiting = [asyncio.ensure_future(use()) for _ in range(5)]
        await eventually(lambda: made.pool.edge.statistics().waiting == 5)
        for task in waiting[:4]:
            task.cancel()
    await waiting[4]

    assert (0, 1) == (made.pool.checkedout(), made.pool.checkedin())
    await made.dispose()


@pytest.mark.parametrize("disposes", [False, True], ids=["as it is", "disposed"])
def test_an_engine_goes_from_one_event_loop_to_the_next(conninfo, admin, disposes):
    made = create_async_engine(conninfo, min_size=2, max_size=2)

    async def use():
        async with made.connect() as conn, made.connect() as other:
            pids = {await conn.scalar(PID), await other.scalar(PID)}
        if disposes:
            await made.dispose()
            assert [asyncio.current_task()] == list(asyncio.all_tasks())
        return pids

    first, second = asyncio.run(use()), asyncio.run(use())

    assert not first & second

    asyncio.run(made.dispose())


def test_to_dispose_of_an_engine_leaves_the_loop_of_a_shared_pool_alone(conninfo):
    async def use():
        pool = AsyncConnectionPool(conninfo, min_size=0, max_size=1)
        made = create_async_engine("postgresql+psycopg://", edge=pool)
        async with made.connect() as conn:
            first = await conn.scalar(PID)
        await asyncio.to_thread(made.sync_engine.dispose)
        async with made.connect() as conn:
            assert first == await conn.scalar(PID)
        await pool.close()

    asyncio.run(use())


def test_what_was_forgotten_when_its_loop_ended(conninfo):
    made = create_async_engine(conninfo, max_size=1)
    kept = []

    async def forget():
        kept.append(await made.connect())

    async def use():
        async with made.connect() as conn:
            return await conn.scalar(ONE)

    def drop():
        kept.clear()
        gc.collect()

    asyncio.run(forget())
    with pytest.warns(SAWarning, match="non-checked-in"):
        drop()

    assert 1 == asyncio.run(use())
    asyncio.run(made.dispose())
