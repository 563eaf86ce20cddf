"""What `get_stats` and `pop_stats` count. A counter that is 0 is absent."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest

from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    lend,
    overlapping,
    pid,
    result,
    stat,
    waiter,
)

GAUGES = {"pool_min", "pool_max", "pool_size", "pool_available", "requests_waiting"}

COUNTERS = {
    "requests_num",
    "requests_queued",
    "requests_wait_ms",
    "requests_errors",
    "usage_ms",
    "returns_bad",
    "connections_num",
    "connections_ms",
    "connections_errors",
    "connections_lost",
}


def count(pool, name):
    return pool.get_stats().get(name, 0)


def test_a_pool_that_did_nothing_has_gauges_only(pool_class):
    pool = pool_class(open=False)

    assert GAUGES == set(pool.get_stats())


async def test_no_statistic_has_a_name_of_its_own(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        await lend(pool)

        assert GAUGES <= set(pool.get_stats()) <= GAUGES | COUNTERS


async def test_statistics_are_whole_numbers(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        await lend(pool)

        assert {int} == {type(value) for value in pool.get_stats().values()}


async def test_sizes_are_gauges(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1, max_size=4) as pool:
        await result(pool.resize(2, 5))
        stats = pool.get_stats()

        assert (2, 5) == (stats["pool_min"], stats["pool_max"])


async def test_what_is_lent_is_part_of_the_size_but_not_available(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())

        async with borrowed(pool, 2):
            stats = pool.get_stats()

            assert (3, 1) == (stats["pool_size"], stats["pool_available"])


async def test_what_comes_back_is_available(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=2) as pool:
        await result(pool.wait())
        async with borrowed(pool, 2):
            during = pool.get_stats()["pool_available"]

        assert (0, 2) == (during, pool.get_stats()["pool_available"])


async def test_who_waits_is_a_gauge(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        conn = await result(pool.getconn())
        waiting = await waiter(pool)
        during = pool.get_stats()["requests_waiting"]
        await result(pool.putconn(conn))
        await result(pool.putconn(await waiting))

        assert (1, 0) == (during, pool.get_stats()["requests_waiting"])


async def test_requests_are_counted(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        await lend(pool)
        await result(pool.putconn(await result(pool.getconn())))

        assert 2 == count(pool, "requests_num")


async def test_who_is_served_at_once_was_not_queued(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await lend(pool)
        stats = pool.get_stats()

        assert "requests_queued" not in stats
        assert "requests_wait_ms" not in stats


async def test_who_waits_was_queued(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        async with borrowed(pool, 1):
            before = count(pool, "requests_queued")
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.05))

        assert 1 == count(pool, "requests_queued") - before


async def test_the_time_in_the_queue_is_counted(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        async with borrowed(pool, 1):
            before = count(pool, "requests_wait_ms")
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.1))

        assert count(pool, "requests_wait_ms") - before >= 90


async def test_a_timeout_is_an_error_of_a_request(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        async with borrowed(pool, 1):
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.02))

        assert 1 == count(pool, "requests_errors")


async def test_a_full_queue_is_an_error_of_a_request(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, max_waiting=1, open=False)
    async with entered(pool):
        conn = await result(pool.getconn())
        waiting = await waiter(pool)
        with pytest.raises(psycopg_pool.TooManyRequests):
            await result(pool.getconn())
        await result(pool.putconn(conn))
        await result(pool.putconn(await waiting))

        assert 1 == count(pool, "requests_errors")


async def test_the_time_in_a_block_is_counted(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        async with entered(pool.connection()) as conn:
            await execute(conn, "select pg_sleep(0.1)")

        assert count(pool, "usage_ms") >= 90


async def test_what_comes_back_broken_is_counted(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        async with entered(pool.connection()) as conn:
            await result(conn.close())

        await stat(pool, "returns_bad", 1)


async def test_what_comes_back_busy_is_counted_as_broken(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        async with borrowed(pool, 1) as (conn,):
            conn.pgconn.send_query(b"select 1")

        await stat(pool, "returns_bad", 1)


async def test_what_reset_refuses_is_counted_as_broken(flavour, conninfo):
    async def reset(conn):
        raise RuntimeError("not this one")

    async with flavour.pool(
        conninfo, min_size=1, reset=flavour.callback(reset)
    ) as pool:
        await lend(pool)

        await stat(pool, "returns_bad", 1)


async def test_what_comes_back_whole_is_not_counted_as_broken(pool_class, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        await lend(pool)

        assert "returns_bad" not in pool.get_stats()


async def test_attempts_to_connect_are_counted(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        stats = pool.get_stats()

        assert 3 == stats["connections_num"]
        assert "connections_errors" not in stats


async def test_the_time_to_connect_is_counted(flavour, conninfo):
    _, Slow = overlapping(flavour)

    async with flavour.pool(conninfo, min_size=2, connection_class=Slow) as pool:
        await result(pool.wait())

        assert count(pool, "connections_ms") >= 2 * 45


async def test_failures_to_connect_are_counted(flavour, nowhere):
    async with flavour.pool(nowhere, min_size=1) as pool:
        await eventually(lambda: count(pool, "connections_errors"))
        stats = pool.get_stats()

        assert 1 <= stats["connections_errors"] <= stats["connections_num"]


async def test_the_dead_that_a_check_of_the_pool_finds_are_counted(
    flavour, conninfo, sessions, end_session
):
    async with flavour.pool(conninfo, min_size=3) as pool:
        await result(pool.wait())
        for dead in sessions()[:2]:
            end_session(dead)
        await result(pool.check())

        await stat(pool, "connections_lost", 2)


async def test_the_dead_that_a_check_of_a_borrow_finds_are_counted(
    flavour, conninfo, end_session
):
    check = flavour.Pool.check_connection
    async with flavour.pool(conninfo, min_size=1, check=check) as pool:
        end_session(await lend(pool))
        await lend(pool)

        await stat(pool, "connections_lost", 1)


async def test_what_broke_while_lent_is_not_counted_as_lost(
    flavour, conninfo, end_session
):
    async with flavour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection()) as conn:
                end_session(pid(conn))
                await execute(conn, "select 1")
        await lend(pool)
        stats = pool.get_stats()

        assert 1 == stats["returns_bad"]
        assert "connections_lost" not in stats


async def test_looking_changes_nothing(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await lend(pool)

        assert pool.get_stats() == pool.get_stats()


async def test_popping_tells_the_same_as_looking(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await lend(pool)

        assert pool.get_stats() == pool.pop_stats()


async def test_popping_forgets_the_counters_but_not_the_gauges(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())
        await lend(pool)
        before = pool.pop_stats()

        expected = {name: before[name] for name in GAUGES}
        assert expected == pool.get_stats()


async def test_counting_goes_on_after_popping(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await lend(pool)
        pool.pop_stats()
        await lend(pool)
        await lend(pool)

        assert 2 == count(pool, "requests_num")
