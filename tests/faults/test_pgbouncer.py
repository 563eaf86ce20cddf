"""Behind a real PgBouncer, in session and in transaction mode.

How it is found out that there is one: tests/psycopg/test_pooler.py.
"""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from edgepool import PoolTimeout
from edgepool.psycopg._cancel import CANCEL_WITHIN
from support.conservation import conserved
from support.parity import (
    FLAVOURS,
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    result,
    spawn,
    waiter,
)
from support.pg import (
    TASKS,
    application_name,
    at_rest,
    beside,
    borrow_error,
    error_of,
    load,
    more,
    past_grace,
)
from support.pgbouncer import can_prepare
from support.profile import GUARD

MODES = ("session", "transaction")


@pytest.fixture(params=MODES)
def pooler(request, bouncer):
    """A pooler before the shared server, in one mode and then the other."""
    return bouncer(request.param)


@pytest.fixture
def behind(pooler, conninfo):
    """Connect through the pooler, under the test's own application_name."""
    return pooler.conninfo_for(application_name=application_name(conninfo))


# --- the wrong answer -----------------------------------------------------------------


BALANCE = "select 'balance of A: ' || %s::text"
DELETED = "select 'deleted by B: ' || %s::text"


async def balance_of_a(flavour, conninfo):
    """Have two borrowers prepare a statement each, and one of them ask once more."""
    kwargs = {"prepare_threshold": 0}
    async with flavour.pool(conninfo, min_size=2, kwargs=kwargs) as pool:
        await result(pool.wait())
        async with borrowed(pool, 2) as (a, b):
            # Both at the same time, so that each has a session at the server.
            await fetch(a, BALANCE, ["1"])
            await fetch(b, DELETED, ["1"])
            await result(a.commit())
            await result(b.commit())
            # The session that was used last is taken first, and that was B's.
            answer = await fetch(a, BALANCE, ["1"])
            await result(a.rollback())
    return answer


ANSWERS = {"psycopg_pool": "deleted by B: 1", "edgepool": "balance of A: 1"}


@pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
def test_whose_answer_one_gets(flavour, bouncer):
    conninfo = bouncer("transaction", default_pool_size=2).conninfo_for()

    answer = flavour.run(balance_of_a(flavour, conninfo))

    assert ANSWERS[flavour.library] == answer


async def many(pool, rounds):
    """Let some workers run statements that the driver would prepare."""
    errors = []

    async def work(number):
        for n in range(rounds):
            try:
                async with entered(pool.connection()) as conn:
                    query = f"select %s::int + {(number + n) % 5}"
                    got = await fetch(conn, query, [n])
                    assert got == n + (number + n) % 5
            except Exception as error:
                errors.append(error)

    for worker in [spawn(work, number) for number in range(8)]:
        await worker
    return errors


# What PgBouncer is to do about prepared statements; not all versions can.
TRACKS = sorted({False, can_prepare()})


@pytest.mark.parametrize("prepares", TRACKS)
@pytest.mark.parametrize("mode", MODES)
async def test_nobody_gets_an_error_or_another_ones_answer(
    colour, bouncer, mode, prepares
):
    pooler = bouncer(mode, prepares=prepares)
    async with colour.pool(pooler.conninfo_for(), min_size=4) as pool:
        await result(pool.wait())

        assert await many(pool, 40) == []

        await conserved(pool, pooler)


@pytest.mark.parametrize("prepares", TRACKS)
async def test_they_are_prepared_where_the_pooler_keeps_track(
    colour, bouncer, prepares
):
    pooler = bouncer("transaction", prepares=prepares)
    async with colour.pool(pooler.conninfo_for(), min_size=2) as pool:
        await result(pool.wait())
        async with entered(pool.connection()) as conn:
            for _ in range(10):
                await fetch(conn, "select %s::int", [1])
            counted = "select count(*) from pg_prepared_statements where name <> ''"
            prepared = await fetch(conn, counted)

        assert (prepared > 0, pool.statistics().pooler) == (prepares, "transaction")

        await conserved(pool, pooler)


# --- what is left by one borrower -----------------------------------------------------


async def test_what_was_not_committed_is_rolled_back(colour, behind, admin, pooler):
    admin.execute("drop table if exists pooled")
    admin.execute("create table pooled (n int)")
    async with colour.pool(behind, min_size=2) as pool:
        conn = await result(pool.getconn())
        await execute(conn, "insert into pooled values (1)")
        await result(pool.putconn(conn))
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select count(*) from pooled") == 0

        await conserved(pool, pooler)
    admin.execute("drop table pooled")


