"""Borrowed at the first statement, given back between two: `connection(lazy=True)`."""

from __future__ import annotations

import contextlib
import gc
import re

import psycopg
import pytest
from psycopg.rows import dict_row, scalar_row, tuple_row
from psycopg.types.string import TextLoader

from edgepool import (
    ConnectFailed,
    ConnectionReturned,
    NestedBorrow,
    PoolClosed,
    PoolTimeout,
)
from support.conservation import conserved
from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    pid,
    result,
    spawn,
)
from support.pg import application_name, at_rest, error_of, set_autocommit


def in_use(pool):
    return pool.statistics().in_use


async def one(conn):
    """Run a statement, and leave nothing open."""
    value = await fetch(conn, "select 1")
    await result(conn.commit())
    return value


def is_async(conn):
    return isinstance(conn, psycopg.AsyncConnection)


def named(conn, kind):
    return getattr(psycopg, f"Async{kind}" if is_async(conn) else kind)


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
    cursor = named(conn, "ClientCursor")(conn)
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


# --- given back in between ------------------------------------------------------------


async def test_what_is_released_is_for_others(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, timeout=1.0) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            same = conn
            async with entered(lease.released()):
                assert 0 == in_use(pool)

                async with entered(pool.connection()) as other:
                    assert other is not conn
                    assert 1 == await fetch(other, "select 1")

            assert 0 == in_use(pool)

            assert 1 == await fetch(conn, "select 1")
            assert conn is same
            assert 1 == in_use(pool)

        assert 0 == in_use(pool)
        assert 3 == pool.statistics().requests


