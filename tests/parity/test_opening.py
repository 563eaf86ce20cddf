"""From closed to open to closed: `open`, `wait`, `close` and the context manager."""

from __future__ import annotations

import time

import psycopg_pool
import pytest

from support.parity import (
    PATIENCE,
    asyncio_only,
    entered,
    eventually,
    lend,
    pid,
    result,
    spawn,
    stat,
    threads_only,
    waiter,
)


async def test_a_pool_is_closed_until_it_is_opened(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    before = pool.closed

    await result(pool.open())
    during = pool.closed
    await result(pool.close())

    assert (True, False, True) == (before, during, pool.closed)


@pytest.mark.parametrize("call", ["getconn", "wait"])
async def test_a_pool_that_is_not_open_yet_refuses(pool_class, conninfo, call):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)

    with pytest.raises(psycopg_pool.PoolClosed):
        await result(getattr(pool, call)())


async def test_a_pool_that_is_not_open_yet_lends_to_no_block(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)

    with pytest.raises(psycopg_pool.PoolClosed):
        await lend(pool)


async def test_a_pool_that_is_not_open_has_no_sessions(flavour, conninfo, sessions):
    flavour.Pool(conninfo, min_size=1, open=False)

    assert [] == sessions()


async def test_opening_connects_without_being_asked_for_a_connection(
    flavour, conninfo, sessions
):
    async with flavour.pool(conninfo, min_size=2) as pool:
        await stat(pool, "pool_available", 2)

        assert 2 == len(sessions())


async def test_opening_does_not_wait_for_the_server(flavour, nowhere):
    pool = flavour.Pool(nowhere, min_size=1, open=False)

    await result(pool.open())

    assert not pool.closed
    await result(pool.close())


async def test_opening_twice_is_opening_once(flavour, conninfo, sessions):
    pool = flavour.Pool(conninfo, min_size=2, open=False)

    await result(pool.open())
    await result(pool.open())
    await result(pool.wait())

    assert 2 == len(sessions())
    await result(pool.close())


async def test_opening_can_wait_for_the_connections(flavour, conninfo):
    pool = flavour.Pool(conninfo, min_size=3, open=False)

    await result(pool.open(wait=True))

    assert 3 == pool.get_stats()["pool_available"]
    await result(pool.close())


async def test_waiting_ends_when_the_pool_holds_min_size_connections(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=3, max_size=5) as pool:
        await result(pool.wait())

        assert 3 == pool.get_stats()["pool_available"]


async def test_waiting_for_a_full_pool_ends_at_once(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=2) as pool:
        await result(pool.wait())
        await result(pool.wait(timeout=0.001))

        assert not pool.closed


async def test_a_wait_in_vain_raises_and_closes_the_pool(flavour, nowhere):
    pool = flavour.Pool(nowhere, min_size=1, open=False)
    await result(pool.open())

    with pytest.raises(psycopg_pool.PoolTimeout):
        await result(pool.wait(timeout=0.1))

    assert pool.closed


async def test_opening_in_vain_raises_and_closes_the_pool(flavour, nowhere):
    pool = flavour.Pool(nowhere, min_size=1, open=False)

    with pytest.raises(psycopg_pool.PoolTimeout):
        await result(pool.open(wait=True, timeout=0.1))

    assert pool.closed


async def test_a_block_opens_and_closes_its_pool(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)

    async with entered(pool) as inner:
        assert inner is pool
        assert not pool.closed
        assert await lend(pool)

    assert pool.closed


async def test_a_block_accepts_a_pool_that_is_open(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())

    async with entered(pool):
        assert await lend(pool)

    assert pool.closed


async def test_an_error_in_the_block_of_a_pool_passes_and_closes_the_pool(
    pool_class, conninfo
):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)

    with pytest.raises(KeyError):
        async with entered(pool):
            raise KeyError

    assert pool.closed


async def test_a_closed_pool_refuses(pool_class, conninfo):
    async with entered(
        pool_class(conninfo, min_size=0, max_size=1, open=False)
    ) as pool:
        await lend(pool)

    with pytest.raises(psycopg_pool.PoolClosed):
        await result(pool.getconn())
    with pytest.raises(psycopg_pool.PoolClosed):
        await lend(pool)


async def test_a_closed_pool_cannot_be_waited_for(pool_class, conninfo):
    async with entered(
        pool_class(conninfo, min_size=0, max_size=1, open=False)
    ) as pool:
        await lend(pool)

    with pytest.raises(psycopg_pool.PoolClosed):
        await result(pool.wait())


async def test_closing_twice_is_closing_once(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())

    await result(pool.close())
    await result(pool.close())

    assert pool.closed


async def test_a_pool_that_never_opened_can_be_closed(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)

    await result(pool.close())

    assert pool.closed


async def test_closing_ends_the_idle_sessions(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        assert 3 == len(sessions())

    await eventually(lambda: [] == sessions())


async def test_closing_ends_the_idle_sessions_of_a_pool_that_close_returns_to(
    flavour, conninfo, sessions
):
    async with flavour.pool(conninfo, min_size=2, close_returns=True) as pool:
        await result(pool.wait())
        assert 2 == len(sessions())

    await eventually(lambda: [] == sessions())


async def test_closing_does_not_wait_for_what_is_still_opening(flavour, conninfo):
    pool = flavour.Pool(conninfo, min_size=2, open=False)
    await result(pool.open())

    started = time.monotonic()
    await result(pool.close(timeout=PATIENCE))

    assert time.monotonic() - started < PATIENCE / 2


async def test_closing_does_not_wait_for_a_server_that_does_not_answer(
    flavour, nowhere
):
    pool = flavour.Pool(nowhere, min_size=2, open=False)
    await result(pool.open())
    await eventually(lambda: pool.get_stats().get("connections_errors"))

    closing = spawn(pool.close, timeout=10 * PATIENCE)

    await eventually(closing.done)
    await closing


async def test_who_waits_is_told_that_the_pool_closes(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())
    held = await result(pool.getconn())
    waiting = await waiter(pool)

    closing = spawn(pool.close, timeout=1.0)

    with pytest.raises(psycopg_pool.PoolClosed):
        await waiting
    await result(pool.putconn(held))
    await closing


async def test_what_comes_back_to_a_closed_pool_is_closed(
    pool_class, conninfo, sessions
):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())
    held = await result(pool.getconn())
    await result(pool.close(timeout=0.0))

    await result(pool.putconn(held))

    await eventually(lambda: held.closed)
    await eventually(lambda: [] == sessions())


async def test_a_block_that_outlives_its_pool_ends_quietly(
    pool_class, conninfo, sessions
):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())

    async with entered(pool.connection()) as conn:
        await result(pool.close(timeout=0.0))

    await eventually(lambda: conn.closed)
    await eventually(lambda: [] == sessions())


@threads_only
async def test_a_thread_pool_can_be_opened_by_its_constructor(flavour, conninfo):
    with flavour.Pool(conninfo, min_size=2, open=True) as pool:
        assert not pool.closed
        await stat(pool, "pool_available", 2)


@asyncio_only
async def test_an_asyncio_pool_warns_when_its_constructor_opens_it(flavour, conninfo):
    with pytest.warns(RuntimeWarning, match="constructor"):
        pool = flavour.Pool(conninfo, min_size=1, open=True)

    async with pool, pool.connection() as conn:
        assert pid(conn)


@asyncio_only
def test_an_asyncio_pool_cannot_be_opened_without_a_loop(flavour, conninfo):
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError, match="loop"):
        flavour.Pool(conninfo, open=True)
