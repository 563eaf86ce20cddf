"""With `close_returns`, `conn.close()` returns the connection, whatever its state."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    waiter,
)
from support.pg import at_rest


@pytest.fixture(params=["psycopg's", "a custom class"])
def connection_class(request, colour):
    if request.param == "psycopg's":
        return colour.Connection
    return type("Custom", (colour.Connection,), {})


@pytest.fixture
def pool_of(colour, conninfo, connection_class):
    """Make an open pool whose connections `close` into it."""

    def pool_of(size=1, **arguments):
        return colour.pool(
            conninfo,
            min_size=size,
            close_returns=True,
            connection_class=connection_class,
            **arguments,
        )

    return pool_of


async def test_close_returns_the_connection(pool_of, connection_class):
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        before = pid(conn)

        assert type(conn) is connection_class

        await result(conn.close())
        await at_rest(pool, 1)

        assert not conn.closed
        assert await lend(pool) == before


async def test_close_serves_who_waits(pool_of):
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        waiting = await waiter(pool)
        await result(conn.close())

        other = await waiting
        assert pid(other) == pid(conn)

        await result(other.close())


async def test_close_rolls_back(pool_of, admin):
    admin.execute("drop table if exists closing")
    admin.execute("create table closing (n int)")
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        await execute(conn, "insert into closing values (1)")
        await result(conn.close())
        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)

    (count,) = admin.execute("select count(*) from closing").fetchone()
    admin.execute("drop table closing")

    assert count == 0


async def test_close_of_what_the_server_ended_gives_the_place_back(pool_of, sessions):
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        sessions.terminate(before)
        await result(conn.close())

        assert await lend(pool) != before


async def test_close_of_what_broke_gives_the_place_back(pool_of, sessions):
    """psycopg's own `close` returns early when the connection is closed already."""
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        sessions.terminate(before)
        with pytest.raises(psycopg.OperationalError):
            await execute(conn, "select 1")

        assert conn.closed

        await result(conn.close())

        assert await lend(pool) != before

        await at_rest(pool, 1)


async def test_close_in_mid_operation_gives_the_place_back(pool_of, sessions):
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        conn.pgconn.send_query(b"select 1")
        await result(conn.close())

        assert await lend(pool) != before

        await eventually(lambda: sessions.count == 1)


async def test_close_twice_returns_once_and_closes_nothing(pool_of):
    """psycopg's own may be called as often as one likes; ours may refuse it."""
    async with pool_of() as pool:
        conn = await result(pool.getconn())
        await result(conn.close())
        with suppress(ValueError):
            await result(conn.close())

        assert not conn.closed

        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select 1") == 1


async def test_what_the_pool_closes_is_closed(pool_of, sessions):
    async with pool_of(size=3) as pool:
        await at_rest(pool, 3)
        conn = await result(pool.getconn())
        await result(pool.drain())
        await result(conn.close())
        await at_rest(pool, 3)

        assert conn.closed

        await eventually(lambda: sessions.count == 3)

    await eventually(lambda: sessions.count == 0)


async def test_a_block_returns_it_as_ever(pool_of, sessions):
    async with pool_of() as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, "select 1")
        await at_rest(pool, 1)

        assert not conn.closed
        assert sessions.count == 1


async def test_without_it_close_closes(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await result(conn.close())

        assert conn.closed

        await result(pool.putconn(conn))
        await at_rest(pool, 1)
