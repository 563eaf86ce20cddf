"""Null pools: the interface and the limits of a pool, and no connection kept."""

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
    lend,
    pid,
    result,
    stat,
    waiter,
)


async def test_an_open_null_pool_has_no_sessions(flavour, conninfo, sessions):
    async with flavour.null_pool(conninfo):
        assert [] == sessions()


async def test_what_comes_back_to_a_null_pool_is_closed(flavour, conninfo, sessions):
    async with flavour.null_pool(conninfo) as pool:
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))

        await eventually(lambda: conn.closed)
        await eventually(lambda: [] == sessions())


async def test_each_borrower_gets_a_new_connection(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1) as pool:
        first = await lend(pool)

        assert first != await lend(pool)


@pytest.mark.parametrize("max_size", [None, 0])
async def test_without_max_size_there_is_no_limit(
    flavour, conninfo, sessions, max_size
):
    async with flavour.null_pool(conninfo, max_size=max_size) as pool:
        assert 0 == pool.max_size
        async with borrowed(pool, 12):
            assert 12 == len(sessions())


async def test_max_size_is_the_limit(flavour, conninfo, sessions):
    async with flavour.null_pool(conninfo, max_size=2) as pool, borrowed(pool, 2):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.05))

        assert 2 == len(sessions())


async def test_who_waits_gets_the_very_connection_that_comes_back(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1) as pool:
        conn = await result(pool.getconn())
        waiting = await waiter(pool)
        await result(pool.putconn(conn))
        again = await waiting

        assert pid(again) == pid(conn)
        assert not again.closed
        await result(pool.putconn(again))


async def test_a_null_pool_has_nothing_available(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=2) as pool:
        async with borrowed(pool, 2):
            stats = pool.get_stats()
            assert (2, 0) == (stats["pool_size"], stats["pool_available"])

        assert 0 == pool.get_stats()["pool_available"]
        await stat(pool, "pool_size", 0)


async def test_reset_sees_what_is_handed_on_in_no_transaction(flavour, conninfo):
    seen = []

    async def reset(conn):
        seen.append((pid(conn), conn.pgconn.transaction_status))

    async with flavour.null_pool(
        conninfo, max_size=1, reset=flavour.callback(reset)
    ) as pool:
        conn = await result(pool.getconn())
        backend = pid(conn)
        await execute(conn, "select 1")
        waiting = await waiter(pool)
        await result(pool.putconn(conn))
        again = await waiting

        assert [(backend, TransactionStatus.IDLE)] == seen
        await result(pool.putconn(again))


async def test_reset_does_not_see_what_is_closed(flavour, conninfo):
    seen = []

    async def reset(conn):
        seen.append(conn)

    async with flavour.null_pool(conninfo, reset=flavour.callback(reset)) as pool:
        await lend(pool)
        await lend(pool)

    assert [] == seen


async def test_a_check_of_a_null_pool_does_nothing(flavour, conninfo):
    asked = []

    def where():
        asked.append(1)
        return conninfo

    async with flavour.null_pool(where) as pool:
        await result(pool.check())

        assert [] == asked


async def test_waiting_for_a_null_pool_tries_one_connection(
    flavour, conninfo, sessions
):
    asked = []

    def where():
        asked.append(1)
        return conninfo

    async with flavour.null_pool(where) as pool:
        await result(pool.wait())

        assert [1] == asked
        await eventually(lambda: [] == sessions())


async def test_waiting_for_a_null_pool_takes_no_place(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=2) as pool:
        await result(pool.wait())
        await result(pool.wait())

        async with borrowed(pool, 2):
            assert 2 == pool.get_stats()["pool_size"]


async def test_opening_a_null_pool_can_wait_for_a_connection(flavour, conninfo):
    pool = flavour.NullPool(conninfo, open=False)

    await result(pool.open(wait=True))

    assert 1 == pool.get_stats()["connections_num"]
    await result(pool.close())


async def test_waiting_for_a_null_pool_in_vain_raises_and_closes_it(flavour, nowhere):
    pool = flavour.NullPool(nowhere, open=False)
    await result(pool.open())

    with pytest.raises(psycopg_pool.PoolTimeout):
        await result(pool.wait(timeout=0.1))

    assert pool.closed


async def test_a_null_pool_can_be_resized(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1) as pool:
        await result(pool.resize(0, 3))

        assert (0, 3) == (pool.min_size, pool.max_size)
        async with borrowed(pool, 3) as held:
            assert 3 == len({pid(conn) for conn in held})


async def test_a_null_pool_can_be_resized_to_no_limit(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1) as pool:
        await result(pool.resize(0))

        assert (0, 0) == (pool.min_size, pool.max_size)
        async with borrowed(pool, 3) as held:
            assert 3 == len({pid(conn) for conn in held})


@pytest.mark.parametrize("sizes", [(1,), (1, 2), (0, -1)], ids=str)
async def test_a_null_pool_is_not_resized_to_keep_connections(flavour, conninfo, sizes):
    async with flavour.null_pool(conninfo, max_size=2) as pool:
        with pytest.raises(ValueError, match="_size"):
            await result(pool.resize(*sizes))

        assert (0, 2) == (pool.min_size, pool.max_size)


async def test_draining_a_null_pool_does_not_disturb(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await result(pool.drain())
            await execute(conn, "select 1")

        assert await lend(pool)


async def test_a_null_pool_that_cannot_connect_raises_an_error_of_the_driver(
    flavour, nowhere
):
    async with flavour.null_pool(nowhere) as pool:
        with pytest.raises(psycopg.OperationalError):
            await result(pool.getconn(timeout=0.2))


async def test_a_connection_that_failed_takes_no_place(flavour, conninfo, nowhere):
    async with flavour.null_pool(nowhere, max_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            await result(pool.getconn(timeout=0.2))
        pool.conninfo = conninfo

        assert await lend(pool)