async def test_a_failed_transaction_is_rolled_back(colour, behind, pooler):
    async with colour.pool(behind, min_size=2) as pool:
        conn = await result(pool.getconn())
        with pytest.raises(psycopg.errors.DivisionByZero):
            await execute(conn, "select 1 / 0")
        await result(pool.putconn(conn))
        await at_rest(pool, 2)

        assert pool.statistics().bad_returns == 0

        await conserved(pool, pooler)


async def test_clean_cleans_a_session_that_is_ones_own(colour, bouncer):
    pooler = bouncer("session")
    async with colour.pool(pooler.conninfo_for(), min_size=2, reset="clean") as pool:
        await at_rest(pool, 2)
        async with borrowed(pool, 2) as conns:
            for conn in conns:
                await execute(conn, "set statement_timeout = '1h'")
        await at_rest(pool, 2)
        async with borrowed(pool, 2) as conns:
            for conn in conns:
                assert await fetch(conn, "show statement_timeout") == "0"

        await conserved(pool, pooler)


KEPT = ("application_name", "client_encoding", "timezone")


async def test_clean_leaves_what_the_pooler_keeps_for_its_client(
    colour, bouncer, sessions, monkeypatch
):
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    pooler = bouncer("session")
    name = sessions.name
    async with colour.pool(
        pooler.conninfo_for(application_name=name),
        min_size=1,
        kwargs={"client_encoding": "latin1"},
        reset="clean",
    ) as pool:
        for _ in range(3):
            async with entered(pool.connection()) as conn:
                shown = [await fetch(conn, f"show {what}") for what in KEPT]
                await execute(conn, "set application_name = 'mine'")
                await execute(conn, "set client_encoding = utf8")
                await execute(conn, "set timezone = 'America/Lima'")
            await at_rest(pool, 1)

            assert [name, "LATIN1", "Asia/Tokyo"] == shown
            assert 1 == sessions.count

        await conserved(pool, pooler)


async def test_clean_sends_nothing_where_sessions_are_shared(colour, bouncer):
    pooler = bouncer("transaction", default_pool_size=1)
    behind = pooler.conninfo_for()
    async with colour.pool(behind, min_size=2, reset="clean") as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            await execute(conn, "set statement_timeout = '1h'")
        await at_rest(pool, 2)
        with psycopg.connect(behind) as another:
            # Nobody's to clean up: it is what the documentation warns of.
            shown = another.execute("show statement_timeout").fetchone()

        assert shown == ("1h",)

        await conserved(pool, pooler)


async def test_clean_is_sent_as_long_as_nobody_knows(colour, bouncer):
    pooler = bouncer("transaction")
    async with colour.pool(pooler.conninfo_for(), min_size=1, reset="clean") as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, "set statement_timeout = '1h'")
        await at_rest(pool, 1)
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "show statement_timeout") == "0"

        assert pool.statistics().pooler == "undetermined"

        await conserved(pool, pooler)


# --- in the midst of something --------------------------------------------------------


SLEEP = "select pg_sleep(60)"


async def test_a_query_under_way_is_cancelled_at_the_return(
    colour, behind, sessions, pooler
):
    async with colour.pool(behind, min_size=1) as pool:
        conn = await result(pool.getconn())
        conn.pgconn.send_query(SLEEP.encode())
        conn.pgconn.flush()
        await eventually(lambda: SLEEP in sessions.queries)
        await result(pool.putconn(conn))
        await eventually(
            lambda: not sessions.states["active"], within=CANCEL_WITHIN + GUARD
        )

        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select 1") == 1

        await conserved(pool, pooler)


async def test_a_query_under_way_is_cancelled_by_close(
    colour, behind, sessions, pooler
):
    async with colour.pool(behind, min_size=1) as pool:
        conn = await result(pool.getconn())
        asked = spawn(execute, conn, SLEEP)
        await eventually(lambda: SLEEP in sessions.queries)
        await result(pool.close(timeout=0.05))

        assert isinstance(await error_of(asked), psycopg.OperationalError)

        await eventually(
            lambda: not sessions.states["active"], within=CANCEL_WITHIN + GUARD
        )

        await result(pool.open())
        await conserved(pool, pooler)


async def test_a_query_under_way_is_cancelled_with_its_task(behind, sessions, pooler):
    async with TASKS.pool(behind, min_size=1) as pool:

        async def work():
            async with pool.connection() as conn:
                await conn.execute(SLEEP)

        task = asyncio.create_task(work())
        await eventually(lambda: SLEEP in sessions.queries)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(
            lambda: not sessions.states["active"], within=CANCEL_WITHIN + GUARD
        )

        async with pool.connection() as conn:
            assert await fetch(conn, "select 1") == 1

        await conserved(pool, pooler)


