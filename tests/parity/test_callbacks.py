"""What the pool calls, with what, and when: callbacks, callables and classes."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from support.parity import (
    asyncio_only,
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


class Refused(Exception):
    """What a callback of a test says when it does not like a connection."""


def recorder(flavour, act=None):
    """Make a callback that notes the backends it was called with, then acts."""
    calls = []

    async def callback(conn):
        calls.append(pid(conn))
        if act is not None:
            await act(len(calls), conn)

    return calls, flavour.callback(callback)


async def begin_first_time(count, conn):
    """Leave the connection of the first call in a transaction."""
    if count == 1:
        await execute(conn, "select 1")


async def raise_first_time(count, conn):
    if count == 1:
        raise Refused


misbehaviours = pytest.mark.parametrize(
    "misbehave", [begin_first_time, raise_first_time], ids=lambda f: f.__name__
)


# configure


async def test_configure_sees_each_connection_once(pool_class, flavour, conninfo):
    calls, configure = recorder(flavour)
    pool = pool_class(conninfo, min_size=0, max_size=2, configure=configure, open=False)

    async with entered(pool), borrowed(pool, 2) as held:
        assert sorted(pid(conn) for conn in held) == sorted(calls)


async def test_configure_is_not_called_again_for_the_next_borrower(flavour, conninfo):
    calls, configure = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, configure=configure) as pool:
        first = await lend(pool)
        await lend(pool)

    assert [first] == calls


async def test_configure_is_called_before_a_connection_is_lent(flavour, conninfo):
    async def name(count, conn):
        await result(conn.set_autocommit(True))
        await execute(conn, "set application_name to configured")

    _, configure = recorder(flavour, name)

    opening = flavour.pool(conninfo, min_size=1, configure=configure)
    async with opening as pool, borrowed(pool, 1) as (conn,):
        assert "configured" == await fetch(conn, "show application_name")


async def test_what_configure_sets_holds_for_every_borrower(flavour, conninfo):
    async def set_attributes(count, conn):
        await result(conn.set_autocommit(True))
        conn.row_factory = dict_row

    _, configure = recorder(flavour, set_attributes)

    async with flavour.pool(conninfo, min_size=1, configure=configure) as pool:
        for _ in range(2):
            async with entered(pool.connection()) as conn:
                cursor = await execute(conn, "select 1 as one")

                assert conn.autocommit
                assert {"one": 1} == await result(cursor.fetchone())


@misbehaviours
async def test_a_connection_that_configure_spoils_is_replaced(
    flavour, conninfo, misbehave
):
    calls, configure = recorder(flavour, misbehave)

    async with flavour.pool(conninfo, min_size=1, configure=configure) as pool:
        await stat(pool, "pool_available", 1)

        assert calls[1] == await lend(pool)
        assert 2 == len(calls)


async def test_a_pool_whose_configure_never_works_lends_nothing(flavour, conninfo):
    async def refuse(count, conn):
        raise Refused

    _, configure = recorder(flavour, refuse)

    async with flavour.pool(conninfo, min_size=1, configure=configure) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.1))


# check


async def test_check_sees_what_is_lent_each_time(flavour, conninfo):
    calls, check = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, check=check) as pool:
        lent = [await lend(pool) for _ in range(3)]

    assert lent == calls


async def test_check_sees_what_is_handed_to_who_waits(flavour, conninfo):
    calls, check = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, check=check) as pool:
        conn = await result(pool.getconn())
        backend = pid(conn)
        waiting = await waiter(pool)
        await result(pool.putconn(conn))
        again = await waiting
        await result(pool.putconn(again))

    assert [backend, backend] == calls


async def test_a_connection_that_fails_its_check_because_it_died_is_replaced(
    flavour, conninfo, end_session
):
    async with flavour.pool(
        conninfo, min_size=1, check=flavour.Pool.check_connection
    ) as pool:
        dead = await lend(pool)
        end_session(dead)

        assert dead != await lend(pool)


async def test_the_error_of_a_check_stays_inside(flavour, conninfo):
    calls, check = recorder(flavour, raise_first_time)

    async with flavour.pool(conninfo, min_size=1, check=check) as pool:
        assert await lend(pool) == calls[-1]
        assert 2 == len(calls)


async def test_a_pool_whose_check_never_passes_times_out(flavour, conninfo):
    async def refuse(count, conn):
        raise Refused

    _, check = recorder(flavour, refuse)

    async with flavour.pool(conninfo, min_size=1, check=check) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.2))


async def test_the_check_of_the_library_passes_on_a_living_connection(
    flavour, conninfo
):
    async with entered(await result(flavour.Connection.connect(conninfo))) as conn:
        await result(flavour.Pool.check_connection(conn))

        assert not conn.autocommit
        assert TransactionStatus.IDLE == conn.pgconn.transaction_status


async def test_the_check_of_the_library_leaves_autocommit_as_it_was(flavour, conninfo):
    connecting = flavour.Connection.connect(conninfo, autocommit=True)
    async with entered(await result(connecting)) as conn:
        await result(flavour.Pool.check_connection(conn))

        assert conn.autocommit


@pytest.mark.parametrize("autocommit", [False, True])
async def test_the_check_of_the_library_fails_on_a_dead_connection(
    flavour, conninfo, end_session, autocommit
):
    connecting = flavour.Connection.connect(conninfo, autocommit=autocommit)
    async with entered(await result(connecting)) as conn:
        end_session(pid(conn))

        with pytest.raises(psycopg.OperationalError):
            await result(flavour.Pool.check_connection(conn))


# reset


async def test_reset_sees_what_comes_back(flavour, conninfo):
    calls, reset = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        lent = [await lend(pool) for _ in range(2)]
        await stat(pool, "pool_available", 1)

    assert lent == calls


async def test_reset_sees_what_nobody_used(flavour, conninfo):
    calls, reset = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        async with entered(pool.connection()) as conn:
            backend = pid(conn)
        async with borrowed(pool, 1):
            pass
        await stat(pool, "pool_available", 1)

    assert [backend, backend] == calls


async def test_reset_sees_no_transaction(flavour, conninfo):
    seen = []

    async def note(count, conn):
        seen.append(conn.pgconn.transaction_status)

    _, reset = recorder(flavour, note)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        await result(pool.putconn(conn))
        await stat(pool, "pool_available", 1)

    assert [TransactionStatus.IDLE] == seen


async def test_reset_is_done_before_the_next_borrower(flavour, conninfo):
    async def rename(count, conn):
        await execute(conn, "set application_name to was_reset")
        await result(conn.commit())

    _, reset = recorder(flavour, rename)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        await lend(pool)

        async with entered(pool.connection()) as conn:
            assert "was_reset" == await fetch(conn, "show application_name")


@misbehaviours
async def test_a_connection_that_reset_spoils_is_replaced(
    flavour, conninfo, sessions, misbehave
):
    _, reset = recorder(flavour, misbehave)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        spoilt = await lend(pool)

        assert spoilt != await lend(pool)
        await eventually(lambda: spoilt not in sessions())


async def test_reset_does_not_see_a_closed_connection(flavour, conninfo):
    calls, reset = recorder(flavour)

    async with flavour.pool(conninfo, min_size=1, reset=reset) as pool:
        async with entered(pool.connection()) as conn:
            await result(conn.close())
        last = await lend(pool)
        await stat(pool, "pool_available", 1)

    assert [last] == calls


# reconnect_failed


async def test_reconnect_failed_is_told_after_reconnect_timeout(flavour, nowhere):
    calls = []
    opening = flavour.pool(
        nowhere, min_size=1, reconnect_timeout=0.1, reconnect_failed=calls.append
    )

    async with opening as pool:
        await eventually(lambda: calls)

        assert pool is calls[0]


@asyncio_only
async def test_reconnect_failed_may_be_a_coroutine_function(flavour, nowhere):
    calls = []

    async def reconnect_failed(pool):
        calls.append(pool)

    opening = flavour.pool(
        nowhere, min_size=1, reconnect_timeout=0.1, reconnect_failed=reconnect_failed
    )

    async with opening as pool:
        await eventually(lambda: calls)

        assert pool is calls[0]


async def test_reconnect_failed_can_be_called_by_hand(flavour, conninfo):
    calls = []
    pool = flavour.Pool(conninfo, reconnect_failed=calls.append, open=False)

    await result(pool.reconnect_failed())

    assert [pool] == calls


async def test_without_reconnect_failed_nothing_is_told(flavour, conninfo):
    pool = flavour.Pool(conninfo, open=False)

    assert await result(pool.reconnect_failed()) is None


async def test_an_error_in_reconnect_failed_does_not_end_the_pool(
    flavour, conninfo, nowhere
):
    calls = []

    def reconnect_failed(pool):
        calls.append(pool)
        raise Refused

    opening = flavour.pool(
        nowhere, min_size=1, reconnect_timeout=0.1, reconnect_failed=reconnect_failed
    )

    async with opening as pool:
        await eventually(lambda: calls)
        pool.conninfo = conninfo

        assert await lend(pool)


async def test_a_pool_that_gave_up_connects_when_it_is_asked_again(
    flavour, conninfo, nowhere
):
    calls = []
    opening = flavour.pool(
        nowhere, min_size=1, reconnect_timeout=0.1, reconnect_failed=calls.append
    )

    async with opening as pool:
        await eventually(lambda: calls)
        pool.conninfo = conninfo

        assert await lend(pool)


# conninfo, kwargs, connection_class


async def test_a_callable_conninfo_is_asked_for_every_connection(
    pool_class, conninfo, sessions
):
    asked = []

    def where():
        asked.append(conninfo)
        return conninfo

    pool = pool_class(where, min_size=0, max_size=3, open=False)

    async with entered(pool), borrowed(pool, 3):
        assert 3 == len(sessions()) == len(asked)


async def test_callable_kwargs_are_asked_for_every_connection(pool_class, conninfo):
    counter = iter(range(10))

    def kwargs():
        return {"application_name": f"number {next(counter)}"}

    pool = pool_class(conninfo, kwargs=kwargs, min_size=0, max_size=3, open=False)

    async with entered(pool), borrowed(pool, 3) as held:
        names = [await fetch(conn, "show application_name") for conn in held]

    assert ["number 0", "number 1", "number 2"] == sorted(names)


@asyncio_only
async def test_a_coroutine_function_may_tell_the_conninfo(pool_class, conninfo):
    async def where():
        return conninfo

    async with entered(pool_class(where, min_size=0, max_size=1, open=False)) as pool:
        assert await lend(pool)


@asyncio_only
async def test_a_coroutine_function_may_tell_the_kwargs(pool_class, conninfo):
    async def kwargs():
        return {"autocommit": True}

    pool = pool_class(conninfo, kwargs=kwargs, min_size=0, max_size=1, open=False)

    async with entered(pool), entered(pool.connection()) as conn:
        assert conn.autocommit


async def test_a_conninfo_that_changes_holds_for_the_connection_after(
    flavour, conninfo, sessions
):
    conninfos = [conninfo, f"{conninfo} options='-c work_mem=1234kB'"]

    async with flavour.pool(lambda: conninfos.pop(0), min_size=1) as pool:
        await lend(pool)
        await result(pool.drain())
        async with entered(pool.connection()) as conn:
            assert "1234kB" == await fetch(conn, "show work_mem")


async def test_kwargs_go_to_the_driver(pool_class, conninfo):
    kwargs = {"autocommit": True, "row_factory": dict_row}
    pool = pool_class(conninfo, kwargs=kwargs, min_size=0, max_size=1, open=False)

    async with entered(pool), entered(pool.connection()) as conn:
        cursor = await execute(conn, "select 1 as one")

        assert conn.autocommit
        assert {"one": 1} == await result(cursor.fetchone())


async def test_kwargs_alone_may_say_where_to_connect(pool_class, conninfo):
    kwargs = conninfo_to_dict(conninfo)

    pool = pool_class(kwargs=kwargs, min_size=0, max_size=1, open=False)

    async with entered(pool):
        assert await lend(pool)


async def test_the_pool_leaves_the_kwargs_of_the_user_alone(pool_class, conninfo):
    kwargs = {"autocommit": True}

    pool = pool_class(conninfo, kwargs=kwargs, min_size=0, max_size=1, open=False)

    async with entered(pool):
        await lend(pool)

    assert {"autocommit": True} == kwargs


async def test_a_callable_that_raises_is_a_connection_that_fails(flavour):
    def where():
        raise Refused

    async with flavour.pool(where, min_size=1) as pool:
        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn(timeout=0.1))


async def test_what_is_lent_is_of_the_class_that_was_asked_for(
    flavour, pool_class, conninfo
):
    class Own(flavour.Connection):
        pass

    pool = pool_class(
        conninfo, connection_class=Own, min_size=0, max_size=1, open=False
    )

    async with entered(pool), entered(pool.connection()) as conn:
        assert Own is type(conn)


async def test_the_class_is_asked_to_connect(flavour, conninfo):
    seen = []

    def connect(cls, conninfo="", **kwargs):
        seen.append((conninfo, kwargs["autocommit"]))
        return super(Own, cls).connect(conninfo, **kwargs)

    Own = type("Own", (flavour.Connection,), {"connect": classmethod(connect)})
    kwargs = {"autocommit": True}

    opening = flavour.pool(conninfo, connection_class=Own, kwargs=kwargs, min_size=1)
    async with opening as pool:
        await lend(pool)

    assert [(conninfo, True)] == seen
