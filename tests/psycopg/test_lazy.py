"""Borrowed at the first statement: `connection(lazy=True)`."""

from __future__ import annotations

import gc
import re

import psycopg
import pytest

from edgepool import (
    ConnectFailed,
    ConnectionReturned,
    NestedBorrow,
    PoolClosed,
    PoolTimeout,
)
from support.conservation import conserved
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    result,
    spawn,
)
from support.pg import (
    application_name,
    at_rest,
    class_beside,
    error_of,
    in_use,
    is_async,
    one,
    set_autocommit,
)

# --- when it is borrowed --------------------------------------------------------------


async def test_without_a_statement_nothing_is_borrowed(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        async with entered(pool.connection(lazy=True)) as conn:
            assert type(conn) is colour.Connection
            assert not conn.closed
            assert not conn.autocommit
            assert "nothing borrowed" in repr(conn)
            assert psycopg.pq.TransactionStatus.IDLE == conn.info.transaction_status

            await result(conn.commit())
            await result(conn.rollback())
            conn.cursor()

        s = pool.statistics()

        assert (0, 0, 0) == (s.requests, s.connects, sessions.count)


async def test_an_exception_without_a_statement_goes_through(colour, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with entered(pool.connection(lazy=True)):
                raise ZeroDivisionError

        assert 0 == pool.statistics().requests


async def by_execute(conn):
    await execute(conn, "select 1")


async def by_a_cursor(conn):
    async with entered(conn.cursor()) as cursor:
        await result(cursor.execute("select 1"))

        assert [(1,)] == await result(cursor.fetchall())


async def by_a_cursor_of_ones_own(conn):
    cursor = class_beside(conn, "ClientCursor")(conn)
    await result(cursor.execute("select %s", ["it's"]))

    assert [("it's",)] == await result(cursor.fetchall())


async def by_executemany(conn):
    await result(conn.cursor().executemany("select %s", [(1,), (2,)]))


async def by_a_server_cursor(conn):
    async with entered(conn.cursor("named")) as cursor:
        await result(cursor.execute("select generate_series(1, 3)"))

        assert [(1,), (2,), (3,)] == await result(cursor.fetchall())


async def by_a_transaction(conn):
    async with entered(conn.transaction()), entered(conn.transaction()):
        assert 1 == await fetch(conn, "select 1")


async def by_an_empty_transaction(conn):
    async with entered(conn.transaction()):
        pass


async def by_a_pipeline(conn):
    async with entered(conn.pipeline()):
        cursor = await execute(conn, "select 1")
        await execute(conn, "select 2")

        assert (1,) == await result(cursor.fetchone())


async def by_copy(conn):
    async with entered(conn.cursor().copy("copy (select 1) to stdout")) as copy:
        assert b"1\n" == await result(copy.read())

        while await result(copy.read()):
            pass


async def by_stream(conn):
    rows = conn.cursor().stream("select generate_series(1, 3)")
    got = [row async for row in rows] if is_async(conn) else list(rows)

    assert [(1,), (2,), (3,)] == got


STATEMENTS = (
    by_execute,
    by_a_cursor,
    by_a_cursor_of_ones_own,
    by_executemany,
    by_a_server_cursor,
    by_a_transaction,
    by_an_empty_transaction,
    by_a_pipeline,
    by_copy,
    by_stream,
)
each_statement = pytest.mark.parametrize(
    "statement", STATEMENTS, ids=lambda s: s.__name__
)


@each_statement
async def test_a_connection_is_borrowed_at_the_first_statement(
    colour, conninfo, statement
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection(lazy=True)) as conn:
            assert 0 == in_use(pool)

            await statement(conn)

            assert (1, 1) == (in_use(pool), pool.statistics().requests)
            assert type(conn) is colour.Connection

            await statement(conn)

        assert (0, 1) == (in_use(pool), pool.statistics().requests)


async def test_what_was_done_is_committed_or_rolled_back(colour, conninfo, admin):
    admin.execute("create table if not exists lazily (n int)")
    admin.execute("truncate lazily")
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection(lazy=True)) as conn:
            await execute(conn, "insert into lazily values (1)")
        with pytest.raises(ZeroDivisionError):
            async with entered(pool.connection(lazy=True)) as conn:
                await execute(conn, "insert into lazily values (2)")
                raise ZeroDivisionError

    assert [(1,)] == admin.execute("select n from lazily").fetchall()


async def test_what_needs_the_server_before_is_told_so(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        for ask in (
            lambda: conn.info.host,
            lambda: conn.info.backend_pid,
            lambda: conn.pgconn.socket,
            conn.fileno,
            conn.cancel,
        ):
            with pytest.raises(psycopg.InterfaceError, match="nothing is borrowed"):
                ask()

        with pytest.raises(ValueError, match="nothing is borrowed"):
            await result(pool.putconn(conn))

        assert 0 == pool.statistics().requests

        await execute(conn, "select 1")

        assert conn.info.backend_pid > 0


async def test_a_closed_one_is_closed_for_good(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await result(conn.close())

            assert conn.closed

            for use in (by_execute, by_a_transaction, by_a_pipeline):
                error = await error_of(use(conn))

                assert isinstance(error, psycopg.OperationalError)
                assert "closed" in str(error)

            async with entered(lease.released()):
                pass

            assert conn.closed
            assert "closed" in str(await error_of(execute(conn, "select 1")))

        assert 0 == pool.statistics().requests


@pytest.mark.parametrize("returns", [False, True])
async def test_a_connection_may_be_closed_in_the_block(
    colour, server, conninfo, returns
):
    async with colour.pool(conninfo, min_size=1, close_returns=returns) as pool:
        lease = pool.connection(lazy=True)
        if returns:
            with pytest.raises(ValueError, match="returned already"):
                async with entered(lease) as conn:
                    await one(conn)
                    await result(conn.close())

                    assert 0 == in_use(pool)
        else:
            async with entered(lease) as conn:
                await one(conn)
                await result(conn.close())
                async with entered(lease.released()):
                    pass

                assert "closed" in str(await error_of(execute(conn, "select 1")))
        await at_rest(pool, 1)
        await conserved(pool, server, application_name(conninfo))


async def test_the_connections_own_block_leaves_it_open(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        async with entered(conn):
            pass
        async with entered(conn):
            await execute(conn, "select 1")

        assert 1 == await fetch(conn, "select 1")


# --- what may go wrong with a late borrow ---------------------------------------------


@each_statement
async def test_a_statement_raises_what_the_borrow_does(colour, conninfo, statement):
    async with colour.pool(conninfo, min_size=1) as pool:
        held = await result(pool.getconn())
        async with entered(pool.connection(timeout=0.02, lazy=True)) as conn:
            error = await error_of(statement(conn))

            assert isinstance(error, PoolTimeout)
            assert 1 == pool.statistics().requests_errors

            await result(pool.putconn(held))
            await statement(conn)  # it goes on

        assert 0 == in_use(pool)


async def test_the_pools_timeout_holds_for_a_late_borrow(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, timeout=0.02) as pool:
        held = await result(pool.getconn(timeout=60.0))
        async with entered(pool.connection(lazy=True)) as conn:
            assert isinstance(await error_of(execute(conn, "select 1")), PoolTimeout)
        await result(pool.putconn(held))


async def test_a_connection_for_which_nothing_came_may_be_used_again(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        held = await result(pool.getconn())
        async with entered(pool.connection(timeout=0.0, lazy=True)) as conn:
            with pytest.raises(PoolTimeout):
                # What the connection itself asks for, with no cursor in between.
                await result(conn.tpc_begin(conn.xid(1, "a", "b")))
            await result(pool.putconn(held))

            assert not conn.closed
            assert 1 == await one(conn)


async def test_a_late_borrow_that_would_wait_for_itself_is_refused(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.connection(lazy=True)) as outer,
        entered(pool.connection(lazy=True)) as inner,
    ):
        await execute(outer, "select 1")
        for statement in (by_execute, by_a_cursor):
            error = await error_of(statement(inner))

            assert isinstance(error, NestedBorrow)
            # Where the block begins, and where the statement is.
            assert re.search(r"borrowed at .*(parity|test_lazy)\.py:", str(error))
            assert re.search(r"another at .*(parity|test_lazy)\.py:", str(error))


async def test_a_pool_that_was_closed_meanwhile_says_so(colour, conninfo):
    pool = colour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open())
    async with entered(pool.connection(lazy=True)) as conn:
        await result(pool.close())

        assert isinstance(await error_of(execute(conn, "select 1")), PoolClosed)


async def test_a_lazy_pool_is_opened_by_the_first_statement(colour, conninfo):
    pool = colour.Pool(conninfo, min_size=1)
    async with entered(pool.connection(lazy=True)) as conn:
        assert pool.closed

        assert 1 == await fetch(conn, "select 1")

    await result(pool.close())


async def test_a_connect_that_fails_is_the_statements_error(colour, guarded):
    conninfo = psycopg.conninfo.make_conninfo(
        guarded.conninfo, user="nobody", dbname="nowhere"
    )
    async with (
        colour.pool(conninfo, min_size=0, max_size=1) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        assert isinstance(await error_of(execute(conn, "select 1")), ConnectFailed)


async def test_a_broken_session_is_heeded_and_replaced(
    colour, server, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection(lazy=True)) as conn:
                await one(conn)
                sessions.terminate()
                await execute(conn, "select 1")

        assert 1 == pool.statistics().bad_returns

        await conserved(pool, server, application_name(conninfo))


async def test_two_that_race_for_the_first_statement_borrow_once(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=0, max_size=2) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        await set_autocommit(conn, True)
        racers = [spawn(one, conn) for _ in range(5)]
        for racer in racers:
            assert 1 == await racer

        assert (1, 1) == (pool.statistics().requests, in_use(pool))


async def test_a_borrow_that_ends_after_the_block_is_returned(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        held = await result(pool.getconn())
        async with entered(pool.connection(lazy=True)) as conn:
            late = spawn(one, conn)
            await eventually(lambda: pool.statistics().waiting)
        await result(pool.putconn(held))

        assert isinstance(await error_of(late), ConnectionReturned)

        await conserved(pool, server, application_name(conninfo))


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
@pytest.mark.parametrize("track", [False, True])
async def test_a_lazy_one_that_is_dropped_is_found(colour, conninfo, caplog, track):
    async def lose(pool):
        lease = pool.connection(lazy=True)
        conn = await result(
            lease.__aenter__() if colour.asynchronous else lease.__enter__()
        )
        await one(conn)

    async with colour.pool(
        conninfo, min_size=1, max_size=1, track_borrows=track
    ) as pool:
        await lose(pool)
        gc.collect()
        await eventually(lambda: "was dropped, not returned" in caplog.text)

        assert re.search(r"borrowed at .*(parity|test_lazy)\.py", caplog.text)

        async with entered(pool.connection()) as conn:
            assert 1 == await fetch(conn, "select 1")
