"""Returning what is not lent is an error that says which, and where it was returned."""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import AsyncExitStack

import psycopg
import pytest

from edgepool import AsyncConnectionPool, ConnectionPool
from support.parity import entered, execute, fetch, lend, result
from support.pg import at_rest


def here():
    """The place of the call, as the error writes it, if it names the next line."""
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno + 1}"


async def refused(awaitable):
    """Give the message of a return that is refused."""
    with pytest.raises(ValueError, match="can't return connection") as caught:
        await result(awaitable)
    return str(caught.value)


async def attempt(pool, conn):
    """Return a connection; give the message if that is refused."""
    return await refused(_put(pool, conn))


async def _put(pool, conn):
    await result(pool.putconn(conn))


async def still_works(pool, number=1):
    """See that the pool has all its connections, and each of them for one borrower."""
    await at_rest(pool, number)
    async with AsyncExitStack() as stack:
        conns = [
            await stack.enter_async_context(entered(pool.connection()))
            for _ in range(number)
        ]

        assert len({id(conn) for conn in conns}) == number
        assert [1] * number == [await fetch(conn, "select 1") for conn in conns]

    await at_rest(pool, number)


# --- twice ----------------------------------------------------------------------------


def test_returned_twice_by_putconn_with_threads(conninfo):
    with ConnectionPool(conninfo, min_size=1, name="mine") as pool:
        conn = pool.getconn()
        place = here()
        pool.putconn(conn)
        with pytest.raises(ValueError, match="returned already") as caught:
            pool.putconn(conn)

    assert place in str(caught.value)
    assert "'mine'" in str(caught.value)
    assert "psycopg.Connection" in str(caught.value)


async def test_returned_twice_by_putconn_with_tasks(conninfo):
    async with AsyncConnectionPool(conninfo, min_size=1, name="mine") as pool:
        conn = await pool.getconn()
        place = here()
        await pool.putconn(conn)
        with pytest.raises(ValueError, match="returned already") as caught:
            await pool.putconn(conn)

    assert place in str(caught.value)
    assert "'mine'" in str(caught.value)
    assert "psycopg.AsyncConnection" in str(caught.value)


def test_returned_inside_the_block_with_threads(conninfo):
    with ConnectionPool(conninfo, min_size=1) as pool:
        block = pool.connection()
        with (
            pytest.raises(ValueError, match="returned already") as caught,
            block as conn,
        ):
            place = here()
            pool.putconn(conn)

    assert place in str(caught.value)


async def test_returned_inside_the_block_with_tasks(conninfo):
    async with AsyncConnectionPool(conninfo, min_size=1) as pool:
        with pytest.raises(ValueError, match="returned already") as caught:
            async with pool.connection() as conn:
                place = here()
                await pool.putconn(conn)

    assert place in str(caught.value)


def test_returned_by_a_block_and_then_by_putconn_with_threads(conninfo):
    with ConnectionPool(conninfo, min_size=1) as pool:
        first = here()
        with pool.connection() as conn:
            last = here()
        with pytest.raises(ValueError, match="returned already") as caught:
            pool.putconn(conn)

    # Python says that a block ends where it begins, or at its last line.
    assert first in str(caught.value) or last in str(caught.value)


async def test_returned_by_a_block_and_then_by_putconn_with_tasks(conninfo):
    async with AsyncConnectionPool(conninfo, min_size=1) as pool:
        first = here()
        async with pool.connection() as conn:
            last = here()
        with pytest.raises(ValueError, match="returned already") as caught:
            await pool.putconn(conn)

    assert first in str(caught.value) or last in str(caught.value)


def test_returned_by_close_and_then_by_putconn_with_threads(conninfo):
    with ConnectionPool(conninfo, min_size=1, close_returns=True) as pool:
        conn = pool.getconn()
        place = here()
        conn.close()
        with pytest.raises(ValueError, match="returned already") as caught:
            pool.putconn(conn)

    assert place in str(caught.value)


async def test_returned_by_close_and_then_by_putconn_with_tasks(conninfo):
    async with AsyncConnectionPool(conninfo, min_size=1, close_returns=True) as pool:
        conn = await pool.getconn()
        place = here()
        await conn.close()
        with pytest.raises(ValueError, match="returned already") as caught:
            await pool.putconn(conn)

    assert place in str(caught.value)


