"""What a borrower sets on a connection, the next one does not find."""

from __future__ import annotations

import gc

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types import TypeInfo
from psycopg.types.string import StrDumper, TextLoader

from edgepool import ConnectionReturned
from support.parity import (
    entered,
    execute,
    result,
)
from support.pg import (
    at_rest,
    class_beside,
    is_async,
    set_autocommit,
)


async def test_attributes_are_put_back(colour, conninfo):
    heard = []
    async with colour.pool(conninfo, min_size=1) as pool:
        for _ in range(2):  # also on what was put back once
            async with entered(pool.connection()) as conn:
                await set_autocommit(conn, True)
                conn.row_factory = dict_row
                conn.prepare_threshold = None
                conn.adapters.register_loader("int4", psycopg.types.string.TextLoader)
                conn.add_notice_handler(heard.append)
                conn.add_notify_handler(heard.append)
            await at_rest(pool, 1)
            async with entered(pool.connection()) as conn:
                assert not conn.autocommit
                assert (1,) == await result(
                    (await execute(conn, "select 1")).fetchone()
                )
                assert 5 == conn.prepare_threshold
                await execute(conn, "do $$ begin raise notice 'hello'; end $$")

    assert [] == heard


async def test_what_configure_has_set_is_what_is_put_back(colour, conninfo):
    async def configure(conn):
        conn.row_factory = dict_row
        await set_autocommit(conn, True)

    async with colour.pool(
        conninfo, min_size=1, configure=colour.callback(configure)
    ) as pool:
        async with entered(pool.connection()) as conn:
            await set_autocommit(conn, False)
            conn.row_factory = psycopg.rows.tuple_row
        async with entered(pool.connection()) as conn:
            row = await result((await execute(conn, "select 1 as one")).fetchone())

            assert {"one": 1} == row
            assert conn.autocommit


def hear_nothing(news):
    raise AssertionError(news)


ATTRIBUTES = {
    "autocommit": lambda conn: conn.set_autocommit(True),
    "isolation_level": lambda conn: conn.set_isolation_level(
        psycopg.IsolationLevel.SERIALIZABLE
    ),
    "read_only": lambda conn: conn.set_read_only(True),
    "deferrable": lambda conn: conn.set_deferrable(True),
    "row_factory": lambda conn: setattr(conn, "row_factory", dict_row),
    "cursor_factory": lambda conn: setattr(
        conn, "cursor_factory", class_beside(conn, "ClientCursor")
    ),
    "server_cursor_factory": lambda conn: setattr(
        conn, "server_cursor_factory", class_beside(conn, "RawServerCursor")
    ),
    "prepare_threshold": lambda conn: setattr(conn, "prepare_threshold", None),
    "prepared_max": lambda conn: setattr(conn, "prepared_max", 0),
    "loaders": lambda conn: conn.adapters.register_loader("int4", TextLoader),
    "dumpers": lambda conn: conn.adapters.register_dumper(int, StrDumper),
    "types": lambda conn: conn.adapters.types.add(TypeInfo("mine", 999_999, 0)),
    "notice handlers": lambda conn: conn.add_notice_handler(hear_nothing),
    "notify handlers": lambda conn: conn.add_notify_handler(hear_nothing),
}

# These are set on the server's side, and so refused after the return.
REFUSED = ("autocommit", "isolation_level", "read_only", "deferrable")


def attributes(conn):
    """Tell what a borrower may have set."""
    adapters = conn.adapters
    names = [name for name in ATTRIBUTES if hasattr(conn, name)]
    return {name: getattr(conn, name) for name in names} | {
        "loader": adapters.get_loader(23, psycopg.pq.Format.TEXT),
        "dumper": adapters.get_dumper(int, psycopg.adapt.PyFormat.TEXT),
        "type": adapters.types.get("mine"),
        "handlers": conn._notice_handlers + conn._notify_handlers,
    }


async def borrowed_attributes(pool):
    async with entered(pool.connection()) as conn:
        return attributes(conn)


def keeps(conn):
    """Configure nothing but adapters, so that the session has some of its own."""
    conn.adapters.register_loader("int8", TextLoader)


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("name", ATTRIBUTES)
async def test_what_a_borrower_sets_is_gone(colour, conninfo, name, configured):
    async def configure(conn):
        keeps(conn)

    callback = colour.callback(configure) if configured else None
    async with colour.pool(conninfo, min_size=1) as fresh:
        before = await borrowed_attributes(fresh)

    async with colour.pool(conninfo, min_size=1, configure=callback) as pool:
        async with entered(pool.connection()) as conn:
            await result(ATTRIBUTES[name](conn))

            assert attributes(conn) != before

        del conn

        assert before == await borrowed_attributes(pool)


@pytest.mark.parametrize("name", [name for name in ATTRIBUTES if name not in REFUSED])
async def test_what_is_set_after_the_return_reaches_nobody(colour, conninfo, name):
    async with colour.pool(conninfo, min_size=1) as pool:
        before = await borrowed_attributes(pool)
        conn = await result(pool.getconn())
        await result(pool.putconn(conn))
        ATTRIBUTES[name](conn)
        del conn  # or the next borrower would get another object

        assert before == await borrowed_attributes(pool)


async def test_a_block_that_nobody_ended_does_not_bind_the_next(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            if is_async(conn):
                await psycopg.AsyncTransaction(conn).__aenter__()
            else:
                psycopg.Transaction(conn).__enter__()
            await execute(conn, "commit")
        del conn
        gc.collect()
        async with entered(pool.connection()) as conn:
            await execute(conn, "select 1")
            await result(conn.commit())


@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
async def test_a_transaction_in_two_phases_is_nobody_elses(colour, conninfo, keep):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await result(conn.tpc_begin("mine"))
        with pytest.raises(psycopg.NotSupportedError):
            await result(conn.tpc_prepare())  # this server does not do that
        await result(pool.putconn(conn))
        kept = conn if keep else None
        del conn
        async with entered(pool.connection()) as conn:
            assert conn is not kept

            await execute(conn, "select 1")
            await result(conn.commit())


async def test_an_object_that_was_never_lent_does_not_tell_of_a_block(colour, conninfo):
    seen = []

    async def configure(conn):
        seen.append(conn)

    async with colour.pool(
        conninfo, min_size=1, configure=colour.callback(configure)
    ) as pool:
        await at_rest(pool, 1)
        with pytest.raises(ConnectionReturned, match="returned at an unknown place"):
            await execute(seen[0], "select 1")