async def test_a_pooler_that_is_silent_does_not_hold_up_the_cut(
    colour, behind, pooler, sessions
):
    async with colour.pool(behind, min_size=1) as pool:
        conn = await result(pool.getconn())
        asked = spawn(execute, conn, SLEEP)
        await eventually(lambda: SLEEP in sessions.queries)
        await beside(pooler.freeze)
        started = time.monotonic()
        await result(pool.close(timeout=0.05))

        assert isinstance(await error_of(asked), psycopg.OperationalError)
        # The request to cancel is given up after a second, twice at the most.
        assert time.monotonic() - started < 0.05 + 2 * CANCEL_WITHIN + 0.2 + GUARD

        await beside(pooler.thaw)
        await result(pool.open())
        await conserved(pool, pooler)


# --- mishaps --------------------------------------------------------------------------


async def test_a_session_that_ends_while_idle_costs_its_borrower_nothing(
    colour, behind, pooler, sessions
):
    async with colour.pool(behind, min_size=2) as pool:
        await at_rest(pool, 2)
        ended = set(sessions.pids)
        await beside(sessions.terminate)
        # In session mode the pooler ends its clients as well, and that is seen.
        await eventually(lambda: not pooler.servers)
        await past_grace()
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select pg_backend_pid()") not in ended

        await conserved(pool, pooler)


async def test_a_session_that_ends_in_a_transaction_is_replaced(
    colour, behind, sessions, pooler
):
    async with colour.pool(behind, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection()) as conn:
                mine = await fetch(conn, "select pg_backend_pid()")
                await beside(sessions.terminate, mine)
                await fetch(conn, "select 1")
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select pg_backend_pid()") != mine

        await conserved(pool, pooler)


async def test_a_pooler_that_is_restarted_is_not_noticed(colour, behind, pooler):
    async with colour.pool(behind, min_size=3) as pool:
        await at_rest(pool, 3)
        await beside(pooler.stop)
        await beside(pooler.start)
        async with borrowed(pool, 3) as conns:
            for conn in conns:
                assert await fetch(conn, "select 1") == 1

        await conserved(pool, pooler)


async def test_who_comes_while_it_is_away_is_served_when_it_is_back(
    colour, behind, pooler
):
    async with colour.pool(behind, min_size=2, timeout=30) as pool:
        await at_rest(pool, 2)
        await beside(pooler.stop)
        waiting = await waiter(pool)
        await beside(pooler.start)
        conn = await waiting

        assert await fetch(conn, "select 1") == 1

        await result(pool.putconn(conn))
        await conserved(pool, pooler)


async def test_one_that_falls_silent_costs_the_timeout_at_most(colour, behind, pooler):
    async with colour.pool(behind, min_size=0, max_size=2) as pool:
        await beside(pooler.freeze)
        error, took = await borrow_error(pool, timeout=0.2)
        await beside(pooler.thaw)

        assert isinstance(error, psycopg.OperationalError)
        assert took < 0.2 + 0.2 + GUARD

        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select 1") == 1

        await conserved(pool, pooler)


async def test_a_load_survives_kills(colour, behind, pooler, sessions):
    size, ended = 4, 0
    async with colour.pool(behind, min_size=size) as pool:
        async with load(pool, 8, "select 1") as busy:
            for _ in range(5):
                await more(busy, 50)
                ending = await beside(lambda: sessions.pids)
                await beside(sessions.terminate, *ending)
                ended += len(ending)
            await more(busy, 200)
            await beside(pooler.stop)
            await beside(pooler.start)
            await more(busy, 200)

        # One who was in mid-query is told so, in one way or another; and nobody who
        # came for a connection.
        assert [] == [e for e in busy.errors if not isinstance(e, psycopg.Error)]
        assert [] == [e for e in busy.errors if isinstance(e, PoolTimeout)]
        assert len(busy.errors) <= ended + size

        await conserved(pool, pooler)


async def test_sessions_are_bounded_by_the_pooler(colour, bouncer, sessions):
    pooler = bouncer("transaction", default_pool_size=3)
    behind = pooler.conninfo_for(application_name=sessions.name)
    peak = 0
    async with colour.pool(behind, min_size=8) as pool:
        async with (
            colour.null_pool(behind) as null,
            load(pool, 8, "select pg_sleep(0.001)") as busy,
            load(null, 8, "select pg_sleep(0.001)") as fleeting,
        ):
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                peak = max(peak, await beside(lambda: sessions.count))
            await more(busy, 10)
            await more(fleeting, 10)

        assert (peak, busy.errors, fleeting.errors) == (3, [], [])

        await conserved(pool, pooler)
