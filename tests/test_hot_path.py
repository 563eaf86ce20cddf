"""How many calls a borrow and its return cost: the part of their price that is exact.

What they cost in time is measured in benchmarks/. A call of a Python function is some
50 ns, and the pool's budget is a few of them: whoever adds one changes a number here,
and says in the change why it is worth it.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import psycopg
import pytest

import edgepool.psycopg._leases
import edgepool.psycopg._pool
from edgepool import AsyncConnectionPool, AsyncPool, ConnectionPool, Pool
from edgepool.testing import AsyncFakeAdapter, FakeAdapter, FakeServer

ROUNDS = 10
NEVER = float("inf")


class FakePgconn:
    """As much of libpq's connection as is looked at while all is well."""

    status = 0  # OK
    transaction_status = 0  # IDLE
    _encoding = "utf-8"

    def __init__(self):
        self._sockets = socket.socketpair()
        self.socket = self._sockets[0].fileno()

    def finish(self):
        self.status = 1  # BAD
        for each in self._sockets:
            each.close()


class FakeConnection(psycopg.Connection):
    """A psycopg connection whose server is silent."""

    @classmethod
    def connect(cls, conninfo, **kwargs):
        return cls(FakePgconn())


class AsyncFakeConnection(psycopg.AsyncConnection):
    @classmethod
    async def connect(cls, conninfo, **kwargs):
        return cls(FakePgconn())


class Clock:
    """A clock that moves when it is told to: so a probe is due, or it is not."""

    def __init__(self):
        self.now = 1e9  # so late that no real timer comes

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pool(clock, monkeypatch):
    for module in (edgepool.psycopg._pool, edgepool.psycopg._leases):
        monkeypatch.setattr(module, "monotonic", clock)
    pool = ConnectionPool(
        connection_class=FakeConnection, min_size=1, open=False, pooler="none"
    )
    pool._engine.clock = pool._engine.wall = clock
    with pool:
        pool.wait()
        yield pool


@pytest.fixture
def async_pool(clock, monkeypatch):
    monkeypatch.setattr(edgepool.psycopg._leases, "monotonic", clock)
    pool = AsyncConnectionPool(
        connection_class=AsyncFakeConnection, min_size=1, open=False, pooler="none"
    )
    pool._engine.clock = pool._engine.wall = clock
    return pool


def calls_of(cycle):
    """Give the names of edgepool's functions that are called in one cycle."""
    calls = []

    def profile(frame, event, argument):
        if event == "call" and frame.f_code.co_filename != __file__:
            calls.append(frame.f_code.co_name)

    cycle()  # the first one may be different
    sys.setprofile(profile)
    try:
        for _ in range(ROUNDS):
            cycle()
    finally:
        sys.setprofile(None)

    once = calls[: len(calls) // ROUNDS]

    assert once * ROUNDS == calls

    return once


def awaited_calls_of(pool, cycle):
    """Give the same of a coroutine function, which must not suspend."""

    def complete():
        try:
            cycle().send(None)
        except StopIteration:
            return
        pytest.fail("it suspends")

    async def main():
        async with pool:
            await pool.wait()
            return calls_of(complete)

    return asyncio.run(main())


# --- nothing to see to ----------------------------------------------------------------


def test_a_with_block_calls_8_functions(pool):
    def cycle():
        with pool.connection():
            pass

    assert len(calls_of(cycle)) <= 8


def test_an_async_with_block_calls_8_functions(async_pool):
    async def cycle():
        async with async_pool.connection():
            pass

    assert len(awaited_calls_of(async_pool, cycle)) <= 8


def test_getconn_and_putconn_call_6_functions(pool):
    def cycle():
        pool.putconn(pool.getconn())

    assert len(calls_of(cycle)) <= 6


def test_awaited_getconn_and_putconn_call_6_functions(async_pool):
    async def cycle():
        await async_pool.putconn(await async_pool.getconn())

    assert len(awaited_calls_of(async_pool, cycle)) <= 6


def test_a_pool_of_anything_calls_8_functions(clock):
    server = FakeServer(clock=clock)
    with Pool(FakeAdapter(server), min_size=1, check_after=NEVER) as pool:
        pool._engine.clock = pool._engine.wall = clock
        pool.wait()

        def cycle():
            with pool.borrow():
                pass

        # One of them is the adapter's.
        assert len(calls_of(cycle)) <= 8


def test_an_async_pool_of_anything_calls_8_functions(clock):
    server = FakeServer(clock=clock)
    pool = AsyncPool(AsyncFakeAdapter(server), min_size=1, check_after=NEVER)
    pool._engine.clock = pool._engine.wall = clock

    async def cycle():
        async with pool.borrow():
            pass

    assert len(awaited_calls_of(pool, cycle)) <= 8


# --- a probe is due, as it is 0.1 ms after the last sign of life ----------------------


def test_a_probe_adds_7_calls_to_a_with_block(pool, clock):
    def cycle():
        clock.now += 0.001
        with pool.connection():
            pass

    assert len(calls_of(cycle)) <= 8 + 7


def test_a_probe_adds_7_calls_to_an_async_with_block(async_pool, clock):
    async def cycle():
        clock.now += 0.001
        async with async_pool.connection():
            pass

    assert len(awaited_calls_of(async_pool, cycle)) <= 8 + 7


# --- it has been idle for so long that the machine may have been suspended ------------


def test_a_look_at_the_wall_adds_1_call_to_a_with_block(pool, clock):
    def cycle():
        clock.now += 1.0
        with pool.connection():
            pass

    assert len(calls_of(cycle)) <= 8 + 7 + 1


def test_a_look_at_the_wall_adds_1_call_to_an_async_with_block(async_pool, clock):
    async def cycle():
        clock.now += 1.0
        async with async_pool.connection():
            pass

    assert len(awaited_calls_of(async_pool, cycle)) <= 8 + 7 + 1


# --- what there is none of ------------------------------------------------------------


class Taboo:
    """A lock that nobody may take."""

    def __enter__(self):
        pytest.fail("the hot path takes a lock")

    def __exit__(self, *exc_info):
        raise NotImplementedError


@pytest.mark.parametrize("step", [0.0, 1.0], ids=["trusted", "probed"])
def test_a_borrow_and_its_return_take_no_lock(pool, clock, step, monkeypatch):
    pool.putconn(pool.getconn())
    with monkeypatch.context() as patches:
        patches.setattr(pool._engine, "_mutex", Taboo())
        for _ in range(ROUNDS):
            clock.now += step
            with pool.connection():
                pass


def test_a_borrow_and_its_return_start_no_task(async_pool, clock):
    async def main():
        async with async_pool:
            await async_pool.wait()
            for _ in range(ROUNDS):
                clock.now += 1.0
                async with async_pool.connection():
                    pass
            return len(asyncio.all_tasks())

    assert 1 == asyncio.run(main())
