"""What one borrower leaves behind on the server, the next one does not find."""

from __future__ import annotations

import logging

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from edgepool import _flows
from support.conservation import conserved
from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    pid,
    result,
    spawn,
    waiter,
)
from support.pg import application_name, at_rest, set_autocommit

# --- what a session is ----------------------------------------------------------------

SNAPSHOT = {
    "who": "select array[current_user, session_user]::text[]",
    "settings": "select array_agg(name || '=' || setting order by name)"
    " from pg_settings where name !~ '^transaction_'",
    "search_path": "select current_schemas(false)::text[]",
    "channels": "select array(select pg_listening_channels())",
    "cursors": "select array(select name from pg_cursors where name <> '')",
    "locks": "select array(select objid::int from pg_locks"
    " where locktype = 'advisory' and pid = pg_backend_pid())",
    "temporary": "select array(select relname::text from pg_class"
    " where relnamespace = pg_my_temp_schema() and relkind in ('r', 'S'))",
    "tenant": "select array[nullif(current_setting('app.tenant', true), '')]",
}


async def snapshot(conn):
    """Tell all that a borrower can see of the state of a session, in autocommit."""
    await set_autocommit(conn, True)
    return {name: await fetch(conn, query) for name, query in SNAPSHOT.items()}


async def last_value(conn):
    """Tell the session's last number of any sequence; None if there is none."""
    try:
        return await fetch(conn, "select lastval()")
    except psycopg.errors.ObjectNotInPrerequisiteState:
        return None


DIRT = {
    "role": "set role {role}",
    "session authorization": "set session authorization {role}",
    "role within an authorization": "set session authorization {role}; set role {role}",
    "search_path": "set search_path to pg_catalog",
    "setting": "set statement_timeout to '17s'",
    "time zone": "set timezone to 'Asia/Tokyo'",
    "encoding": "set client_encoding to 'latin1'",
    "read only": "set default_transaction_read_only to on",
    "characteristics": "set session characteristics as"
    " transaction isolation level serializable",
    "setting of its own": "set app.tenant to 'blue'",
    "setting by function": "select set_config('app.tenant', 'blue', false)",
    "name": "set application_name to 'borrower'",
    "temporary table": "create temporary table mine (n int); insert into mine values"
    " (1)",
    "temporary sequence": "create temporary sequence numbers",
    "listen": "listen news",
    "cursor": "declare kept cursor with hold for select 1",
    "lock": "select pg_advisory_lock(7)",
    "shared lock, twice": "select pg_advisory_lock_shared(8),"
    " pg_advisory_lock_shared(8)",
}


@pytest.fixture
def owner(admin):
    """A role without any right, and a sequence for all."""
    admin.execute("drop role if exists tenant")
    admin.execute("create role tenant")
    admin.execute("create sequence if not exists shared_numbers")
    yield "tenant"
    admin.execute("drop role tenant")


def dirt(kind, owner):
    return sql.SQL(DIRT[kind]).format(role=sql.Identifier(owner)).as_string(None)


