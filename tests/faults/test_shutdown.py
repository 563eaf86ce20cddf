"""Closing at the worst moment: while others borrow, connect, return and check.

Whoever waits is told; what is lent stays good until its time is up; and when `close`
has returned, the server has no session of the pool's, whatever was under way.
How a program ends that does not close its pool is in tests/everywhere/test_exit.py.
"""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random

import psycopg
import pytest

from edgepool import AsyncPool, Pool, PoolClosed
from edgepool.testing import AsyncFakeAdapter, FakeAdapter, FakeServer
from support.conservation import conserved
from support.parity import entered, eventually, execute, pause, result, spawn
from support.pg import application_name, sessions_of
from support.rounds import rounds


async def busy(pool, dice):
    """Use a pool until it is closed; tell whether that was said in so many words."""
    while True:
        try:
            async with entered(pool.connection(timeout=20.0)) as conn:
                kind = dice.randrange(4)
                if kind == 0:
                    await execute(conn, "select 1")
                elif kind == 1:
                    await pause(0.001)
                elif kind == 2:
                    await result(pool.check())
        except PoolClosed:
            return True


async def nothing_is_left(pool, server, name):
    """Check that a pool is closed to the last, and has all its places if opened."""
    assert pool.closed

    now = pool.statistics()

    assert (0, 0) == (now.size, now.waiting)

    await eventually(lambda: not sessions_of(server, name))
    await result(pool.open())
    await conserved(pool, server, name)
    await result(pool.close())


async def test_a_close_in_full_swing_leaves_nothing_behind(colour, server, conninfo):
    for seed in range(rounds(10)):
        dice = Random(seed)
        pool = colour.Pool(
            conninfo,
            min_size=dice.randint(0, 3),
            max_size=3,
            check=colour.Pool.check_connection if dice.random() < 0.5 else None,
            open=False,
        )
        await result(pool.open())
        users = [spawn(busy, pool, Random(seed * 100 + n)) for n in range(6)]
        await pause(dice.random() * 0.03)

        await result(pool.close(timeout=20.0))

        assert [True] * 6 == [await user for user in users]

        await nothing_is_left(pool, server, application_name(conninfo))


async def test_what_is_not_back_in_time_is_cut_off(colour, server, conninfo):
    for seed in range(rounds(3)):
        pool = colour.Pool(conninfo, min_size=1, max_size=2, open=False)
        await result(pool.open())

        async def hold(pool=pool):
            try:
                async with entered(pool.connection()) as conn:
                    await execute(conn, "select pg_sleep(3)")
            except psycopg.OperationalError:
                return "cut off"

        holders = [spawn(hold) for _ in range(2)]
        await eventually(lambda pool=pool: pool.statistics().in_use == 2)
        waiting = spawn(pool.getconn)
        await eventually(lambda pool=pool: pool.statistics().waiting == 1)
        started = time.monotonic()

        await result(pool.close(timeout=seed * 0.1))

        assert time.monotonic() - started < seed * 0.1 + 2.0
        assert ["cut off"] * 2 == [await holder for holder in holders]
        with pytest.raises(PoolClosed):
            await waiting

        await nothing_is_left(pool, server, application_name(conninfo))


async def test_a_pool_may_be_closed_by_several_at_once(colour, server, conninfo):
    for _ in range(rounds(5)):
        pool = colour.Pool(conninfo, min_size=2, open=False)
        await result(pool.open())

        for closing in [spawn(pool.close) for _ in range(4)]:
            await closing

        await nothing_is_left(pool, server, application_name(conninfo))


async def test_a_pool_that_is_closed_while_it_connects_is_closed(colour, proxy, server):
    name = "closed-while-connecting"
    for n in range(rounds(5)):
        proxy.delay = n * 0.004
        conninfo = proxy.conninfo(application_name=name)
        pool = colour.Pool(conninfo, min_size=3, open=False)
        await result(pool.open())
        await pause(n * 0.003)

        await result(pool.close())
        proxy.delay = 0.0

        await nothing_is_left(pool, server, name)


async def test_a_closed_pool_is_opened_again_at_once(colour, server, conninfo):
    pool = colour.Pool(conninfo, min_size=2, open=False)
    for _ in range(rounds(10)):
        await result(pool.open())
        users = [spawn(busy, pool, Random(n)) for n in range(3)]
        await pause(0.002)
        await result(pool.close(timeout=20.0))
        for user in users:
            await user
    await result(pool.open(wait=True))

    assert 2 == pool.statistics().size

    await result(pool.close())

    await nothing_is_left(pool, server, application_name(conninfo))


# --- fakes: more of it, and faster ----------------------------------------------------


def test_threads_are_told_of_a_close_whatever_they_are_at():
    for seed in range(rounds(60)):
        dice = Random(seed)
        server = FakeServer()
        pool = Pool(
            FakeAdapter(server),
            min_size=dice.randint(0, 2),
            max_size=2,
            open=True,
            check_after=dice.choice([0.0, float("inf")]),
        )
        for operation in ("connect", "check", "reset", "close"):
            server.delay(operation, dice.choice([0.0, 0.001]))
        told = []

        def use(number, pool=pool, told=told):
            dice = Random(number)
            while True:
                try:
                    with pool.borrow(20.0) as session:
                        session.dirty = dice.random() < 0.5
                except PoolClosed:
                    told.append(number)
                    return

        users = [threading.Thread(target=use, args=[n]) for n in range(5)]
        for user in users:
            user.start()
        moment = dice.randint(0, 20)
        server.wait_until(lambda server, moment=moment: len(server.log) >= moment)
        pool.close()
        for user in users:
            user.join(20.0)

        assert [0, 1, 2, 3, 4] == sorted(told)
        assert () == server.sessions
        assert [] == server.mistakes


async def test_tasks_are_told_of_a_close_whatever_they_are_at():
    for seed in range(rounds(60)):
        dice = Random(seed)
        server = FakeServer()
        pool = AsyncPool(
            AsyncFakeAdapter(server),
            min_size=dice.randint(0, 2),
            max_size=2,
            check_after=dice.choice([0.0, float("inf")]),
        )
        for operation in ("connect", "check", "reset", "close"):
            server.delay(operation, dice.choice([0.0, 0.001]))
        await pool.open()

        async def use(number, pool=pool):
            dice = Random(number)
            while True:
                try:
                    async with pool.borrow(20.0) as session:
                        session.dirty = dice.random() < 0.5
                        await asyncio.sleep(0)
                except PoolClosed:
                    return number

        users = [asyncio.ensure_future(use(n)) for n in range(5)]
        moment = dice.randint(0, 20)
        while len(server.log) < moment:
            await asyncio.sleep(0)
        await pool.close()

        assert [0, 1, 2, 3, 4] == await asyncio.gather(*users)
        assert () == server.sessions
        assert [] == server.mistakes