async def test_a_connection_returned_twice_is_lent_once(colour, conninfo):
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))
        await attempt(pool, conn)
        await still_works(pool, 2)


async def test_a_dirty_connection_returned_twice_is_reset_once(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        await result(pool.putconn(conn))
        await attempt(pool, conn)
        await still_works(pool)


async def test_a_block_whose_connection_is_somebody_elses_by_now_returns_nothing(
    colour, conninfo
):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(ValueError, match="can't return connection"):
            async with entered(pool.connection()) as conn:
                await result(pool.putconn(conn))
                somebody_elses = await result(pool.getconn())

        assert await fetch(somebody_elses, "select 1") == 1
        assert pool.get_stats()["pool_available"] == 0

        await result(pool.putconn(somebody_elses))
        await still_works(pool)


async def test_the_error_of_a_block_shows_beside_that_of_its_return(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(ValueError, match="can't return connection") as caught:
            async with entered(pool.connection()) as conn:
                await result(pool.putconn(conn))
                raise KeyError("mine")

        await still_works(pool)

    assert "KeyError: 'mine'" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_of_two_threads_that_return_at_once_one_is_refused(conninfo, dirty):
    outcomes = []
    with ConnectionPool(conninfo, min_size=1) as pool:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(200):
                conn = pool.getconn()
                if dirty:
                    conn.execute("select 1")
                barrier = threading.Barrier(4)
                answers = []

                def put(conn=conn, barrier=barrier, answers=answers):
                    barrier.wait()
                    try:
                        pool.putconn(conn)
                    except ValueError:
                        answers.append("refused")
                    else:
                        answers.append("taken")

                threads = [threading.Thread(target=put) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                outcomes.append(sorted(answers))
        finally:
            sys.setswitchinterval(interval)

    assert [["refused", "refused", "refused", "taken"]] * 200 == outcomes


# --- not ours -------------------------------------------------------------------------


async def test_what_no_pool_made_is_refused(colour, conninfo):
    foreign = await result(colour.Connection.connect(conninfo))
    try:
        async with colour.pool(conninfo, min_size=1, name="mine") as pool:
            message = await attempt(pool, foreign)
            await still_works(pool)

        assert "doesn't come from any pool" in message
        assert "'mine'" in message
        assert repr(foreign) in message
        assert not foreign.closed
    finally:
        await result(foreign.close())


async def test_what_another_pool_lent_is_refused(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1, name="mine") as mine,
        colour.pool(conninfo, min_size=1, name="theirs") as theirs,
    ):
        conn = await result(theirs.getconn())
        message = await attempt(mine, conn)

        assert "'mine'" in message
        assert "it comes from pool 'theirs'" in message

        # Nothing happened to it.
        assert await fetch(conn, "select 1") == 1

        await result(theirs.putconn(conn))
        await still_works(mine)
        await still_works(theirs)


async def test_what_another_pool_got_back_is_refused(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as mine,
        colour.pool(conninfo, min_size=1) as theirs,
    ):
        conn = await result(theirs.getconn())
        await result(theirs.putconn(conn))
        message = await attempt(mine, conn)
        await still_works(mine)
        await still_works(theirs)

    assert "returned already" in message


async def test_what_is_not_a_connection_at_all_is_refused(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        assert "doesn't come from any pool" in await attempt(pool, object())


async def test_a_pools_connections_are_not_refused_after_its_reopening(
    colour, conninfo
):
    async with colour.pool(conninfo, min_size=1) as pool:
        await lend(pool)
        await result(pool.close())
        await result(pool.open())
        await still_works(pool)


def test_a_connection_of_psycopg_is_still_closed_by_its_own_block(conninfo):
    """What `conn._pool` is for: without it a block would not close anything."""
    with ConnectionPool(conninfo, min_size=1) as pool, pool.connection() as conn:
        with conn:
            conn.execute("select 1")

        assert not conn.closed

    with psycopg.connect(conninfo) as foreign:
        pass

    assert foreign.closed
