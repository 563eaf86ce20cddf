"""A borrow, a statement and a return in one call: `pool.execute`, `pool.fetch_...`."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg.rows import class_row, dict_row, scalar_row

from edgepool import ConnectionReturned, PoolTimeout
from support.conservation import conserved
from support.parity import entered, execute, result
from support.pg import application_name, at_rest, error_of, set_autocommit

READY = "Z"  # what a server ends each round trip with


class Point:
    def __init__(self, x, y):
        self.at = (x, y)


async def call(pool, name, *args, **kwargs):
    return await result(getattr(pool, name)(*args, **kwargs))


@pytest.fixture
def table(admin):
    admin.execute("create table if not exists shots (n int)")
    admin.execute("truncate shots")
    return lambda: [n for (n,) in admin.execute("select n from shots order by n")]


# --- what comes of it -----------------------------------------------------------------


async def test_each_gives_what_its_name_says(colour, conninfo):
    query = "select n, n * 10 as tenfold from generate_series(1, %s) n"
    async with colour.pool(conninfo, min_size=1) as pool:
        cursor = await call(pool, "execute", query, [2])

        assert 2 == cursor.rowcount
        assert [(1, 10), (2, 20)] == await result(cursor.fetchall())

        assert (1, 10) == await call(pool, "fetch_one", query, [2])
        assert [(1, 10), (2, 20)] == await call(pool, "fetch_all", query, [2])
        assert 1 == await call(pool, "fetch_value", query, [2])

        assert await call(pool, "fetch_one", query, [0]) is None
        assert [] == await call(pool, "fetch_all", query, [0])
        assert await call(pool, "fetch_value", query, [0]) is None

        s = pool.statistics()

        assert (7, 0) == (s.requests, s.in_use)


async def test_parameters_go_by_name_too(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        got = await call(
            *(pool, "fetch_one", "select %(a)s::int, %(b)s::text"),
            {"a": 1, "b": "it's"},
            prepare=True,
            binary=True,
            timeout=5.0,
        )

    assert (1, "it's") == got


async def test_a_row_factory_holds_for_the_call_only(colour, conninfo):
    query = "select 1 as x, 2 as y"
    kwargs = {"row_factory": dict_row}
    async with colour.pool(conninfo, min_size=1, kwargs=kwargs) as pool:
        assert {"x": 1, "y": 2} == await call(pool, "fetch_one", query)
        assert 1 == await call(pool, "fetch_value", query)

        point = await call(pool, "fetch_one", query, row_factory=class_row(Point))
        (same,) = await call(pool, "fetch_all", query, row_factory=class_row(Point))

        assert (1, 2) == point.at == same.at
        assert [1] == await call(pool, "fetch_all", query, row_factory=scalar_row)

        async with entered(pool.connection()) as conn:
            assert conn.row_factory is dict_row
            assert not conn.autocommit


async def test_what_gives_no_rows_is_done_and_told(colour, conninfo, table):
    async with colour.pool(conninfo, min_size=1) as pool:
        cursor = await call(pool, "execute", "insert into shots values (1), (2)")

        assert (2, "INSERT 0 2") == (cursor.rowcount, cursor.statusmessage)

        error = await error_of(call(pool, "fetch_one", "insert into shots values (3)"))

    assert isinstance(error, psycopg.ProgrammingError)
    assert [1, 2, 3] == table()


async def test_several_statements_are_one_transaction(colour, conninfo, table):
    async with colour.pool(conninfo, min_size=1) as pool:
        cursor = await call(pool, "execute", "select 'one'; select 2; select 'three'")
        got = [await result(cursor.fetchone())]
        while cursor.nextset():
            got.append(await result(cursor.fetchone()))

        assert [("one",), (2,), ("three",)] == got

        both = "insert into shots values (1); select 1/0"

        assert isinstance(
            await error_of(call(pool, "execute", both)), psycopg.errors.DivisionByZero
        )

    assert [] == table()


# --- one round trip -------------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [False, True])
async def test_it_is_one_round_trip(colour, proxy, autocommit):
    kwargs = {"autocommit": autocommit}
    async with colour.pool(proxy.conninfo(), min_size=1, kwargs=kwargs) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as said:
            for name in ("execute", "fetch_one", "fetch_all", "fetch_value"):
                await call(pool, name, "select 1")
                await call(pool, name, "select %s", [1])

        assert 8 == proxy_round_trips(said)

        async with entered(pool.connection()) as conn:
            assert conn.autocommit is autocommit

        with proxy.recording() as said:
            async with entered(pool.connection()) as conn:
                await execute(conn, "select 1")

        assert (1 if autocommit else 3) == proxy_round_trips(said)


def proxy_round_trips(said):
    """Count what has the server answer: a query, or the end of an extended one."""
    return sum(kind in "QS" for kind, _ in said)


async def test_what_transactions_are_to_be_they_are(colour, conninfo, table):
    async def configure(conn):
        await result(conn.set_read_only(True))

    async with colour.pool(
        conninfo, min_size=1, configure=colour.callback(configure)
    ) as pool:
        assert 1 == await call(pool, "fetch_value", "select 1")

        error = await error_of(call(pool, "execute", "insert into shots values (1)"))

        assert isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        assert 0 == pool.statistics().in_use

    assert [] == table()


# --- what must not be -----------------------------------------------------------------


@pytest.mark.parametrize("query", ["begin", "begin; insert into shots values (1)"])
async def test_a_transaction_that_it_opens_is_rolled_back_and_told(
    colour, server, conninfo, table, query
):
    async with colour.pool(conninfo, min_size=1) as pool:
        error = await error_of(call(pool, "execute", query))

        assert isinstance(error, psycopg.ProgrammingError)
        assert "has opened a transaction" in str(error)

        async with entered(pool.connection()) as conn:
            assert not conn.autocommit
            assert psycopg.pq.TransactionStatus.IDLE == conn.info.transaction_status

        await conserved(pool, server, application_name(conninfo))

    assert [] == table()


async def test_a_whole_transaction_is_none_that_is_open(colour, conninfo, table):
    async with colour.pool(conninfo, min_size=1) as pool:
        await call(pool, "execute", "begin; insert into shots values (1); commit")

    assert [1] == table()


async def test_a_copy_is_refused(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        error = await error_of(call(pool, "execute", "copy (select 1) to stdout"))

        assert isinstance(error, psycopg.ProgrammingError)
        assert "COPY" in str(error)

        await conserved(pool, server, application_name(conninfo))


async def test_its_cursor_executes_nothing_more(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        cursor = await call(pool, "execute", "select 'it is kept'")
        other = await result(pool.getconn())
        with (
            proxy.recording() as said,
            pytest.raises(ConnectionReturned, match=r"at .*(parity|one_shot)\.py"),
        ):
            await result(cursor.execute("select 1"))

        assert [] == said
        assert ("it is kept",) == await result(cursor.fetchone())

        await result(pool.putconn(other))


@pytest.mark.parametrize("kind", ["pool", "null_pool"])
@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("select 'text'", "text"),
        ("select row(1, 'text', row(2.5))", None),
        ("select array[row(1, 'text')]", None),
        ("select row(1, 'text')::shot", None),
        ("select array[row(1, 'text')::shot]", None),
        ("select array['a', null], '[1,2]'::jsonb", ["a", None]),
        ("select '[1,2]'::int4range, '{[1,2],[5,6]}'::int4multirange", None),
    ],
)
async def test_a_result_outlives_the_loan(colour, conninfo, admin, kind, query, value):
    admin.execute("drop type if exists shot; create type shot as (n int, t text)")
    async with getattr(colour, kind)(conninfo) as pool:
        async with entered(pool.connection()) as conn:
            cursor = await execute(conn, query)
            expected = await result(cursor.fetchall())

        assert value is None or value == expected[0][0]

        cursor = await call(pool, "execute", f"select 1; {query}; select 2.5")

        assert [(1,)] == await result(cursor.fetchall())
        assert cursor.nextset()
        assert expected == await result(cursor.fetchall())
        assert cursor.nextset()
        assert not cursor.nextset()


async def test_a_statement_is_not_repeated_and_its_error_is_heeded(
    colour, server, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        suicide = "select pg_terminate_backend(pg_backend_pid())"
        error = await error_of(call(pool, "execute", suicide))

        assert isinstance(error, psycopg.OperationalError)

        s = pool.statistics()

        assert (1, 1) == (s.requests, s.bad_returns)

        await conserved(pool, server, application_name(conninfo))


async def test_it_waits_for_no_longer_than_told(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        held = await result(pool.getconn())
        error = await error_of(call(pool, "fetch_value", "select 1", timeout=0.01))

        assert isinstance(error, PoolTimeout)

        await result(pool.putconn(held))


async def test_what_a_failed_one_has_set_is_put_back(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        query = "select 1/0"

        assert isinstance(
            await error_of(call(pool, "fetch_one", query, row_factory=dict_row)),
            psycopg.errors.DivisionByZero,
        )

        async with entered(pool.connection()) as conn:
            cursor = await execute(conn, "select 1")

            assert not conn.autocommit
            assert (1,) == await result(cursor.fetchone())


async def test_a_borrow_may_have_been_configured_to_autocommit(colour, conninfo):
    async def configure(conn):
        await set_autocommit(conn, True)

    async with colour.pool(
        conninfo, min_size=1, configure=colour.callback(configure)
    ) as pool:
        for name in ("execute", "fetch_value"):
            await call(pool, name, "select 1")
            async with entered(pool.connection()) as conn:
                assert conn.autocommit


async def test_the_call_is_where_it_was_borrowed(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, track_borrows=True) as pool:
        cursor = await call(pool, "execute", "select 1")
        error = await error_of(execute(cursor, "select 1"))

        assert re.search(r"returned at .*(parity|one_shot)\.py:", str(error))
