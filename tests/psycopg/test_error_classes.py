"""What an error means: to its connection, to the siblings, to how many there may be."""

from __future__ import annotations

import gc
import logging
from contextlib import suppress

import psycopg
import pytest

from edgepool import (
    ConnectFailed,
    ConnectionPool,
    ErrorClass,
    PermanentError,
    PoolTimeout,
)
from edgepool.psycopg._error_classes import CLASSES
from support.interrupt import Interruption, at_every_line
from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    spawn,
)
from support.pg import at_rest, beside, borrow_error, error_of, load, more

AUTOCOMMIT = {"autocommit": True}

RETIRING = {ErrorClass.RETIRE, ErrorClass.SUSPECT}

# SQLSTATEs of errors after which an application often tries again.
SERIALIZATION_FAILURE, DEADLOCK, UNIQUE = "40001", "40P01", "23505"


class Oops(Exception):
    """What an application makes of an error."""


@pytest.fixture
def failing(admin):
    """A function of the server that counts its calls, and fails as it is told."""
    admin.execute("create sequence calls")
    admin.execute(
        "create function fail(code text) returns void language plpgsql as $$ begin"
        " perform nextval('calls');"
        " raise exception 'as told' using errcode = code; end $$"
    )
    yield lambda: admin.execute("select last_value from calls").fetchone()[0]
    admin.execute("drop function fail")
    admin.execute("drop sequence calls")


async def fail(pool, code, make=None):
    """Let a statement's error end a block; give it, and which connection it was."""
    mine = None

    async def run():
        nonlocal mine
        async with entered(pool.connection()) as conn:
            mine = pid(conn)
            try:
                await execute(conn, "select fail(%s)", [code])
            except psycopg.Error as error:
                if make is None:
                    raise
                raise make from error

    return await error_of(run()), mine


# --- at the end of a block ------------------------------------------------------------


@pytest.mark.parametrize(
    "kwargs", [None, AUTOCOMMIT], ids=["transaction", "autocommit"]
)
@pytest.mark.parametrize("code", [*CLASSES, SERIALIZATION_FAILURE, DEADLOCK, UNIQUE])
async def test_a_statement_runs_once_whatever_its_error_means(
    colour, conninfo, failing, code, kwargs
):
    async with colour.pool(conninfo, min_size=1, kwargs=kwargs) as pool:
        error, mine = await fail(pool, code)

        assert code == error.sqlstate
        assert 1 == failing()
        # The session goes on; the pool knows better.
        assert (CLASSES.get(code) in RETIRING) is (mine != await lend(pool))
        # It would be, had the statement not been the one to fail.
        assert pool.statistics().ceiling is None


