"""What is set and prepared before there is a connection, and what has arrived."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from psycopg.rows import dict_row, scalar_row, tuple_row
from psycopg.types.string import TextLoader

from support.parity import (
    borrowed,
    entered,
    execute,
    fetch,
    result,
)
from support.pg import at_rest, class_beside, error_of

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
        conn, "cursor_factory", class_beside(conn, "RawCursor")
    ),
    "usual cursor_factory": lambda conn: setattr(
        conn, "cursor_factory", class_beside(conn, "Cursor")
    ),
    "server_cursor_factory": lambda conn: setattr(
        conn, "server_cursor_factory", class_beside(conn, "RawServerCursor")
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
    conn.cursor_factory = class_beside(conn, "ClientCursor")
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
        conn.cursor_factory = class_beside(conn, "ClientCursor")

    async with (
        colour.pool(conninfo, min_size=1, configure=colour.callback(configure)) as pool,
        entered(pool.connection(lazy=True)) as conn,
    ):
        made = conn.cursor()
        adapted = class_beside(conn, "ClientCursor")(conn)
        adapted.adapters.register_loader("int4", TextLoader)
        for cursor, word in ((made, "cursor_factory"), (adapted, "adapters")):
            error = await error_of(rows_of(cursor))

            assert isinstance(error, psycopg.InterfaceError)
            assert word in str(error)

        cursor = await execute(conn, "select 1 as n")

        assert isinstance(cursor, class_beside(conn, "ClientCursor"))
        assert [{"n": 1, "big": "2"}] == await rows_of(conn.cursor())


def named_of(colour, kind):
    return getattr(psycopg, f"Async{kind}" if colour.asynchronous else kind)


async def test_a_cursor_keeps_nothing_of_an_earlier_session(colour, conninfo):
    query = "select %s::text"
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            cursor = class_beside(conn, "ClientCursor")(conn)
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
