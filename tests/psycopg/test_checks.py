"""The user's check runs when it is due, inside the deadline, and the idle are kept."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout

from edgepool import AsyncConnectionPool, _flows
from support.parity import entered, eventually, execute, fetch, lend, pid, result, spawn
from support.pg import at_rest, borrow_error, past_grace

# Far less than what it would take without a deadline, far more than what it takes.
GUARD = 5.0


class Check:
    """A check that counts, and fails the connections that it is told to fail."""

    def __init__(self, colour):
        self.calls = 0
        self.condemned = set()
        self.callback = colour.callback(self.check)

    async def check(self, conn):
        self.calls += 1
        if pid(conn) in self.condemned:
            raise RuntimeError("I do not like this one")
        await execute(conn, "select 'checked'")
        await result(conn.rollback())


@pytest.fixture
def check(colour):
    return Check(colour)


@pytest.mark.parametrize("query", ["select 1", "create temporary table mine ()"])
async def test_a_transaction_that_a_check_leaves_open_is_rolled_back(
    colour, conninfo, sessions, query
):
    async def check(conn):
        await execute(conn, query)

    async with colour.pool(conninfo, min_size=1, check=colour.callback(check)) as pool:
        await at_rest(pool, 1)
        await result(pool.check())

        assert {"idle": 1} == sessions.states

        async with entered(pool.connection()) as conn:
            assert TransactionStatus.IDLE == conn.info.transaction_status


async def test_without_check_after_every_borrow_is_checked(colour, conninfo, check):
    async with colour.pool(conninfo, min_size=1, check=check.callback) as pool:
        await at_rest(pool, 1)
        for _ in range(3):
            await past_grace()
            await lend(pool)

        assert check.calls == 3


async def test_a_borrow_right_after_a_borrow_is_checked_too(colour, conninfo, check):
    """Only the probe is skipped for 100 µs."""
    async with colour.pool(conninfo, min_size=1, check=check.callback) as pool:
        await at_rest(pool, 1)
        for _ in range(20):
            await result(pool.putconn(await result(pool.getconn())))

        assert check.calls == 20


async def test_what_was_proven_alive_lately_is_not_checked(colour, conninfo, check):
    async with colour.pool(
        conninfo, min_size=1, check=check.callback, check_after=60
    ) as pool:
        for _ in range(5):
            await past_grace()
            await lend(pool)

        assert check.calls == 0


async def test_what_was_proven_alive_lately_is_still_probed(
    colour, conninfo, check, sessions
):
    async with colour.pool(
        conninfo, min_size=1, check=check.callback, check_after=60
    ) as pool:
        before = await lend(pool)
        sessions.terminate(before)

        assert await lend(pool) != before


async def test_what_fails_its_check_is_replaced(colour, conninfo, check, sessions):
    async with colour.pool(conninfo, min_size=1, check=check.callback) as pool:
        before = await lend(pool)
        check.condemned.add(before)

        assert await lend(pool) != before

        await at_rest(pool, 1)

        assert before not in sessions.pids
        assert pool.get_stats()["connections_lost"] == 1


async def test_when_all_fail_their_check_the_borrower_gets_a_new_one(
    colour, conninfo, check, sessions
):
    async with colour.pool(conninfo, min_size=4, check=check.callback) as pool:
        await at_rest(pool, 4)
        check.condemned.update(sessions.pids)

        assert await lend(pool) not in check.condemned

        await at_rest(pool, 4)


async def test_a_check_that_hangs_does_not_outlast_the_deadline(colour, proxy):
    check = colour.Pool.check_connection
    async with colour.pool(proxy.conninfo(), min_size=2, check=check) as pool:
        await at_rest(pool, 2)
        proxy.black_hole()
        error, took = await borrow_error(pool, 0.3)

        assert isinstance(error, PoolTimeout)
        assert 0.3 <= took < GUARD

        proxy.restore()
        await lend(pool)
        await at_rest(pool, 2)


async def test_a_check_for_somebody_in_a_hurry_ends_too(colour, proxy):
    check = colour.Pool.check_connection
    async with colour.pool(proxy.conninfo(), min_size=1, check=check) as pool:
        await at_rest(pool, 1)
        proxy.black_hole()
        error, took = await borrow_error(pool, 0)

        assert isinstance(error, PoolTimeout)
        assert took < GUARD

        proxy.restore()


async def test_many_may_run_into_the_same_black_hole(colour, proxy):
    check = colour.Pool.check_connection
    async with colour.pool(proxy.conninfo(), min_size=3, check=check) as pool:
        await at_rest(pool, 3)
        proxy.black_hole()
        borrowers = [spawn(borrow_error, pool, 0.3) for _ in range(12)]
        outcomes = [await borrower for borrower in borrowers]

        assert all(isinstance(error, PoolTimeout) for error, _ in outcomes)
        assert all(took < GUARD for _, took in outcomes)

        proxy.restore()
        await lend(pool)
        await at_rest(pool, 3)


async def test_a_check_that_hangs_leaves_no_task_behind(proxy):
    check = AsyncConnectionPool.check_connection
    async with AsyncConnectionPool(proxy.conninfo(), min_size=1, check=check) as pool:
        await at_rest(pool, 1)
        proxy.black_hole()
        await borrow_error(pool, 0.1)

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_a_cut_off_check_leaves_does_not_harm_the_next(colour, proxy):
    """File descriptors are numbers that the next connection gets again."""
    check = colour.Pool.check_connection
    async with colour.pool(proxy.conninfo(), min_size=1, check=check) as pool:
        for _ in range(3):
            await at_rest(pool, 1)
            proxy.black_hole()
            await borrow_error(pool, 0.05)
            proxy.restore()
            async with entered(pool.connection()) as conn:
                assert await fetch(conn, "select 1") == 1


# --- keeping idle connections proven --------------------------------------------------


async def test_idle_connections_are_checked_in_the_background(colour, conninfo, check):
    async with colour.pool(
        conninfo, min_size=3, check=check.callback, check_after=0.02
    ) as pool:
        # Nobody borrows.
        await eventually(lambda: check.calls >= 9)
        await at_rest(pool, 3)


async def test_without_a_check_an_empty_query_keeps_them(colour, proxy):
    arguments = {"check_after": 0.02, "pooler": "none"}
    async with colour.pool(proxy.conninfo(), min_size=1, **arguments) as pool:
        await at_rest(pool, 1)
        await eventually(lambda: proxy.messages.count(("Q", b"\0")) >= 3)

        assert set(proxy.messages) <= {("Q", b"\0"), ("p", b"")}


async def test_without_check_after_idle_connections_are_left_alone(
    colour, conninfo, check
):
    clock = Check(colour)
    async with (
        colour.pool(conninfo, min_size=2, check=check.callback) as pool,
        colour.pool(conninfo, min_size=1, check=clock.callback, check_after=0.02),
    ):
        await at_rest(pool, 2)
        await eventually(lambda: clock.calls >= 5)

        assert check.calls == 0


async def test_an_idle_connection_that_dies_is_replaced_before_anybody_asks(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=3, check_after=0.02) as pool:
        await at_rest(pool, 3)
        dead = set(sessions.pids)
        sessions.terminate()
        await eventually(lambda: sessions.count == 3)

        assert not dead & set(sessions.pids)


async def test_an_idle_connection_in_a_black_hole_is_replaced(
    colour, proxy, monkeypatch
):
    monkeypatch.setattr(_flows, "ROUND_TRIP", 0.1)
    async with colour.pool(proxy.conninfo(), min_size=2, check_after=0.02) as pool:
        await at_rest(pool, 2)
        proxy.black_hole()
        await eventually(lambda: pool.get_stats().get("connections_lost", 0) >= 2)
        proxy.restore()

        await lend(pool)
        await at_rest(pool, 2)
