"""Where edgepool differs from psycopg_pool, on purpose.

Each test states both: what edgepool promises is its name and the first branch, what
psycopg_pool does instead is the second. The list with its reasons, for users, is
`docs/how-to/from-psycopg-pool.md`.
"""

from __future__ import annotations

import logging

import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import make_conninfo

import edgepool
from support.parity import (
    asyncio_only,
    borrowed,
    edgepool_only,
    entered,
    eventually,
    execute,
    fetch,
    lend,
    overlapping,
    pid,
    result,
    spawn,
    stat,
    waiter,
)

LONG = 60.0
"""A timeout that no test reaches, unless what it states is wrong."""


# open=None


def warns(flavour):
    """Expect what psycopg_pool says of a pool that nobody opened explicitly."""
    return pytest.warns(
        RuntimeWarning if flavour.asynchronous else DeprecationWarning, match="open"
    )


async def test_a_pool_that_nobody_opened_opens_at_its_first_use(
    flavour, conninfo, sessions
):
    pool = flavour.Pool(conninfo, min_size=2)

    if flavour.is_edgepool:
        assert [] == sessions()
        assert await lend(pool)
    else:
        await stat(pool, "pool_available", 2)
        with warns(flavour):
            await lend(pool)

    assert not pool.closed
    await stat(pool, "pool_available", 2)
    await result(pool.close())


async def test_a_pool_that_nobody_opened_opens_when_it_is_waited_for(
    flavour, conninfo, sessions
):
    pool = flavour.Pool(conninfo, min_size=2)

    if flavour.is_edgepool:
        assert [] == sessions()
        await result(pool.wait())
    else:
        with warns(flavour):
            await result(pool.wait())

    assert 2 == len(sessions())
    await result(pool.close())


async def test_a_pool_that_nobody_opened_can_be_opened(flavour, conninfo, sessions):
    pool = flavour.Pool(conninfo, min_size=2)

    if flavour.is_edgepool:
        assert [] == sessions()
        await result(pool.open(wait=True))
    else:
        with warns(flavour):
            await result(pool.open(wait=True))

    assert 2 == len(sessions())
    await result(pool.close())


async def test_a_null_pool_that_nobody_opened_opens_at_its_first_use(flavour, conninfo):
    pool = flavour.NullPool(conninfo)

    if flavour.is_edgepool:
        assert await lend(pool)
    else:
        with warns(flavour):
            await lend(pool)

    await result(pool.close())


@asyncio_only
def test_a_pool_that_nobody_opened_can_be_made_without_a_loop(flavour):
    if flavour.is_edgepool:
        assert flavour.Pool()
    else:
        with pytest.raises(RuntimeError, match="loop"):
            flavour.Pool()


# what is lent


async def test_a_connection_that_became_too_old_while_idle_is_not_lent(
    flavour, conninfo, admin
):
    async with flavour.pool(conninfo, min_size=1, max_lifetime=0.3) as pool:
        old = await lend(pool)
        admin.execute("select pg_sleep(0.35)")

        served = await lend(pool)
        if flavour.is_edgepool:
            assert old != served
        else:
            assert old == served


async def test_a_connection_that_died_while_idle_is_not_lent(
    flavour, conninfo, end_session
):
    async with flavour.pool(conninfo, min_size=1) as pool:
        dead = await lend(pool)
        end_session(dead)

        if flavour.is_edgepool:
            assert dead != await lend(pool)
        else:
            with pytest.raises(psycopg.OperationalError):
                await lend(pool)


async def test_the_connection_used_last_is_lent_next(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=2) as pool:
        await result(pool.wait())
        first, last = [await result(pool.getconn()) for _ in range(2)]
        await result(pool.putconn(first))
        await result(pool.putconn(last))

        async with borrowed(pool, 1) as (conn,):
            assert pid(conn) == pid(last if flavour.is_edgepool else first)


@edgepool_only
async def test_a_connection_that_configure_refuses_is_closed_at_once(
    pool_class, flavour, conninfo
):
    """What psycopg_pool leaves to the garbage collector."""
    seen = []

    async def configure(conn):
        seen.append(conn)
        if len(seen) == 1:
            raise RuntimeError("not this one")

    pool = pool_class(
        conninfo,
        min_size=0,
        max_size=1,
        configure=flavour.callback(configure),
        open=False,
    )
    async with entered(pool):
        assert await lend(pool)
        assert seen[0].closed


# close


async def test_closing_waits_for_who_has_a_connection(flavour, conninfo):
    pool = flavour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open())
    conn = await result(pool.getconn())

    closing = spawn(pool.close, timeout=LONG)
    await eventually(lambda: pool.closed)
    if flavour.is_edgepool:
        assert 1 == await fetch(conn, "select 1")
        assert not closing.done()
        await result(pool.putconn(conn))
        await closing
    else:
        await closing
        assert 1 == await fetch(conn, "select 1")
        await result(pool.putconn(conn))

    await eventually(lambda: conn.closed)


