"""A transactional pool is like any other to its borrowers, and leaves nothing."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import dict_row

import edgepool
from edgepool.testing import Faults, TransactionalPool
from edgepool.testing._shared_session import SharedSession
from edgepool.testing._transactional_pools import _Transactional
from edgepool.testing._turns import Borrower
from support.parity import PATIENCE, entered, eventually, execute, fetch, result, spawn
from support.pg import THREADS

THREAD = "edgepool-transaction"


async def insert(conn, table, *numbers):
    for number in numbers:
        await execute(conn, f"insert into {table} values ({number})")


async def numbers(conn, table):
    cursor = await execute(conn, f"select x from {table} order by x")
    return [x for (x,) in await result(cursor.fetchall())]


async def numbers_seen(pool, table):
    async with entered(pool.connection()) as conn:
        return await numbers(conn, table)


# --- what stays -----------------------------------------------------------------------


async def test_what_was_committed_is_seen_by_others_and_gone_in_the_end(
    transactional, table, admin, sessions
):
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            await insert(conn, table, 1)

        assert [1] == await numbers_seen(pool, table)
        assert isinstance(pool, psycopg_pool.base.BasePool)
        assert [] == admin.execute(f"select * from {table}").fetchall()
        assert 1 == sessions.count

    assert [] == admin.execute(f"select * from {table}").fetchall()
    assert 0 == sessions.count


async def test_a_pool_that_is_opened_again_begins_anew(colour, transactional, table):
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            await insert(conn, table, 1)
        await result(pool.close())
        await result(pool.open())

        assert [] == await numbers_seen(pool, table)


def test_a_pool_that_is_forgotten_lets_go_of_its_transaction(conninfo, sessions):
    pool = TransactionalPool(conninfo, min_size=1)
    with pool.connection():
        assert 1 == sessions.count
    del pool

    def is_gone():
        gc.collect()  # a thread of the pool's may have it for a moment
        return sessions.count == 0

    THREADS.run(eventually(is_gone))


# --- transactions ---------------------------------------------------------------------


async def test_a_block_that_fails_undoes_its_own_work_only(transactional, table):
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            await insert(conn, table, 1)
        with pytest.raises(ZeroDivisionError):
            async with entered(pool.connection()) as conn:
                await insert(conn, table, 2)
                raise ZeroDivisionError

        assert [1] == await numbers_seen(pool, table)


async def test_commit_and_rollback_do_what_they_say(transactional, table):
    async with transactional() as pool, entered(pool.connection()) as conn:
        await insert(conn, table, 1)
        await result(conn.commit())
        await insert(conn, table, 2)
        await result(conn.rollback())
        await insert(conn, table, 3)

        assert [1, 3] == await numbers(conn, table)


async def test_blocks_of_transactions_are_nested_as_ever(transactional, table):
    async with transactional() as pool, entered(pool.connection()) as conn:
        async with entered(conn.transaction()):
            await insert(conn, table, 1)
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with entered(conn.transaction()):
                    await insert(conn, table, 2, 1)
            async with entered(conn.transaction(force_rollback=True)):
                await insert(conn, table, 3)
            await insert(conn, table, 4)

        assert [1, 4] == await numbers(conn, table)


async def test_the_status_of_a_transaction_is_as_ever(transactional, table):
    async with transactional() as pool, entered(pool.connection()) as conn:
        status = [conn.info.transaction_status.name]
        await insert(conn, table, 1)
        status.append(conn.info.transaction_status.name)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await insert(conn, table, 1)
        status.append(conn.info.transaction_status.name)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await execute(conn, "select 1")
        await result(conn.commit())  # which rolls back
        status.append(conn.info.transaction_status.name)

        assert ["IDLE", "INTRANS", "INERROR", "IDLE"] == status
        assert [] == await numbers(conn, table)


async def test_in_autocommit_each_statement_stands_alone(transactional, table):
    async with (
        transactional(kwargs={"autocommit": True}) as pool,
        entered(pool.connection()) as conn,
    ):
        await insert(conn, table, 1)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await insert(conn, table, 1)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await execute(
                conn, f"insert into {table} values (2); insert into {table} values (1)"
            )
        await insert(conn, table, 3)

        assert "IDLE" == conn.info.transaction_status.name
        assert [1, 3] == await numbers(conn, table)


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_transactions_in_sql_are_understood(transactional, table, extended):
    async with (
        transactional(kwargs={"autocommit": True}) as pool,
        entered(pool.connection()) as conn,
    ):

        async def run(query):
            # What is prepared goes by the extended protocol.
            cursor = await result(conn.execute(query, prepare=extended))
            return cursor.statusmessage

        said = [await run("begin")]
        await insert(conn, table, 1)
        said.append(await run("/* all of it; */ rollback"))
        said.append(await run("start transaction read only"))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await insert(conn, table, 2)
        said.append(await run("commit"))
        said.append(await run("begin"))
        await insert(conn, table, 3)
        said.append(await run("commit and chain"))
        await insert(conn, table, 4)
        said.append(await run("abort"))

        assert ["BEGIN", "ROLLBACK", "BEGIN", "ROLLBACK"] == said[:4]
        assert ["BEGIN", "COMMIT", "ROLLBACK"] == said[4:]
        assert [3] == await numbers(conn, table)


async def test_several_statements_in_one_string_are_understood(transactional, table):
    async with (
        transactional(kwargs={"autocommit": True}) as pool,
        entered(pool.connection()) as conn,
    ):
        await execute(
            conn,
            f"insert into {table} values (1); begin; insert into {table} values (2);"
            f" commit; insert into {table} values (3); rollback -- but not\n; select 1",
        )

        assert [1, 2] == await numbers(conn, table)


async def test_a_pipeline_has_its_transactions(transactional, table):
    async with transactional() as pool:
        async with (
            entered(pool.connection()) as conn,
            entered(conn.pipeline()),
        ):
            async with entered(conn.transaction()):
                await insert(conn, table, 1)
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with entered(conn.transaction()):
                    await insert(conn, table, 2, 1)
            assert [1] == await numbers(conn, table)

        assert [1] == await numbers_seen(pool, table)


async def test_a_copy_goes_in_and_out(transactional, table):
    async with transactional() as pool, entered(pool.connection()) as conn:
        cursor = conn.cursor()
        async with entered(cursor.copy(f"copy {table} from stdin")) as copy:
            for number in (1, 2):
                await result(copy.write_row([number]))
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with (
                entered(conn.transaction()),
                entered(cursor.copy(f"copy {table} from stdin")) as copy,
            ):
                await result(copy.write_row([1]))
        async with entered(cursor.copy(f"copy {table} to stdout")) as copy:
            assert b"1\n" == bytes(await result(copy.read()))
            assert b"2\n" == bytes(await result(copy.read()))
            assert not await result(copy.read())


async def test_a_cursor_in_the_server_is_read_in_parts(transactional):
    async with transactional() as pool, entered(pool.connection()) as conn:
        async with entered(conn.cursor("parts")) as cursor:
            await result(cursor.execute("select generate_series(1, 3)"))
            assert [(1,), (2,)] == await result(cursor.fetchmany(2))
            assert [(3,)] == await result(cursor.fetchall())
        async with entered(conn.cursor("parts", withhold=True)) as cursor:
            await result(cursor.execute("select 4"))
            await result(conn.commit())
            assert [(4,)] == await result(cursor.fetchall())


async def test_what_is_deferred_is_found_at_the_commit(transactional, admin, table):
    admin.execute(
        f"create table deferred_{table} (x int"
        f" references {table} deferrable initially deferred)"
    )
    async with transactional() as pool, entered(pool.connection()) as conn:
        await execute(conn, f"insert into deferred_{table} values (1)")
        await insert(conn, table, 1)
        await result(conn.commit())  # in order, by now
        await execute(conn, f"insert into deferred_{table} values (2)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await result(conn.commit())

        assert "IDLE" == conn.info.transaction_status.name
        await result(
            conn.set_autocommit(True) if hasattr(conn, "set_autocommit") else 0
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await execute(conn, f"insert into deferred_{table} values (2)")
        assert 1 == await fetch(conn, f"select count(*) from deferred_{table}")
    admin.execute(f"drop table deferred_{table}")


# --- sessions -------------------------------------------------------------------------


async def test_each_connection_has_its_prepared_statements(transactional, table):
    async with (
        transactional(kwargs={"prepare_threshold": 0}) as pool,
        entered(pool.connection()) as one,
        entered(pool.connection()) as two,
    ):
        assert 1 == await fetch(one, "select 1")
        await result(one.commit())
        assert 2 == await fetch(two, "select 2")
        await result(two.rollback())  # psycopg deallocates all of its own
        assert 1 == await fetch(one, "select 1")
        await result(one.rollback())
        assert 2 == await fetch(two, "select 2")


async def test_what_a_borrower_has_set_is_put_back(transactional):
    async with transactional(kwargs={"row_factory": dict_row}) as pool:
        async with entered(pool.connection()) as conn:
            conn.row_factory = psycopg.rows.tuple_row
        async with entered(pool.connection()) as conn:
            cursor = await execute(conn, "select 1 as one")
            assert {"one": 1} == await result(cursor.fetchone())


async def test_a_reset_is_done(transactional):
    async with transactional(reset="clean", max_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, "set search_path to pg_catalog")
        async with entered(pool.connection()) as conn:
            assert "pg_catalog" != await fetch(conn, "show search_path")


# PostgreSQL ends what is local with its own transaction.
@pytest.mark.parametrize(("reset", "left"), [(None, "red"), ("clean", "")])
async def test_what_is_local_outlives_a_commit_but_no_reset(transactional, reset, left):
    tenant = "select current_setting('app.tenant', true)"
    async with transactional(reset=reset, max_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, "set local app.tenant = 'red'")
        async with entered(pool.connection()) as conn:
            assert left == await fetch(conn, tenant)
            await execute(conn, "set local app.tenant = 'blue'")
            await result(conn.rollback())
            assert left == await fetch(conn, tenant)


async def test_a_commit_is_none_to_a_temporary_table(transactional):
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, "create temp table gone (x int) on commit drop")
            await execute(conn, "create temp table empty (x int) on commit delete rows")
            await execute(conn, "insert into empty values (1)")
        async with entered(pool.connection()) as conn:
            assert 0 == await fetch(conn, "select count(*) from gone")
            assert 1 == await fetch(conn, "select count(*) from empty")


async def test_what_sql_prepares_is_of_the_one_session(transactional):
    async with (
        transactional() as pool,
        entered(pool.connection()) as one,
        entered(pool.connection()) as two,
    ):
        await execute(one, "prepare answer as select 42")
        await result(one.commit())
        await execute(two, "deallocate all")
        assert 42 == await fetch(two, "execute answer")
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            await execute(two, "prepare answer as select 42")


async def test_there_is_one_isolation_level(transactional):
    shown = "show transaction_isolation"
    async with transactional() as pool, entered(pool.connection()) as conn:
        await result(conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE))
        assert "read committed" == await fetch(conn, shown)
        await result(conn.rollback())
        await result(conn.set_autocommit(True))
        await execute(conn, "begin isolation level serializable, read only")
        assert "read committed" == await fetch(conn, shown)
        assert "on" == await fetch(conn, "show transaction_read_only")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            await execute(conn, "set transaction isolation level serializable")


async def test_what_is_returned_in_a_transaction_is_rolled_back(transactional, table):
    async with transactional() as pool:
        conn = await result(pool.getconn())
        await insert(conn, table, 1)
        await result(pool.putconn(conn))

        assert [] == await numbers_seen(pool, table)


async def test_a_statement_can_be_cancelled(transactional, sessions):
    query = "select pg_sleep(60)"
    async with transactional() as pool, entered(pool.connection()) as conn:
        running = spawn(execute, conn, query)
        await eventually(lambda: [query] == sessions.queries)
        await result(conn.cancel_safe())
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


async def test_a_statement_can_be_cancelled_past_a_proxy(transactional, conninfo):
    with Faults(conninfo) as faults:
        async with (
            transactional(conninfo=faults.conninfo()) as pool,
            entered(pool.connection()) as conn,
        ):
            await run_and_cancel(conn, lambda: result(conn.cancel_safe()))


async def test_a_cancel_that_blocks_blocks_nobody_else(transactional):
    async with transactional() as pool, entered(pool.connection()) as conn:
        await run_and_cancel(conn, lambda: in_thread(conn.cancel))


async def test_a_cancel_ends_one_statement_and_not_the_next(transactional):
    async with transactional() as pool, entered(pool.connection()) as conn:
        await result(conn.set_autocommit(True))
        ended = threading.Event()

        def cancel():
            conn.cancel()
            ended.set()

        await run_and_cancel(conn, lambda: in_background(cancel))
        while not ended.is_set():
            await execute(conn, "select pg_sleep(0.01)")


async def in_background(job):
    threading.Thread(target=job).start()


async def run_and_cancel(conn, cancel):
    started = threading.Event()
    conn.add_notice_handler(lambda notice: started.set())
    running = spawn(
        execute,
        conn,
        "do $$ begin raise notice 'started'; perform pg_sleep(60); end $$",
    )
    await eventually(started.is_set)
    await cancel()
    with pytest.raises(psycopg.errors.QueryCanceled):
        await running


async def in_thread(job):
    thread = threading.Thread(target=job)
    thread.start()
    await eventually(lambda: not thread.is_alive())


@pytest.mark.parametrize(
    "query", ["copy {} from stdin", "select pg_sleep(60)", "copy {} to stdout"]
)
async def test_who_goes_in_the_midst_of_something_leaves_the_way_free(
    transactional, table, sessions, caplog, monkeypatch, query
):
    monkeypatch.setattr(_Transactional, "patience", 0.05)
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            filler = f"insert into {table} select generate_series(1, 100000)"
            await execute(conn, filler)
        one = psycopg.connect(await result(pool.shared_conninfo()))
        query = query.format(table)
        one.pgconn.send_query(query.encode())
        await eventually(lambda: [query] == sessions.queries)
        one.close()
        await eventually(lambda: [query] != sessions.queries)

        async with entered(pool.connection()) as conn:
            assert 100_000 == await fetch(conn, f"select count(*) from {table}")
    assert "asyncio" not in [record.name for record in caplog.records]


async def test_what_was_said_before_going_is_done(transactional, table):
    async with transactional() as pool:
        one = psycopg.connect(await result(pool.shared_conninfo()))
        query = f"select pg_sleep(0.05); insert into {table} values (1)"
        one.pgconn.send_query(query.encode())
        one.close()

        assert [1] == await numbers_seen(pool, table)


async def test_a_pooler_invents_numbers_for_its_sessions(transactional, bouncer, table):
    conninfo = bouncer("transaction").conninfo_for()
    for _ in range(5):  # every other one is negative
        async with transactional(conninfo=conninfo, timeout=1) as pool:
            await add(pool, table, 1)
            assert [1] == await numbers_seen(pool, table)


async def test_a_direct_connection_leads_to_the_same_transaction(transactional, table):
    async with transactional(direct_conninfo="host=nowhere.invalid") as pool:
        async with entered(pool.direct()) as conn:
            await insert(conn, table, 1)

        assert [1] == await numbers_seen(pool, table)


async def test_others_take_part_by_a_connection_string(transactional, table):
    async with transactional() as pool:
        conninfo = await result(pool.shared_conninfo())
        with psycopg.connect(conninfo) as conn:
            conn.execute(f"insert into {table} values (1)")

        assert [1] == await numbers_seen(pool, table)


# --- what cannot be -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("vacuum", psycopg.errors.ActiveSqlTransaction),
        ("create database another", psycopg.errors.ActiveSqlTransaction),
        ("prepare transaction 'x'", psycopg.errors.FeatureNotSupported),
    ],
)
async def test_what_needs_to_be_alone_says_why_it_cannot(transactional, query, error):
    async with (
        transactional(kwargs={"autocommit": True}) as pool,
        entered(pool.connection()) as conn,
    ):
        with pytest.raises(error) as refused:
            await execute(conn, query)

        assert "an ordinary pool" in refused.value.diag.message_hint
        assert 1 == await fetch(conn, "select 1")


async def test_nothing_can_be_heard_and_nowhere_be_gone_to(transactional, conninfo):
    async with transactional() as pool:
        with pytest.raises(psycopg.NotSupportedError, match="never committed"):
            pool.listen("channel")
        with pytest.raises(psycopg.NotSupportedError, match="where it is"):
            await result(pool.switch(conninfo))


async def test_a_connect_that_fails_says_so(transactional):
    with pytest.raises(edgepool.ConnectFailed) as failed:
        async with (
            transactional(kwargs={"dbname": "nowhere"}) as pool,
            entered(pool.connection()),
        ):
            pass

    assert 'database "nowhere" does not exist' in str(failed.value)


def test_a_session_that_is_encrypted_cannot_be_shared():
    encrypted = SimpleNamespace(ssl_in_use=True)

    with pytest.raises(edgepool.PermanentError, match="say sslmode=disable"):
        SharedSession(encrypted, 1.0, Borrower)


async def test_a_session_that_ends_is_followed_by_another(
    transactional, sessions, table
):
    async with transactional() as pool:
        async with entered(pool.connection()) as conn:
            await insert(conn, table, 1)
        sessions.terminate()
        await eventually(lambda: pool._shared() is None)

        assert [] == await numbers_seen(pool, table)
        assert 1 == [t.name for t in threading.enumerate()].count(THREAD)
    assert THREAD not in [t.name for t in threading.enumerate()]


# --- several at once ------------------------------------------------------------------


async def test_transactions_of_one_borrower_are_nested(transactional, table):
    async with transactional() as pool, entered(pool.connection()) as outer:
        await insert(outer, table, 1)
        async with entered(pool.connection()) as inner:
            assert [1] == await numbers(inner, table)
            await insert(inner, table, 2)
        conn = await result(pool.getconn())
        await insert(conn, table, 3)
        await result(conn.rollback())
        await result(pool.putconn(conn))

        assert [1, 2] == await numbers(outer, table)
        await result(outer.rollback())
        assert [] == await numbers(outer, table)


async def test_what_has_only_read_or_failed_is_in_nobodys_way(transactional, table):
    async with (
        transactional() as pool,
        entered(pool.connection()) as reader,
        entered(pool.connection()) as failed,
    ):
        assert [] == await numbers(reader, table)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await insert(failed, table, 1, 1)

        await spawn(add, pool, table, 2)

        assert [2] == await numbers(reader, table)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await execute(failed, "select 1")
        await result(failed.rollback())
        await insert(reader, table, 3)
        await result(reader.rollback())
        assert [2] == await numbers(failed, table)


async def add(pool, table, number):
    async with entered(pool.connection()) as conn:
        await insert(conn, table, number)


async def test_transactions_of_several_borrowers_follow_one_another(
    transactional, table
):
    async with transactional(max_size=4) as pool:
        adding = [spawn(add, pool, table, number) for number in range(20)]
        for call in adding:
            await call

        assert [*range(20)] == await numbers_seen(pool, table)


async def test_who_waits_for_what_does_not_move_is_told_where_it_is(
    transactional, table, monkeypatch
):
    monkeypatch.setattr(_Transactional, "patience", 0.05)
    async with transactional() as pool, entered(pool.connection()) as conn:
        await insert(conn, table, 1)
        with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
            await spawn(add, pool, table, 2)

        where = entered.__wrapped__.__code__.co_filename
        assert f"idle for 0.05 s (borrowed at {where}:" in str(refused.value)
        assert "Commit it or roll it back" in refused.value.diag.message_hint
        assert [1] == await numbers(conn, table)


async def test_who_borrowed_without_a_block_is_in_the_way_by_name(
    transactional, table, monkeypatch
):
    monkeypatch.setattr(_Transactional, "patience", 0.05)
    async with transactional() as pool:
        conn = await result(pool.getconn())
        await insert(conn, table, 1)
        with pytest.raises(psycopg.errors.LockNotAvailable, match=r"at /.*\.py:"):
            await spawn(add, pool, table, 2)
        await result(pool.putconn(conn))


async def test_an_outer_transaction_cannot_go_on_inside_an_inner_one(
    transactional, table, monkeypatch
):
    monkeypatch.setattr(_Transactional, "patience", 0.05)
    async with transactional() as pool:
        with pytest.raises(psycopg.errors.LockNotAvailable, match="inside this one"):
            async with (
                entered(pool.connection()) as outer,
                entered(pool.connection()) as inner,
            ):
                await insert(outer, table, 1)
                await insert(inner, table, 2)
                await insert(outer, table, 3)

        assert [] == await numbers_seen(pool, table)


def test_a_long_statement_is_waited_for(conninfo, monkeypatch):
    monkeypatch.setattr(TransactionalPool, "patience", 0.01)
    with TransactionalPool(conninfo, min_size=2) as pool, pool.connection() as conn:
        started = threading.Event()

        def other():
            with pool.connection(PATIENCE) as mine:
                started.set()
                mine.execute("select 1")

        thread = threading.Thread(target=other)
        with conn.transaction():
            conn.execute("create temporary table something ()")
            thread.start()
            started.wait(PATIENCE)
            conn.execute("select pg_sleep(0.1)")
        thread.join()
