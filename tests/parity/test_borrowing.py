"""To get a connection: at once, after a wait, or not at all."""

from __future__ import annotations

import asyncio

import psycopg
import psycopg_pool
import pytest

from support.parity import (
    asyncio_only,
    borrowed,
    entered,
    execute,
    fetch,
    lend,
    pid,
    result,
    spawn,
    waiter,
)


@pytest.fixture
def single(pool_class, conninfo):
    """A pool of either kind that lends one connection at most, not yet open."""
    return entered(pool_class(conninfo, min_size=0, max_size=1, open=False))


@pytest.fixture
def rows(admin):
    """An empty table `parity`: ask for the number of rows that others can see."""
    admin.execute("create table parity (x int)")
    yield lambda: admin.execute("select count(*) from parity").fetchone()[0]
    admin.execute("drop table parity")


async def insert(conn):
    await execute(conn, "insert into parity values (1)")


async def test_what_is_lent_is_a_connection_of_the_driver(flavour, single):
    async with single as pool, entered(pool.connection()) as conn:
        assert flavour.Connection is type(conn)
        assert 1 == await fetch(conn, "select 1")


async def test_a_block_that_ends_well_commits(single, rows):
    async with single as pool, entered(pool.connection()) as conn:
        await insert(conn)

    assert 1 == rows()


async def test_a_block_that_fails_rolls_back_and_lets_the_error_pass(single, rows):
    async with single as pool:
        with pytest.raises(KeyError):
            async with entered(pool.connection()) as conn:
                await insert(conn)
                raise KeyError

    assert 0 == rows()


async def test_a_query_that_fails_rolls_back_and_lets_the_error_pass(single, rows):
    async with single as pool:
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with entered(pool.connection()) as conn:
                await insert(conn)
                await execute(conn, "select 1/0")

        assert await lend(pool)
    assert 0 == rows()


async def test_what_a_block_committed_itself_stays(single, rows):
    async with single as pool:
        with pytest.raises(KeyError):
            async with entered(pool.connection()) as conn:
                await insert(conn)
                await result(conn.commit())
                raise KeyError

    assert 1 == rows()


async def test_a_connection_survives_its_block(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            first = pid(conn)

        async with entered(pool.connection()) as conn:
            assert first == pid(conn)


async def test_a_connection_survives_the_error_in_its_block(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(KeyError):
            async with entered(pool.connection()) as conn:
                first = pid(conn)
                await execute(conn, "select 1")
                raise KeyError

        async with entered(pool.connection()) as conn:
            assert first == pid(conn)


async def test_a_block_may_close_its_connection(single):
    async with single as pool:
        async with entered(pool.connection()) as conn:
            await result(conn.close())

        assert await lend(pool)


async def test_a_connection_that_breaks_in_its_block_is_replaced(single, end_session):
    async with single as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection()) as conn:
                broken = pid(conn)
                end_session(broken)
                await execute(conn, "select 1")

        async with entered(pool.connection()) as conn:
            assert broken != pid(conn)
            assert 1 == await fetch(conn, "select 1")


async def test_a_break_does_not_hide_the_error_of_the_block(single, end_session):
    async with single as pool:
        with pytest.raises(KeyError):
            async with entered(pool.connection()) as conn:
                await execute(conn, "select 1")
                end_session(pid(conn))
                raise KeyError

        assert await lend(pool)


async def test_a_connection_knows_its_pool_while_it_is_lent(single):
    async with single as pool, entered(pool.connection()) as conn:
        assert conn._pool is pool


async def test_a_connection_knows_no_pool_while_it_is_idle(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))

        assert conn._pool is None


async def test_who_finds_nothing_waits_until_a_connection_comes_back(single):
    async with single as pool:
        held = await result(pool.getconn())
        waiting = await waiter(pool)

        await result(pool.putconn(held))

        served = await waiting
        assert 1 == await fetch(served, "select 1")
        await result(pool.putconn(served))


async def test_who_waits_is_served_first_come_first_served(single):
    async with single as pool:
        conn = await result(pool.getconn())
        first, second, third = [await waiter(pool) for _ in range(3)]

        await result(pool.putconn(conn))
        conn = await first
        assert not second.done()
        assert not third.done()

        await result(pool.putconn(conn))
        conn = await second
        assert not third.done()

        await result(pool.putconn(conn))
        await result(pool.putconn(await third))