async def test_closing_ends_what_is_still_lent_after_the_timeout(
    flavour, conninfo, sessions
):
    pool = flavour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open())
    conn = await result(pool.getconn())

    await result(pool.close(timeout=0.1))

    if flavour.is_edgepool:
        await eventually(lambda: [] == sessions())
        with pytest.raises(psycopg.OperationalError):
            await execute(conn, "select 1")
    else:
        assert 1 == await fetch(conn, "select 1")
    await result(pool.putconn(conn))


async def test_a_closed_pool_can_be_opened_again(pool_class, flavour, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    await result(pool.open())
    await result(pool.close())

    if flavour.is_edgepool:
        await result(pool.open())
        assert await lend(pool)
        await result(pool.close())
    else:
        with pytest.raises(psycopg_pool.PoolClosed):
            await result(pool.open())


async def test_a_block_can_be_entered_again(pool_class, flavour, conninfo):
    pool = pool_class(conninfo, min_size=0, max_size=1, open=False)
    async with entered(pool):
        await lend(pool)

    if flavour.is_edgepool:
        async with entered(pool):
            assert await lend(pool)
    else:
        with pytest.raises(psycopg_pool.PoolClosed):
            async with entered(pool):
                pytest.fail("a closed pool was opened")


# timeouts and errors


async def test_who_cannot_wait_takes_what_is_idle(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        await result(pool.wait())

        if flavour.is_edgepool:
            conn = await result(pool.getconn(timeout=0))
            await result(pool.putconn(conn))
        else:
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"dbname": "nosuch"}, 'database "nosuch" does not exist'),
        ({"user": "nosuch"}, 'role "nosuch" does not exist'),
        ({"user": "locked", "password": "hush"}, "password authentication failed"),
    ],
    ids=["dbname", "user", "password"],
)
async def test_what_waiting_cannot_mend_fails_at_once_and_says_why(
    flavour, guarded, wrong, reason
):
    async with flavour.pool(make_conninfo(guarded, **wrong), min_size=1) as pool:
        if flavour.is_edgepool:
            with pytest.raises(edgepool.ConnectFailed) as caught:
                await result(pool.getconn(timeout=LONG))

            assert isinstance(caught.value.__cause__, psycopg.OperationalError)
            assert reason in str(caught.value.__cause__)
            assert caught.value.waited < LONG / 2
        else:
            with pytest.raises(psycopg_pool.PoolTimeout) as caught:
                await result(pool.getconn(timeout=0.2))

            assert caught.value.__cause__ is None


def test_a_connect_that_failed_is_a_timeout():
    assert issubclass(edgepool.ConnectFailed, edgepool.PoolTimeout)
    assert issubclass(edgepool.PoolTimeout, psycopg_pool.PoolTimeout)


async def test_a_timeout_carries_the_numbers(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=2) as pool, borrowed(pool, 2):
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await result(pool.getconn(timeout=0.05))

    error = caught.value
    if flavour.is_edgepool:
        numbers = (error.size, error.in_use, error.idle, error.opening, error.waiting)
        assert (2, 2, 0, 0, 0) == numbers
        assert error.waited >= 0.05
    else:
        for name in ("size", "in_use", "idle", "opening", "waiting", "waited"):
            assert not hasattr(error, name)


async def test_a_timeout_counts_the_others_who_wait(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        others = [await waiter(pool) for _ in range(2)]
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await result(pool.getconn(timeout=0.05))
        for other in others:
            await result(pool.putconn(conn))
            conn = await other
        await result(pool.putconn(conn))

    if flavour.is_edgepool:
        assert 2 == caught.value.waiting
    else:
        assert not hasattr(caught.value, "waiting")


async def test_a_timeout_tells_why_connecting_fails(flavour, nowhere):
    async with flavour.pool(nowhere, min_size=1) as pool:
        await eventually(lambda: pool.get_stats().get("connections_errors"))
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await result(pool.getconn(timeout=0.1))

    if flavour.is_edgepool:
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert "refused" in str(caught.value.__cause__)
    else:
        assert caught.value.__cause__ is None


async def test_an_error_keeps_secrets(flavour, nowhere, caplog):
    caplog.set_level(logging.DEBUG)
    async with flavour.pool(nowhere, min_size=1) as pool:
        await eventually(lambda: pool.get_stats().get("connections_errors"))
        with pytest.raises(psycopg_pool.PoolTimeout) as caught:
            await result(pool.getconn(timeout=0.1))

    told = f"{caught.value} {caught.value.__cause__} {caplog.text}"
    assert "hush" not in told


async def test_what_happens_is_logged_under_the_name_of_the_library(
    flavour, nowhere, caplog
):
    async with flavour.pool(nowhere, min_size=1) as pool:
        await eventually(lambda: pool.get_stats().get("connections_errors"))
        await eventually(lambda: caplog.records)

    names = {record.name.split(".")[0] for record in caplog.records}
    if flavour.is_edgepool:
        assert {"edgepool"} == names
    else:
        assert {"psycopg"} == names


# queue and statistics


async def test_max_waiting_counts_the_living_only(flavour, conninfo):
    opening = flavour.pool(conninfo, min_size=1, max_waiting=1)
    async with opening as pool, borrowed(pool, 1):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.05))

        if flavour.is_edgepool:
            expected = psycopg_pool.PoolTimeout
        else:
            expected = psycopg_pool.TooManyRequests
        with pytest.raises(expected):
            await result(pool.getconn(timeout=0.05))