async def test_what_ended_one_session_has_its_siblings_found_dead(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        before = sessions.pids
        error = await error_of(end_all_from_within(pool, sessions))

        assert isinstance(error, psycopg.errors.AdminShutdown)
        # Nobody borrows: they are found because of him.
        await eventually(lambda: pool.statistics().lost == 3)
        await at_rest(pool, 4)
        assert not set(before) & set(sessions.pids)


async def end_all_from_within(pool, sessions):
    async with entered(pool.connection()) as conn:
        await beside(sessions.terminate)
        await execute(conn, "select 1")


async def test_so_has_what_comes_back_dead_whatever_the_language(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        conn = await result(pool.getconn())
        await beside(sessions.terminate)
        await error_of(execute(conn, "select 1"))
        await result(pool.putconn(conn))

        await eventually(lambda: pool.statistics().lost == 3)
        await at_rest(pool, 4)


async def test_the_siblings_of_one_session_that_was_ended_live_on(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=3) as pool:
        await at_rest(pool, 3)
        async with entered(pool.connection()) as conn:
            mine = pid(conn)
        before = set(sessions.pids) - {mine}

        async def end_mine():
            async with entered(pool.connection()) as conn:
                assert mine == pid(conn)
                await execute(conn, "select pg_terminate_backend(pg_backend_pid())")

        await error_of(end_mine())
        await at_rest(pool, 3)

        assert before < set(sessions.pids)
        assert 0 == pool.statistics().lost


async def test_a_server_that_takes_no_writes_is_counted_and_kept(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        mine = await lend(pool)

        async def write():
            async with entered(pool.connection()) as conn:
                await execute(conn, "set transaction read only")
                await execute(conn, "create table never (n int)")

        error = await error_of(write())

        assert isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
        assert 1 == pool.statistics().read_only_errors
        assert mine == await lend(pool)


async def test_the_error_of_a_commit_counts_as_well(colour, conninfo, failing):
    async with colour.pool(conninfo, min_size=1) as pool:

        async def commit():
            async with entered(pool.connection()) as conn:
                await execute(conn, "create temp table t (n int)")
                await execute(
                    conn,
                    "create function pg_temp.refuse() returns trigger language plpgsql"
                    " as $$ begin perform fail('25006'); end $$",
                )
                await execute(
                    conn,
                    "create constraint trigger late after insert on t deferrable"
                    " initially deferred for each row"
                    " execute function pg_temp.refuse()",
                )
                await execute(conn, "insert into t values (1)")

        error = await error_of(commit())

        assert "25006" == error.sqlstate
        assert 1 == pool.statistics().read_only_errors


async def test_what_an_application_makes_of_an_error_counts_as_well(
    colour, conninfo, failing
):
    async with colour.pool(conninfo, min_size=1) as pool:
        error, mine = await fail(pool, "57P05", Oops())

        assert isinstance(error, Oops)
        assert mine != await lend(pool)


async def test_an_error_that_is_none_of_psycopgs_means_nothing(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, classify=lambda _: "retire") as pool:
        mine = await lend(pool)

        async def stumble():
            async with entered(pool.connection()):
                raise Oops

        assert isinstance(await error_of(stumble()), Oops)
        assert mine == await lend(pool)


async def test_a_plan_that_has_become_stale_costs_one_error(colour, conninfo, admin):
    """Each time this statement is executed on this connection it would fail again."""
    admin.execute("create table shape (a int)")
    try:
        async with colour.pool(conninfo, min_size=1, kwargs=AUTOCOMMIT) as pool:

            async def look():
                async with entered(pool.connection()) as conn:
                    cursor = conn.execute("select * from shape", prepare=True)
                    return (await result(cursor)).description

            assert 1 == len(await look())
            await look()
            admin.execute("alter table shape add b int")
            error = await error_of(look())

            assert isinstance(error, psycopg.errors.FeatureNotSupported)
            assert 2 == len(await look())
    finally:
        admin.execute("drop table shape")


# --- the user knows better ------------------------------------------------------------


async def test_the_user_may_say_what_an_error_means(colour, conninfo, failing):
    seen = []

    def classify(error):
        seen.append(error)
        return {"57P01": ErrorClass.ORDINARY, UNIQUE: ErrorClass.RETIRE}.get(
            error.sqlstate
        )

    async with colour.pool(conninfo, min_size=1, classify=classify) as pool:
        first, mine = await fail(pool, "57P01")

        assert mine == await lend(pool)

        second, _ = await fail(pool, UNIQUE)
        other = await lend(pool)

        assert mine != other

        third, _ = await fail(pool, "57P05")

        assert other != await lend(pool)
        assert [first, second, third] == seen


async def test_the_user_may_say_that_a_wrong_password_passes_by(colour, role):
    """As with a service that makes a role for who asks, and needs a moment for it."""

    def classify(error):
        return ErrorClass.ORDINARY if error.sqlstate == "28P01" else None

    conninfo = role.conninfo(password="next")
    async with colour.pool(conninfo, min_size=1, classify=classify) as pool:
        error, _ = await borrow_error(pool, 0.2)

        assert type(error) is PoolTimeout

        served = spawn(lend, pool)
        await beside(role.set_password, "next")

        assert await served


@pytest.mark.parametrize("error", [PermanentError("it is so"), KeyError("tenant")])
async def test_the_user_is_not_asked_about_what_he_has_said_is_for_good(
    colour, conninfo, error
):
    """With an error that says so, or one that is a bug."""
    asked = []

    def classify(error):
        asked.append(error)
        return ErrorClass.ORDINARY

    def where():
        raise error

    async with colour.pool(where, min_size=0, max_size=1, classify=classify) as pool:
        told, _ = await borrow_error(pool)

        assert isinstance(told, ConnectFailed)
        assert error is told.__cause__

    assert [] == asked


@pytest.mark.parametrize("answer", [None, "nonsense"])
async def test_a_bug_in_classify_is_logged_and_the_table_counts(
    colour, conninfo, failing, caplog, answer
):
    def classify(error):
        return answer or 1 / 0

    async with colour.pool(conninfo, min_size=1, classify=classify) as pool:
        error, mine = await fail(pool, "57P05")

        assert "57P05" == error.sqlstate
        assert mine != await lend(pool)

    lines = [r for r in caplog.records if r.levelno == logging.ERROR]

    assert [f"{pool.name}: error in classify"] == [r.getMessage() for r in lines]


# --- at a connect ---------------------------------------------------------------------


async def test_the_cause_has_the_sqlstate_that_psycopg_does_not_know(colour, role):
    async with colour.pool(role.conninfo(password="wrong"), min_size=1) as pool:
        error, _ = await borrow_error(pool)

    assert isinstance(error, ConnectFailed)
    assert "28P01" == error.__cause__.sqlstate


async def test_who_comes_to_a_full_server_waits_for_what_the_pool_has(colour, role):
    role.set_limit(2)
    async with (
        colour.pool(
            role.conninfo(password="right"), min_size=0, max_size=8, max_lifetime=1e9
        ) as pool,
        load(pool, 16, hold=0.002) as busy,
    ):
        await more(busy, 200)
        now = pool.statistics()

        assert [] == busy.errors
        assert 2 == now.ceiling == now.size - now.opening
        assert now.connects_refused

        role.set_limit(-1)
        # Nobody tells that there is room: it takes a pause, of 5 s at most.
        await eventually(lambda: pool.statistics().size == 8)

        assert [] == busy.errors


async def test_a_timeout_at_a_full_server_says_that_it_is_full(colour, role):
    role.set_limit(1)
    conninfo = role.conninfo(password="right")
    async with colour.pool(conninfo, min_size=1, max_size=3) as pool:
        async with borrowed(pool, 1):
            error, _ = await borrow_error(pool, 0.1)

        assert type(error) is PoolTimeout
        assert "53300" == error.__cause__.sqlstate
        assert await fetch_one(pool) == 1


async def fetch_one(pool):
    async with entered(pool.connection()) as conn:
        return await fetch(conn, "select 1")


# Between making a coroutine and its first step, too; and what was in the hands of the
# interrupted frames only.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
@pytest.mark.usefixtures("own_background")
def test_the_end_of_a_block_in_an_error_may_be_interrupted_at_every_line(conninfo):
    with ConnectionPool(conninfo, min_size=2, max_size=2) as pool:
        pool.wait()

        def scenario(interruption):
            lease = pool.connection(PATIENCE)
            conn = lease.__enter__()
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(
                    "do $$ begin raise exception using errcode = '57P01'; end $$"
                )
            del conn
            error, caught = caught.value, None
            with interruption.here(), suppress(Interruption):
                lease.__exit__(type(error), error, None)
            del lease, error
            gc.collect()

            # Both places are there, and work.
            with pool.connection(PATIENCE) as one, pool.connection(PATIENCE) as other:
                assert (1,) == one.execute("select 1").fetchone()
                assert (1,) == other.execute("select 1").fetchone()

        assert 20 < at_every_line(scenario)


async def test_null_pools_know_what_an_error_means(colour, role):
    role.set_limit(1)
    async with colour.null_pool(
        role.conninfo(), max_size=4, credentials=lambda: "right"
    ) as pool:
        async with load(pool, 4) as busy:
            await more(busy, 50)

        assert [] == busy.errors