@pytest.mark.parametrize("kind", DIRT)
async def test_what_a_borrower_sets_is_invisible_to_the_next(
    colour, conninfo, owner, kind
):
    async with colour.pool(conninfo, min_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            before, first = await snapshot(conn), pid(conn)
            await set_autocommit(conn, False)
        async with entered(pool.connection()) as conn:
            await execute(conn, dirt(kind, owner))
        async with borrowed(pool, 1) as (conn,):
            assert await snapshot(conn) == before
            assert pid(conn) == first


@pytest.mark.parametrize("kind", DIRT)
async def test_each_kind_of_state_would_be_visible_without_it(
    colour, conninfo, owner, kind
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with borrowed(pool, 1) as (conn,):
            before = await snapshot(conn)
            await execute(conn, dirt(kind, owner))
        async with borrowed(pool, 1) as (conn,):
            assert await snapshot(conn) != before


async def test_what_was_heard_for_one_is_not_told_to_the_next(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, reset="clean") as pool:
        async with entered(pool.connection()) as conn:
            await set_autocommit(conn, True)
            await execute(conn, "listen news")
            await execute(conn, "notify news, 'a secret of mine'")
            await execute(conn, "select 1")  # psycopg has kept it by now
        async with borrowed(pool, 1) as (conn,):
            await set_autocommit(conn, True)
            heard = conn.notifies(timeout=0, stop_after=1)
            if hasattr(heard, "__aiter__"):
                assert [] == [news async for news in heard]
            else:
                assert [] == list(heard)


async def test_the_numbers_of_sequences_are_forgotten(colour, conninfo, owner):
    async with colour.pool(conninfo, min_size=1, reset="clean") as pool:
        async with entered(pool.connection()) as conn:
            await fetch(conn, "select nextval('shared_numbers')")
            assert await last_value(conn) is not None
        async with entered(pool.connection()) as conn:
            assert await last_value(conn) is None
            await result(conn.rollback())
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
                await fetch(conn, "select currval('shared_numbers')")
            await result(conn.rollback())


@pytest.mark.parametrize("autocommit", [True, False])
async def test_all_at_once_and_in_the_midst_of_a_transaction(
    colour, conninfo, owner, autocommit
):
    async with colour.pool(conninfo, min_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            before, first = await snapshot(conn), pid(conn)
        for ending in ("select 1", "select 1/0", "savepoint half"):
            async with borrowed(pool, 1) as (conn,):
                await set_autocommit(conn, autocommit)
                for kind in DIRT:
                    if "authorization" not in kind and kind != "read only":
                        await execute(conn, dirt(kind, owner))
                await set_autocommit_outside(conn, autocommit)
                try:
                    await execute(conn, "begin" if autocommit else "select 1")
                    await execute(conn, ending)
                except psycopg.errors.DivisionByZero:
                    pass
            async with borrowed(pool, 1) as (conn,):
                assert await snapshot(conn) == before
                assert pid(conn) == first
                await set_autocommit(conn, False)


async def set_autocommit_outside(conn, value):
    if not value:
        await result(conn.commit())


async def test_what_the_start_of_a_session_sets_stays(colour, conninfo, admin):
    admin.execute("drop role if exists base, other")
    admin.execute("create role other")
    admin.execute("create role base login in role other")
    admin.execute("alter role base set role to other")
    admin.execute("alter role base set search_path to pg_catalog")
    admin.execute("alter role base set app.tenant to 'red'")
    admin.execute("alter role base in database postgres set work_mem to '5MB'")
    where = make_conninfo(conninfo, user="base", options="-c statement_timeout=33s")
    changes = (
        "reset role; set role to base; set search_path to public;"
        " set app.tenant to 'blue'; set work_mem to '9MB'; set statement_timeout to 0"
    )
    async with colour.pool(where, min_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            before, first = await snapshot(conn), pid(conn)
            assert before["who"] == ["other", "base"]
            assert before["tenant"] == ["red"]
            await execute(conn, changes)
            assert await snapshot(conn) != before
        async with borrowed(pool, 1) as (conn,):
            assert await snapshot(conn) == before
            assert pid(conn) == first
    admin.execute("drop role base, other")


async def test_what_configure_has_set_is_there_for_each_borrower(
    colour, conninfo, owner
):
    async def configure(conn):
        await set_autocommit(conn, True)
        await execute(conn, f"set search_path to pg_catalog; set role to {owner}")
        await set_autocommit(conn, False)

    async with colour.pool(
        conninfo, min_size=1, reset="clean", configure=colour.callback(configure)
    ) as pool:
        async with borrowed(pool, 1) as (conn,):
            before, first = await snapshot(conn), pid(conn)
            assert before["who"] == [owner, "postgres"]
            await execute(conn, "reset role; reset all")
        for _ in range(3):
            async with borrowed(pool, 1) as (conn,):
                assert await snapshot(conn) == before
                assert pid(conn) == first


# --- prepared statements --------------------------------------------------------------


async def test_prepared_statements_survive(colour, conninfo, sessions):
    async with colour.pool(
        conninfo, min_size=1, reset="clean", kwargs={"prepare_threshold": 0}
    ) as pool:
        first = None
        for number in range(30):
            async with entered(pool.connection()) as conn:
                first = first or pid(conn)
                assert await fetch(conn, "select %s::int", [number]) == number
                await execute(conn, "set app.tenant to 'blue'")
                prepared = "select count(*) from pg_prepared_statements"
                if number:
                    assert await fetch(conn, prepared) >= 1
                assert pid(conn) == first


@pytest.mark.parametrize("reset", [None, "clean"])
async def test_a_rollback_keeps_prepared_statements(colour, proxy, reset):
    async with colour.pool(
        proxy.conninfo(), min_size=1, reset=reset, kwargs={"prepare_threshold": 1}
    ) as pool:
        for number in range(10):
            async with borrowed(pool, 1) as (conn,):
                assert await fetch(conn, "select %s::int", [number]) == number
            await at_rest(pool, 1)

    assert [s for s in proxy.statements if "DEALLOCATE" in s] == []
    # Prepared once: all other rounds sent no text.
    assert len([s for s in proxy.statements if "$1::int" in s]) == 2
    sent = [s for s in proxy.statements if "ROLLBACK" in s]
    assert len(sent) == 10
    if reset == "clean":
        assert all("RESET ALL" in s for s in sent)  # in one round trip


@pytest.mark.parametrize("reset", [None, "clean"])
async def test_a_rollback_of_a_change_forgets_prepared_statements(
    colour, conninfo, reset
):
    """Or a statement would refer to a type that has never been."""
    async with colour.pool(
        conninfo, min_size=1, reset=reset, kwargs={"prepare_threshold": 0}
    ) as pool:
        for _ in range(4):
            async with borrowed(pool, 1) as (conn,):
                await execute(conn, "create type mood as enum ('fine')")
                assert await fetch(conn, "select %s::mood", ["fine"]) == "fine"
                first = pid(conn)
            async with borrowed(pool, 1) as (conn,):
                assert pid(conn) == first


async def test_a_server_without_a_way_to_tell_of_changes_is_rolled_back_too(
    colour, conninfo, monkeypatch
):
    from edgepool.psycopg import _session

    monkeypatch.setattr(_session, "CHANGES", b"SELECT no_such_function()")
    for reset in (None, "clean"):
        async with colour.pool(conninfo, min_size=1, reset=reset) as pool:
            async with borrowed(pool, 1) as (conn,):
                first = pid(conn)
                await execute(conn, "select 1")
            async with borrowed(pool, 1) as (conn,):
                assert pid(conn) == first
                assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# --- off the borrower's path ----------------------------------------------------------


async def test_cleaning_is_one_round_trip_in_the_background(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            await set_autocommit(conn, True)
            await execute(conn, "select 1")
            proxy.delay = 0.3
            during = len(proxy.messages)
        # It is back before the server can have answered.
        assert pool.statistics().resetting == 1
        proxy.delay = 0.0
        await at_rest(pool, 1)

    assert ["Q"] == [kind for kind, _ in proxy.messages[during:] if kind != "X"]


async def test_who_waits_gets_the_clean_connection(colour, conninfo, owner):
    async with colour.pool(conninfo, min_size=1, reset="clean") as pool:
        conn = await result(pool.getconn())
        before, first = await snapshot(conn), pid(conn)
        waiting = await waiter(pool)
        for kind in ("listen", "lock", "setting of its own", "role"):
            await execute(conn, dirt(kind, owner))
        await result(pool.putconn(conn))
        conn = await waiting

        assert await snapshot(conn) == before
        assert pid(conn) == first

        await result(pool.putconn(conn))


async def test_null_pools_clean_for_who_waits(colour, conninfo, owner):
    async with colour.null_pool(conninfo, max_size=1, reset="clean") as pool:
        conn = await result(pool.getconn())
        before, first = await snapshot(conn), pid(conn)
        waiting = await waiter(pool)
        await execute(conn, dirt("setting of its own", owner))
        await result(pool.putconn(conn))
        conn = await waiting

        assert await snapshot(conn) == before
        assert pid(conn) == first

        await result(pool.putconn(conn))


TENANTS = ("red", "blue")
ROUNDS = 100


async def test_two_tenants_never_see_each_other(colour, conninfo, server, admin):
    for tenant in TENANTS:
        admin.execute(f"create role {tenant}")
        admin.execute(f"create schema authorization {tenant}")
    strays = []
    seen = "select current_setting('app.tenant', true), current_user, current_schema"

    async def work(tenant):
        for number in range(ROUNDS):
            async with entered(pool.connection()) as conn:
                cursor = await execute(conn, seen)
                found = await result(cursor.fetchone())
                if set(found) & set(TENANTS):
                    strays.append(found)
                await execute(conn, f"set app.tenant to {tenant}")
                await execute(conn, f"set search_path to {tenant}")
                await execute(conn, f"set role to {tenant}")
                cursor = await execute(conn, seen)
                if await result(cursor.fetchone()) != (tenant,) * 3:
                    strays.append(tenant)
                if number % 5 == 4:
                    await result(conn.rollback())

    async with colour.pool(conninfo, min_size=2, reset="clean") as pool:
        workers = [spawn(work, tenant) for tenant in TENANTS * 3]
        for one in workers:
            await one
        await conserved(pool, server, application_name(conninfo))
        assert pool.get_stats().get("returns_bad", 0) == 0

    for tenant in TENANTS:
        admin.execute(f"drop schema {tenant}")
        admin.execute(f"drop role {tenant}")

    assert [] == strays


# --- when it fails --------------------------------------------------------------------


async def test_a_failed_clean_up_closes_the_connection(
    colour, conninfo, server, sessions, monkeypatch, caplog
):
    async with colour.pool(conninfo, min_size=1, max_size=2, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            monkeypatch.setattr(
                "edgepool.psycopg._adapter_base.CLEAN", b"RESET ALL; SELECT 1/0"
            )
            first = pid(conn)
        await eventually(lambda: conn.closed)
        monkeypatch.undo()
        async with borrowed(pool, 1) as (conn,):
            assert pid(conn) != first
        await conserved(pool, server, application_name(conninfo))

    assert "reset failed: division by zero" in caplog.text


async def test_a_clean_up_that_takes_too_long_closes_the_connection(
    colour, conninfo, server, sessions, monkeypatch
):
    monkeypatch.setattr(_flows, "ROUND_TRIP", 0.3)
    slow = b"SELECT pg_sleep(60)"
    async with colour.pool(conninfo, min_size=1, max_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            monkeypatch.setattr("edgepool.psycopg._adapter_base.CLEAN", slow)
            first = pid(conn)
        await eventually(lambda: conn.closed)
        # The server does not go on with it either.
        await eventually(lambda: first not in sessions.pids)
        monkeypatch.setattr("edgepool.psycopg._adapter_base.CLEAN", b"RESET ALL")
        await conserved(pool, server, application_name(conninfo))


async def test_a_session_that_ends_in_a_clean_up_is_replaced(
    colour, conninfo, server, sessions, admin, monkeypatch
):
    slow = b"SELECT pg_sleep(60)"
    async with colour.pool(conninfo, min_size=1, max_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            first = pid(conn)
            monkeypatch.setattr("edgepool.psycopg._adapter_base.CLEAN", slow)
        await eventually(lambda: "SELECT pg_sleep(60)" in sessions.queries)
        monkeypatch.undo()
        sessions.terminate(first)
        async with entered(pool.connection(timeout=PATIENCE)) as conn:
            assert pid(conn) != first
        await conserved(pool, server, application_name(conninfo))


async def test_a_configure_that_fails_after_a_clean_up_closes_the_connection(
    colour, conninfo, server
):
    calls = []

    async def configure(conn):
        calls.append(conn)
        if len(calls) == 2:
            raise RuntimeError("not twice")

    async with colour.pool(
        conninfo,
        min_size=1,
        max_size=1,
        reset="clean",
        configure=colour.callback(configure),
    ) as pool:
        async with borrowed(pool, 1) as (first,):
            pass
        async with borrowed(pool, 1) as (second,):
            assert second is not first
        assert first.closed
        await conserved(pool, server, application_name(conninfo))


async def test_a_cancelled_clean_up_closes_the_connection(
    colour, conninfo, server, sessions, admin, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "edgepool")
    async with colour.pool(conninfo, min_size=1, max_size=1, reset="clean") as pool:
        async with borrowed(pool, 1) as (conn,):
            first = pid(conn)
            monkeypatch.setattr(
                "edgepool.psycopg._adapter_base.CLEAN", b"SELECT pg_sleep(60)"
            )
        await eventually(lambda: "SELECT pg_sleep(60)" in sessions.queries)
        monkeypatch.undo()
        admin.execute("select pg_cancel_backend(%s)", [first])
        async with entered(pool.connection(timeout=PATIENCE)) as conn:
            assert pid(conn) != first
        await conserved(pool, server, application_name(conninfo))


# --- the argument ---------------------------------------------------------------------


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("value", ["", "Clean", "discard all"])
def test_another_word_than_clean_is_refused(colour, value, null):
    pool_class = colour.NullPool if null else colour.Pool
    with pytest.raises(ValueError, match=f"reset must be .*'clean', not '{value}'"):
        pool_class("", reset=value, open=False)
