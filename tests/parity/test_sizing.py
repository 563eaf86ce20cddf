"""How many connections there are, and which: growth, shrinking, age, replacement."""

from __future__ import annotations

import psycopg_pool
import pytest
from psycopg.pq import TransactionStatus

from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    lend,
    overlapping,
    pid,
    result,
    spawn,
    stat,
)


async def test_a_pool_grows_when_more_is_asked_for(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=1, max_size=3) as pool:
        await result(pool.wait())
        before = len(sessions())

        async with borrowed(pool, 3):
            assert (1, 3) == (before, len(sessions()))


async def test_a_pool_without_max_size_does_not_grow(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=2) as pool, borrowed(pool, 2):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.1))

        assert 2 == len(sessions())


async def test_a_pool_of_at_least_none_opens_nothing_until_asked(
    flavour, conninfo, sessions
):
    async with flavour.pool(conninfo, min_size=0, max_size=1) as pool:
        await result(pool.wait())
        before = sessions()
        served = await lend(pool)

        assert ([], [served]) == (before, sessions())


async def test_who_waits_is_served_while_the_pool_grows(flavour, conninfo):
    """The connection that comes back first serves, be it old or new."""
    async with flavour.pool(conninfo, min_size=1, max_size=4) as pool:
        conns = [await task for task in [spawn(pool.getconn) for _ in range(4)]]

        assert 4 == len({pid(conn) for conn in conns})
        for conn in conns:
            await result(pool.putconn(conn))


async def test_a_pool_that_grew_shrinks_after_max_idle(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=1, max_size=3, max_idle=0.1) as pool:
        async with borrowed(pool, 3):
            pass

        await stat(pool, "pool_size", 1)
        await eventually(lambda: 1 == len(sessions()))
        assert await lend(pool) == sessions()[0]


@pytest.mark.parametrize("workers", [1, 2])
async def test_num_workers_bounds_what_is_opened_at_the_same_time(
    flavour, conninfo, workers
):
    peak, Slow = overlapping(flavour)

    async with flavour.pool(
        conninfo, min_size=5, num_workers=workers, connection_class=Slow
    ) as pool:
        await result(pool.wait())

    assert workers == peak()


# max_lifetime


async def test_a_connection_that_comes_back_too_old_is_replaced(
    flavour, conninfo, sessions
):
    async with flavour.pool(conninfo, min_size=1, max_lifetime=0.3) as pool:
        async with entered(pool.connection()) as conn:
            old = pid(conn)
            await execute(conn, "select pg_sleep(0.35)")

        await eventually(lambda: old not in sessions())
        assert old != await lend(pool)


async def test_a_check_of_the_pool_replaces_what_is_too_old(
    flavour, conninfo, sessions, admin
):
    async with flavour.pool(conninfo, min_size=1, max_lifetime=0.3) as pool:
        old = await lend(pool)
        admin.execute("select pg_sleep(0.35)")

        await result(pool.check())

        await eventually(lambda: old not in sessions())
        await eventually(lambda: 1 == len(sessions()))


async def test_a_connection_may_be_used_beyond_its_age(flavour, conninfo):
    opening = flavour.pool(conninfo, min_size=1, max_lifetime=0.1)
    async with opening as pool, borrowed(pool, 1) as (conn,):
        await execute(conn, "select pg_sleep(0.15)")
        await execute(conn, "select 1")

        assert not conn.closed


# resize


async def test_resizing_tells_the_new_sizes(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.resize(2, 5))

        assert (2, 5) == (pool.min_size, pool.max_size)


async def test_resizing_without_max_size_fixes_the_size(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1, max_size=9) as pool:
        await result(pool.resize(3))

        assert (3, 3) == (pool.min_size, pool.max_size)


async def test_resizing_up_opens_connections(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await result(pool.resize(3))

        await stat(pool, "pool_available", 3)
        assert 3 == len(sessions())


async def test_resizing_up_lets_the_pool_grow(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.resize(1, 3))

        async with borrowed(pool, 3) as held:
            assert 3 == len({pid(conn) for conn in held})


async def test_resizing_down_closes_what_is_too_many(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=4, max_idle=0.1) as pool:
        await result(pool.wait())
        await result(pool.resize(1))

        await stat(pool, "pool_size", 1)
        await eventually(lambda: 1 == len(sessions()))
        assert await lend(pool)


async def test_resizing_down_leaves_who_has_a_connection_alone(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=2) as pool:
        async with borrowed(pool, 2) as held:
            await result(pool.resize(1))

            for conn in held:
                await execute(conn, "select 1")
                assert not conn.closed

        assert await lend(pool)


@pytest.mark.parametrize("sizes", [(-1,), (2, 1), (0,), (0, 0)], ids=str)
async def test_resizing_to_what_makes_no_sense_is_refused(flavour, conninfo, sizes):
    async with flavour.pool(conninfo, min_size=1, max_size=2) as pool:
        with pytest.raises(ValueError, match="_size"):
            await result(pool.resize(*sizes))

        assert (1, 2) == (pool.min_size, pool.max_size)


# drain


async def test_draining_replaces_what_is_idle(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        old = set(sessions())

        await result(pool.drain())

        await eventually(lambda: not old & set(sessions()))
        await stat(pool, "pool_available", 3)
        assert 3 == len(sessions())


async def test_draining_replaces_what_is_lent_when_it_comes_back(
    flavour, conninfo, sessions
):
    async with flavour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            old = pid(conn)
            await result(pool.drain())
            await execute(conn, "select 1")

        await eventually(lambda: old not in sessions())
        assert old != await lend(pool)


async def test_draining_spares_what_is_opened_after_it(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await result(pool.drain())
        new = await lend(pool)

        assert new == await lend(pool)


async def test_draining_configures_anew(flavour, conninfo):
    configured = []

    async def note(conn):
        configured.append(pid(conn))

    configure = flavour.callback(note)
    async with flavour.pool(conninfo, min_size=1, configure=configure) as pool:
        old = await lend(pool)
        await result(pool.drain())
        new = await lend(pool)

    assert [old, new] == configured


# check


async def test_a_check_of_the_pool_replaces_the_dead(
    flavour, conninfo, sessions, end_session
):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        dead, *alive = sessions()
        end_session(dead)

        await result(pool.check())

        await stat(pool, "pool_available", 3)
        assert dead not in sessions()
        assert set(alive) < set(sessions())


async def test_a_check_of_the_pool_spares_the_living(flavour, conninfo, sessions):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        before = sessions()

        await result(pool.check())

        assert before == sessions()
        await stat(pool, "pool_available", 3)


async def test_a_check_of_the_pool_leaves_no_transaction_open(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await result(pool.check())

        async with borrowed(pool, 1) as (conn,):
            assert TransactionStatus.IDLE == conn.pgconn.transaction_status
            assert not conn.autocommit


async def test_a_check_of_the_pool_fills_one_that_gave_up(flavour, conninfo, nowhere):
    failures = []
    opening = flavour.pool(
        nowhere, min_size=1, reconnect_timeout=0.1, reconnect_failed=failures.append
    )

    async with opening as pool:
        await eventually(lambda: failures)
        pool.conninfo = conninfo
        await result(pool.check())

        await stat(pool, "pool_available", 1)
