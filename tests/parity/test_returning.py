"""What becomes of a connection that comes back: clean, dirty, broken, or not ours."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus

from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    stat,
    waiter,
)


@pytest.fixture
def single(flavour, conninfo):
    """A pool of one connection, not yet open."""
    return flavour.pool(conninfo, min_size=1)


async def leave_busy(conn):
    """Send a query and do not read its answer."""
    conn.pgconn.send_query(b"select 1")

    assert conn.pgconn.transaction_status == TransactionStatus.ACTIVE


async def leave_in_transaction(conn):
    await execute(conn, "select 1")

    assert conn.pgconn.transaction_status == TransactionStatus.INTRANS


async def leave_in_failed_transaction(conn):
    with pytest.raises(psycopg.errors.DivisionByZero):
        await execute(conn, "select 1/0")

    assert conn.pgconn.transaction_status == TransactionStatus.INERROR


async def leave_closed(conn):
    await result(conn.close())

    assert conn.closed


async def test_a_connection_that_comes_back_is_lent_again(single):
    async with single as pool:
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))

        async with borrowed(pool, 1) as (again,):
            assert pid(again) == pid(conn)


async def test_returning_does_not_commit(single, admin):
    async with single as pool:
        conn = await result(pool.getconn())
        await execute(conn, "create table parity_uncommitted (x int)")
        await result(pool.putconn(conn))

        async with borrowed(pool, 1) as (again,):
            name = await fetch(again, "select to_regclass('parity_uncommitted')")

    assert name is None


@pytest.mark.parametrize(
    "leave",
    [leave_in_transaction, leave_in_failed_transaction],
    ids=lambda f: f.__name__,
)
async def test_a_connection_left_in_a_transaction_is_rolled_back_on_return(
    single, leave
):
    async with single as pool:
        conn = await result(pool.getconn())
        await leave(conn)
        await result(pool.putconn(conn))

        async with borrowed(pool, 1) as (again,):
            assert pid(again) == pid(conn)
            assert TransactionStatus.IDLE == again.pgconn.transaction_status


async def test_a_connection_left_in_a_transaction_is_rolled_back_for_who_waits(
    pool_class, conninfo
):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        waiting = await waiter(pool)
        await result(pool.putconn(conn))

        again = await waiting
        assert pid(again) == pid(conn)
        assert TransactionStatus.IDLE == again.pgconn.transaction_status
        await result(pool.putconn(again))


@pytest.mark.parametrize("leave", [leave_busy, leave_closed], ids=lambda f: f.__name__)
async def test_a_connection_that_cannot_be_lent_again_is_replaced(
    single, sessions, leave
):
    async with single as pool:
        conn = await result(pool.getconn())
        old = pid(conn)
        await leave(conn)
        await result(pool.putconn(conn))

        assert old != await lend(pool)
        await eventually(lambda: old not in sessions())
        assert 1 == len(sessions())


async def test_a_busy_connection_is_closed_when_it_comes_back(single):
    async with single as pool:
        conn = await result(pool.getconn())
        await leave_busy(conn)
        await result(pool.putconn(conn))

        await eventually(lambda: conn.closed)


async def test_a_connection_whose_session_ended_is_replaced(single, end_session):
    async with single as pool:
        conn = await result(pool.getconn())
        old = pid(conn)
        end_session(old)
        with pytest.raises(psycopg.OperationalError):
            await execute(conn, "select 1")
        await result(pool.putconn(conn))

        assert old != await lend(pool)


async def test_what_broke_while_lent_is_replaced_without_being_asked_for(single):
    async with single as pool:
        conn = await result(pool.getconn())
        await leave_closed(conn)
        await result(pool.putconn(conn))

        await stat(pool, "pool_available", 1)


async def test_who_waits_for_a_connection_that_broke_gets_another(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        conn = await result(pool.getconn())
        old = pid(conn)
        waiting = await waiter(pool)
        await leave_closed(conn)
        await result(pool.putconn(conn))

        other = await waiting
        assert old != pid(other)
        await result(pool.putconn(other))


async def test_a_connection_from_elsewhere_is_refused(flavour, pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    foreign = await result(flavour.Connection.connect(conninfo))

    async with entered(pool), entered(foreign):
        with pytest.raises(ValueError, match=pool.name):
            await result(pool.putconn(foreign))

        assert 1 == await fetch(foreign, "select 1")


async def test_a_connection_of_another_pool_is_refused_and_stays_lent(
    pool_class, conninfo
):
    mine = pool_class(conninfo, min_size=0, max_size=1, name="mine", open=False)
    yours = pool_class(conninfo, min_size=0, max_size=1, name="yours", open=False)

    async with entered(mine), entered(yours), borrowed(yours, 1) as (conn,):
        with pytest.raises(ValueError, match="yours"):
            await result(mine.putconn(conn))

        assert conn._pool is yours
        assert 1 == await fetch(conn, "select 1")


async def test_a_connection_is_returned_once(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))

        with pytest.raises(ValueError, match=pool.name):
            await result(pool.putconn(conn))

        assert await lend(pool)


async def test_what_is_returned_within_its_block_is_not_returned_again(single):
    async with single as pool:
        with pytest.raises(ValueError, match=pool.name):
            async with entered(pool.connection()) as conn:
                await result(pool.putconn(conn))


async def test_closing_a_connection_does_not_return_it(single):
    async with single as pool:
        conn = await result(pool.getconn())
        await result(conn.close())

        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.05))

        await result(pool.putconn(conn))


async def test_closing_returns_the_connection_to_a_pool_that_says_so(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1, close_returns=True) as pool:
        conn = await result(pool.getconn())
        await result(conn.close())

        assert not conn.closed
        async with borrowed(pool, 1) as (again,):
            assert pid(again) == pid(conn)


async def test_closing_returns_a_connection_of_ones_own_class(flavour, conninfo):
    class Own(flavour.Connection):
        pass

    pool = flavour.Pool(
        conninfo, min_size=1, close_returns=True, connection_class=Own, open=False
    )
    async with entered(pool):
        conn = await result(pool.getconn())
        await result(conn.close())

        async with borrowed(pool, 1) as (again,):
            assert pid(again) == pid(conn)
            assert isinstance(again, Own)


async def test_closing_to_return_rolls_back(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1, close_returns=True) as pool:
        conn = await result(pool.getconn())
        await leave_in_transaction(conn)
        await result(conn.close())

        async with borrowed(pool, 1) as (again,):
            assert TransactionStatus.IDLE == again.pgconn.transaction_status


async def test_closing_what_a_closed_pool_lent_closes_it(flavour, conninfo, sessions):
    pool = flavour.Pool(conninfo, min_size=1, close_returns=True, open=False)
    await result(pool.open())
    conn = await result(pool.getconn())
    await result(pool.close(timeout=0.0))
    await result(conn.close())

    await eventually(lambda: conn.closed)
    await eventually(lambda: [] == sessions())


async def test_a_block_returns_its_connection_whatever_closing_means(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1, close_returns=True) as pool:
        first = await lend(pool)

        assert first == await lend(pool)
        assert 1 == pool.get_stats()["pool_available"]