async def test_an_exhausted_pool_times_out(single):
    async with single as pool, borrowed(pool, 1):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.05))


async def test_a_block_times_out_too(single):
    async with single as pool, borrowed(pool, 1):
        with pytest.raises(psycopg_pool.PoolTimeout):
            async with entered(pool.connection(timeout=0.05)):
                pytest.fail("there was no connection to lend")


async def test_the_timeout_of_the_pool_holds_for_who_names_none(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, timeout=0.05, open=False)

    async with entered(pool):
        held = await result(pool.getconn(timeout=60.0))
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn())

        await result(pool.putconn(held))


async def test_a_timeout_of_ones_own_outlasts_the_one_of_the_pool(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, timeout=10.0, open=False)
    async with entered(pool):
        held = await result(pool.getconn())
        pool.timeout = 0.001
        waiting = await waiter(pool, timeout=20.0)
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn())

        await result(pool.putconn(held))

        await result(pool.putconn(await waiting))


async def test_no_time_at_all_is_not_enough_for_an_exhausted_pool(single):
    async with single as pool, borrowed(pool, 1):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0))


async def test_a_server_that_does_not_answer_times_out(flavour, nowhere):
    async with flavour.pool(nowhere, min_size=1) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.1))


async def test_who_gave_up_gets_no_connection(single):
    async with single as pool:
        async with borrowed(pool, 1):
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.02))

        assert await lend(pool)


async def test_who_waits_behind_one_that_gave_up_is_served(single):
    async with single as pool:
        held = await result(pool.getconn())
        impatient = await waiter(pool, timeout=0.5)
        patient = await waiter(pool)
        with pytest.raises(psycopg_pool.PoolTimeout):
            await impatient

        await result(pool.putconn(held))

        await result(pool.putconn(await patient))


@asyncio_only
async def test_a_waiter_that_is_cancelled_leaves_no_trace(single):
    async with single as pool:
        held = await pool.getconn()
        cancelled = await waiter(pool)
        patient = await waiter(pool)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

        await pool.putconn(held)

        await pool.putconn(await patient)


@asyncio_only
async def test_a_waiter_that_is_cancelled_when_served_loses_nothing(single):
    async with single as pool:
        held = await pool.getconn()
        cancelled = await waiter(pool)

        await pool.putconn(held)
        cancelled.cancel()
        served = (await asyncio.gather(cancelled, return_exceptions=True))[0]
        if not isinstance(served, asyncio.CancelledError):
            await pool.putconn(served)

        assert await lend(pool)


async def test_one_more_than_may_wait_is_refused(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, max_waiting=2, open=False)
    async with entered(pool):
        held = await result(pool.getconn())
        waiting = [await waiter(pool) for _ in range(2)]

        with pytest.raises(psycopg_pool.TooManyRequests):
            await result(pool.getconn())

        await result(pool.putconn(held))
        for one in waiting:
            await result(pool.putconn(await one))


async def test_who_is_refused_does_not_disturb_who_waits(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, max_waiting=1, open=False)
    async with entered(pool):
        held = await result(pool.getconn())
        waiting = await waiter(pool)
        for _ in range(3):
            with pytest.raises(psycopg_pool.TooManyRequests):
                await lend(pool)

        await result(pool.putconn(held))

        await result(pool.putconn(await waiting))


async def test_max_waiting_does_not_count_who_is_served_at_once(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=3, max_waiting=1, open=False)

    async with entered(pool), borrowed(pool, 3) as held:
        assert 3 == len({pid(conn) for conn in held})


async def test_no_two_borrowers_share_a_connection(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=4, open=False)

    async with entered(pool), borrowed(pool, 4) as held:
        assert 4 == len({pid(conn) for conn in held})


async def test_a_pool_lends_max_size_connections_at_most(
    pool_class, conninfo, sessions
):
    pool = pool_class(conninfo, min_size=0, max_size=2, open=False)

    async with entered(pool), borrowed(pool, 2):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.1))

        assert 2 == len(sessions())


async def test_many_borrowers_share_few_connections(pool_class, conninfo, sessions):
    async def work():
        async with entered(pool.connection()) as conn:
            backend = await fetch(conn, "select pg_backend_pid()")
            return backend == pid(conn)

    pool = pool_class(conninfo, min_size=0, max_size=2, open=False)
    async with entered(pool):
        tasks = [spawn(work) for _ in range(20)]

        assert [True] * 20 == [await task for task in tasks]
        assert len(sessions()) <= 2