async def test_after_it_another_connection_serves(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            cursor = conn.cursor()
            prepared = "select 1 where pg_backend_pid() = %s or true"
            await result(cursor.execute(prepared, [0], prepare=True))
            kept = await execute(conn, "select 7")
            first = pid(conn)
            await result(conn.commit())
            async with entered(lease.released()):
                taken = await result(pool.getconn())

                assert pid(taken) == first

            assert 1 == await one(conn)
            assert pid(conn) != first

            # Cursors from before go on, with what they have and on what there is.
            assert (7,) == await result(kept.fetchone())

            await result(cursor.execute("select pg_backend_pid()"))

            assert (pid(conn),) == await result(cursor.fetchone())

            await result(cursor.execute(prepared, [0], prepare=True))
            await result(cursor.executemany("select %s", [(1,), (2,)]))

            # No word of this has reached the other one.
            assert psycopg.pq.TransactionStatus.IDLE == taken.info.transaction_status

            await result(pool.putconn(taken))
        await conserved(pool, server, application_name(conninfo))


USES = {
    "execute": lambda conn, cursor: conn.execute("select 1"),
    "cursor": lambda conn, cursor: conn.cursor(),
    "commit": lambda conn, cursor: conn.commit(),
    "set_autocommit": lambda conn, cursor: conn.set_autocommit(True),
    "a cursor's execute": lambda conn, cursor: cursor.execute("select 1"),
    "transaction": lambda conn, cursor: by_a_transaction(conn),
    "pipeline": lambda conn, cursor: by_a_pipeline(conn),
    "fileno": lambda conn, cursor: conn.fileno(),
}


@pytest.mark.parametrize("used", [False, True], ids=["nothing borrowed", "borrowed"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_is_released_refuses_and_sends_nothing(colour, proxy, use, used):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await set_autocommit(conn, True)
            cursor = conn.cursor()
            if used:
                await one(conn)
            async with entered(lease.released()):
                with (
                    proxy.recording() as said,
                    pytest.raises(ConnectionReturned, match=r"parity\.py"),
                ):
                    await result(use(conn, cursor))

                assert [] == said

            assert 1 == await one(conn)


async def open_a_transaction(conn):
    await execute(conn, "select 1")


async def fail_in_a_transaction(conn):
    assert isinstance(await error_of(execute(conn, "select 1/0")), psycopg.Error)


async def hold_a_cursor(conn):
    cursor = conn.cursor("held", withhold=True)
    await result(cursor.execute("select 1"))
    await result(conn.commit())
    conn.borrowers_own = cursor


async def open_two_phases(conn):
    await result(conn.tpc_begin("mine"))


OPEN = {
    open_a_transaction: r"INTRANS.*commit",
    fail_in_a_transaction: r"INERROR",
    hold_a_cursor: r"the cursor 'held'",
    open_two_phases: r"two-phase",
}


@pytest.mark.parametrize("leave", OPEN, ids=lambda f: f.__name__)
async def test_what_would_be_lost_is_named_and_kept(colour, conninfo, leave):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await leave(conn)
            with pytest.raises(psycopg.ProgrammingError, match=OPEN[leave]):
                async with entered(lease.released()):
                    pytest.fail("it was released")

            assert 1 == in_use(pool)

            if leave is hold_a_cursor:
                await result(conn.borrowers_own.close())
            elif leave is open_two_phases:
                await result(conn.tpc_rollback())
            else:
                await result(conn.rollback())
            async with entered(lease.released()):
                assert 0 == in_use(pool)


async def test_an_open_pipeline_is_named(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn, entered(conn.pipeline()):
            error = await error_of(enter(lease.released()))

            assert isinstance(error, psycopg.ProgrammingError)
            assert "a pipeline is open" in str(error)


async def enter(manager):
    async with entered(manager):
        pass


async def test_what_somebody_uses_is_not_released(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await set_autocommit(conn, True)
            busy = spawn(execute, conn, "select pg_sleep(0.2)")
            await eventually(
                lambda: (
                    psycopg.pq.TransactionStatus.ACTIVE == conn.info.transaction_status
                )
            )
            error = await error_of(enter(lease.released()))

            assert isinstance(error, psycopg.ProgrammingError)
            assert "a statement is under way" in str(error)

            await busy


async def test_it_is_released_once_and_within_its_block(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        error = await error_of(enter(lease.released()))

        assert "not entered" in str(error)

        async with entered(lease), entered(lease.released()):
            error = await error_of(enter(lease.released()))

            assert isinstance(error, ConnectionReturned)

        error = await error_of(enter(lease.released()))

        assert isinstance(error, ConnectionReturned)


async def test_an_exception_in_it_ends_the_block_in_order(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        with pytest.raises(ZeroDivisionError):
            async with entered(lease) as conn:
                await one(conn)
                async with entered(lease.released()):
                    raise ZeroDivisionError
        await conserved(pool, server, application_name(conninfo))


async def test_a_lost_session_may_be_released_and_replaced(
    colour, server, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            sessions.terminate()

            assert isinstance(
                await error_of(execute(conn, "select 1")), psycopg.OperationalError
            )

            async with entered(lease.released()):
                pass

            assert 1 == await one(conn)
        await conserved(pool, server, application_name(conninfo))


async def test_a_reset_sees_what_is_released(colour, conninfo):
    seen = []

    async def reset(conn):
        seen.append(pid(conn))

    async with colour.pool(conninfo, min_size=1, reset=colour.callback(reset)) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            first = pid(conn)
            async with entered(lease.released()):
                await at_rest(pool, 1)

                assert [first] == seen

            await one(conn)


# --- what a borrower sets -------------------------------------------------------------


def attributes(conn):
    return {
        "autocommit": conn.autocommit,
        "isolation_level": conn.isolation_level,
        "read_only": conn.read_only,
        "deferrable": conn.deferrable,
        "row_factory": conn.row_factory,
        "cursor_factory": conn.cursor_factory,
        "server_cursor_factory": conn.server_cursor_factory,
        "prepare_threshold": conn.prepare_threshold,
        "prepared_max": conn.prepared_max,
        "loader": conn.adapters.get_loader(23, psycopg.pq.Format.TEXT),
        "type": conn.adapters.types.get("mine"),
        "handlers": [*conn._notice_handlers, *conn._notify_handlers],
    }


MINE = psycopg.types.TypeInfo("mine", 999_999, 0)


def hear(news):
    """Hear what a server says."""


def hear_too(news):
    """Hear it as well."""


SETTINGS = {
    "autocommit": lambda conn: conn.set_autocommit(True),
    "no autocommit": lambda conn: conn.set_autocommit(False),
    "isolation_level": lambda conn: conn.set_isolation_level(
        psycopg.IsolationLevel.SERIALIZABLE
    ),
    "no isolation_level": lambda conn: conn.set_isolation_level(None),
    "read_only": lambda conn: conn.set_read_only(True),
    "deferrable": lambda conn: conn.set_deferrable(True),
    "dict_row": lambda conn: setattr(conn, "row_factory", dict_row),
    "tuple_row": lambda conn: setattr(conn, "row_factory", tuple_row),
    "cursor_factory": lambda conn: setattr(
        conn, "cursor_factory", named(conn, "RawCursor")
    ),
    "usual cursor_factory": lambda conn: setattr(
        conn, "cursor_factory", named(conn, "Cursor")
    ),
    "server_cursor_factory": lambda conn: setattr(
        conn, "server_cursor_factory", named(conn, "RawServerCursor")
    ),
    "prepare_threshold": lambda conn: setattr(conn, "prepare_threshold", None),
    "usual prepare_threshold": lambda conn: setattr(conn, "prepare_threshold", 5),
    "prepared_max": lambda conn: setattr(conn, "prepared_max", 7),
    "loaders": lambda conn: conn.adapters.register_loader("int4", TextLoader),
    "types": lambda conn: conn.adapters.types.add(MINE),
    "notice handlers": lambda conn: conn.add_notice_handler(hear),
    "notify handlers": lambda conn: conn.add_notify_handler(hear),
}


async def configure_much(conn):
    await result(conn.set_autocommit(True))
    await result(conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ))
    conn.row_factory = scalar_row
    conn.cursor_factory = named(conn, "ClientCursor")
    conn.prepare_threshold = 3
    conn.add_notice_handler(hear_too)
    conn.adapters.register_loader("int8", TextLoader)


async def configure_nothing(conn):
    pass


@pytest.mark.parametrize("configure", [configure_nothing, configure_much])
async def test_what_is_set_is_set_for_the_lease_only(colour, conninfo, configure):
    """An eager connection tells what a setting comes to."""
    async with colour.pool(
        conninfo, min_size=2, configure=colour.callback(configure)
    ) as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            untouched = attributes(conn)
        for name, choose in SETTINGS.items():
            async with entered(pool.connection()) as conn:
                await result(choose(conn))
                expected = attributes(conn)
            del conn
            for when in ("before", "between", "released"):
                with noted(name, when):
                    got = await settings_of_a_lease(pool, choose, when, untouched)

                    assert [expected] * 2 == got

                    async with borrowed(pool, 2) as everybody:
                        assert [untouched] * 2 == [*map(attributes, everybody)]

                    del everybody


@contextlib.contextmanager
def noted(*words):
    try:
        yield
    except BaseException as error:
        if hasattr(error, "add_note"):
            error.add_note(", ".join(words))
        raise


async def settings_of_a_lease(pool, choose, when, untouched):
    """Choose at some time in a lease; tell what holds after each time it is released.

    What holds for somebody else meanwhile is looked at too.
    """
    got = []
    lease = pool.connection(lazy=True)
    async with entered(lease) as conn:
        if when == "before":
            await result(choose(conn))
        await settle(conn)
        if when == "between":
            await result(choose(conn))
        for _ in range(2):
            async with entered(lease.released()):
                taken = await result(pool.getconn())

                assert untouched == attributes(taken)

            if when == "released" and not got:
                await result(choose(conn))
            await settle(conn)
            got.append(attributes(conn))
            await result(pool.putconn(taken))
    return got


async def settle(conn):
    """Use a connection, and leave nothing open."""
    await execute(conn, "select 1")
    await result(conn.commit())


async def test_what_transactions_are_to_be_is_known_at_the_first(colour, conninfo):
    query = "select current_setting('transaction_isolation')"
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await result(conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))

            assert "serializable" == await fetch(conn, query)

            await result(conn.commit())
            async with entered(lease.released()):
                pass

            assert "serializable" == await fetch(conn, query)
        async with entered(pool.connection()) as conn:
            assert "read committed" == await fetch(conn, query)


# --- cursors from before there is a connection ----------------------------------------


async def rows_of(cursor):
    await result(cursor.execute("select 1 as n, 2::int8 as big"))
    return await result(cursor.fetchall())


async def configure_rows(conn):
    conn.row_factory = dict_row
    conn.adapters.register_loader("int8", TextLoader)


async def test_a_cursor_is_what_it_would_be_of_a_connection(colour, conninfo):
    kwargs = {"cursor_factory": named_of(colour, "ClientCursor")}
    configure = colour.callback(configure_rows)
    async with (
        colour.pool(conninfo, min_size=1, kwargs=kwargs, configure=configure) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        usual = conn.cursor()
        told = conn.cursor(row_factory=tuple_row)
        conn.row_factory = scalar_row
        chosen = conn.cursor()
        server_side = conn.cursor("named")

        assert isinstance(usual, kwargs["cursor_factory"])
        assert [{"n": 1, "big": "2"}] == await rows_of(usual)
        assert [(1, "2")] == await rows_of(told)
        assert [1] == await rows_of(chosen)
        assert [1] == await rows_of(server_side)
        await result(server_side.close())


async def test_a_cursor_may_have_adapters_of_its_own(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        cursor = conn.cursor()
        cursor.adapters.register_loader("int4", TextLoader)

        assert [("1", 2)] == await rows_of(cursor)


async def test_what_a_cursor_cannot_become_is_refused(colour, conninfo):
    async def configure(conn):
        await configure_rows(conn)
        conn.cursor_factory = named(conn, "ClientCursor")

    async with (
        colour.pool(conninfo, min_size=1, configure=colour.callback(configure)) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        made = conn.cursor()
        adapted = named(conn, "ClientCursor")(conn)
        adapted.adapters.register_loader("int4", TextLoader)
        for cursor, word in ((made, "cursor_factory"), (adapted, "adapters")):
            error = await error_of(rows_of(cursor))

            assert isinstance(error, psycopg.InterfaceError)
            assert word in str(error)

        cursor = await execute(conn, "select 1 as n")

        assert isinstance(cursor, named(conn, "ClientCursor"))
        assert [{"n": 1, "big": "2"}] == await rows_of(conn.cursor())


def named_of(colour, kind):
    return getattr(psycopg, f"Async{kind}" if colour.asynchronous else kind)


async def test_a_cursor_keeps_nothing_of_an_earlier_session(colour, conninfo):
    query = "select %s::text"
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            cursor = named(conn, "ClientCursor")(conn)
            await result(cursor.execute(query, ["it's"]))
            await result(conn.commit())
            async with entered(lease.released()):
                other = await result(pool.getconn())
                await result(other.close())
                await result(pool.putconn(other))
            await result(cursor.execute(query, ["it's"]))

            assert ("it's",) == await result(cursor.fetchone())


# --- what has arrived -----------------------------------------------------------------


async def test_what_has_arrived_is_fetched_whatever_has_become_of_the_session(
    colour, conninfo
):
    query = "select row('é'), array[now()] is not null"
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            cursors = [await execute(conn, query) for _ in range(5)]
            several = [
                await execute(conn, "select; select 'é', now() is not null")
                for _ in range(5)
            ]
            await result(conn.commit())

            async def check():
                cursor = several.pop()

                assert [(("é",), True)] == await result(cursors.pop().fetchall())
                assert cursor.nextset()
                assert [("é", True)] == await result(cursor.fetchall())

            async with entered(lease.released()):
                await check()
            await check()  # with nothing borrowed
            await execute(conn, "select 1")
            await result(conn.commit())
            await check()  # with another session, or the same one
            async with entered(lease.released()):
                pass
        await check()
    await check()