async def test_who_gave_up_is_not_counted_as_waiting(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool, borrowed(pool, 1):
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.05))

        waiting = pool.get_stats()["requests_waiting"]
        if flavour.is_edgepool:
            assert 0 == waiting
        else:
            assert 1 == waiting


async def test_use_without_a_block_is_counted_too(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        async with borrowed(pool, 1) as (conn,):
            await execute(conn, "select pg_sleep(0.1)")

        usage = pool.get_stats().get("usage_ms", 0)
        if flavour.is_edgepool:
            assert usage >= 90
        else:
            assert 0 == usage


# close_returns


async def test_closing_what_broke_gives_its_place_back(flavour, conninfo, end_session):
    async with flavour.pool(conninfo, min_size=1, close_returns=True) as pool:
        conn = await result(pool.getconn())
        end_session(pid(conn))
        with pytest.raises(psycopg.OperationalError):
            await execute(conn, "select 1")
        await result(conn.close())

        if flavour.is_edgepool:
            assert await lend(pool)
        else:
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.05))
            await result(pool.putconn(conn))


# null pools


async def test_a_null_pool_honours_close_returns(flavour, conninfo):
    async with flavour.null_pool(conninfo, max_size=1, close_returns=True) as pool:
        conn = await result(pool.getconn())
        await result(conn.close())

        if flavour.is_edgepool:
            assert pool.close_returns
            assert await lend(pool)
        else:
            assert not pool.close_returns
            with pytest.raises(psycopg_pool.PoolTimeout):
                await result(pool.getconn(timeout=0.05))
            await result(pool.putconn(conn))


async def test_a_null_pool_honours_reconnect_failed(flavour, nowhere):
    calls = []
    pool = flavour.NullPool(
        nowhere, reconnect_timeout=0.1, reconnect_failed=calls.append, open=False
    )
    await result(pool.open())

    if flavour.is_edgepool:
        waiting = spawn(pool.getconn, timeout=LONG)
        await eventually(lambda: calls)
        assert [pool] == calls[:1]
        await result(pool.close())
        with pytest.raises(psycopg_pool.PoolClosed):
            await waiting
    else:
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.wait(timeout=0.5))
        assert [] == calls


async def test_a_null_pool_waits_for_a_server_that_does_not_answer(
    flavour, conninfo, nowhere
):
    async with flavour.null_pool(nowhere, max_size=1) as pool:
        if flavour.is_edgepool:
            waiting = spawn(pool.getconn, timeout=LONG)
            await eventually(lambda: pool.get_stats().get("connections_errors"))
            pool.conninfo = conninfo
            await result(pool.putconn(await waiting))
        else:
            with pytest.raises(psycopg.OperationalError) as caught:
                await result(pool.getconn(timeout=LONG))
            assert not isinstance(caught.value, psycopg_pool.PoolTimeout)


# check


async def test_a_connection_that_fails_its_check_is_replaced_at_once(
    flavour, conninfo, sessions
):
    checked = []

    async def check(conn):
        checked.append(pid(conn))
        if len(checked) == 1:
            raise psycopg.OperationalError("not this one")

    async with flavour.pool(
        conninfo, min_size=1, check=flavour.callback(check)
    ) as pool:
        served = await lend(pool)

        if flavour.is_edgepool:
            assert served != checked[0]
            await eventually(lambda: checked[0] not in sessions())
        else:
            assert served == checked[0]


async def test_a_check_is_part_of_the_time_that_a_borrow_may_take(flavour, conninfo):
    async def check(conn):
        await execute(conn, "select pg_sleep(1.5)")
        await result(conn.rollback())

    async with flavour.pool(
        conninfo, min_size=1, check=flavour.callback(check)
    ) as pool:
        if flavour.is_edgepool:
            with pytest.raises(edgepool.PoolTimeout):
                await result(pool.getconn(timeout=0.3))
        else:
            conn = await result(pool.getconn(timeout=0.3))
            await result(pool.putconn(conn))


# workers


async def test_the_default_number_of_workers_bounds_nothing(flavour, conninfo):
    peak, Slow = overlapping(flavour)

    async with flavour.pool(conninfo, min_size=6, connection_class=Slow) as pool:
        await result(pool.wait())

    if flavour.is_edgepool:
        assert 6 == peak()
    else:
        assert 3 == peak()


@edgepool_only
async def test_max_connecting_outranks_the_number_of_workers(flavour, conninfo):
    peak, Slow = overlapping(flavour)

    async with flavour.pool(
        conninfo, min_size=6, num_workers=1, max_connecting=4, connection_class=Slow
    ) as pool:
        await result(pool.wait())

    assert 4 == peak()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("run_task", [None]), ("schedule_task", [None, 1.0]), ("worker", [None])],
)
@edgepool_only
async def test_there_are_no_workers_to_give_tasks_to(
    flavour, conninfo, method, arguments
):
    async with flavour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(NotImplementedError):
            await result(getattr(pool, method)(*arguments))
