"""What a borrower may leave behind, what is done about it, and what that sends."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from edgepool import _flows
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    waiter,
)
from support.pg import at_rest, set_autocommit

# A pool that waited for the network would wait ten seconds.
GUARD = 5.0


@pytest.fixture
def table(admin):
    """A table that outlives the test's connections."""
    admin.execute("drop table if exists manners")
    admin.execute("create table manners (n int)")
    yield "manners"
    admin.execute("drop table manners")


@pytest.fixture
def rows(admin, table):
    """Count what was committed."""
    return lambda: admin.execute(f"select count(*) from {table}").fetchone()[0]


INSERT = "insert into manners values (1)"


def sql(sent):
    """The statements among recorded messages."""
    return [
        (body if kind == "Q" else body.split(b"\0")[1]).rstrip(b"\0").decode()
        for kind, body in sent
        if kind in "QP"
    ]


# --- commit and rollback --------------------------------------------------------------


async def test_the_end_of_the_block_commits(colour, conninfo, rows):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, INSERT)

            assert rows() == 0

        assert rows() == 1


async def test_an_exception_rolls_back_and_passes(colour, conninfo, rows):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(KeyError, match="mine"):
            async with entered(pool.connection()) as conn:
                await execute(conn, INSERT)
                raise KeyError("mine")

        assert rows() == 0

        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)


async def test_a_failed_statement_rolls_back_and_passes(colour, conninfo, rows):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with entered(pool.connection()) as conn:
                await execute(conn, INSERT)
                await execute(conn, "select 1 / 0")

        assert rows() == 0

        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)


async def test_a_failed_statement_that_was_caught_leaves_a_clean_connection(
    colour, conninfo, rows
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await execute(conn, INSERT)
            with pytest.raises(psycopg.errors.DivisionByZero):
                await execute(conn, "select 1 / 0")

        assert rows() == 0

        async with entered(pool.connection()) as conn:
            assert conn.info.transaction_status == TransactionStatus.IDLE


async def test_a_commit_that_fails_is_the_borrowers_to_know(colour, conninfo, admin):
    admin.execute("drop table if exists deferred")
    admin.execute("create table deferred (n int unique deferrable initially deferred)")
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with entered(pool.connection()) as conn:
                await execute(conn, "insert into deferred values (1), (1)")
        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)

    admin.execute("drop table deferred")


async def test_what_is_on_autocommit_needs_no_commit(colour, proxy, rows):
    kwargs = {"autocommit": True}
    async with colour.pool(proxy.conninfo(), min_size=1, kwargs=kwargs) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            with pytest.raises(KeyError):
                async with entered(pool.connection()) as conn:
                    await execute(conn, INSERT)
                    raise KeyError
            async with entered(pool.connection()) as conn:
                await execute(conn, INSERT)
            await at_rest(pool, 1)

    assert [INSERT, INSERT] == sql(sent)
    assert rows() == 2


async def test_a_transaction_block_inside_is_its_own_master(colour, proxy, rows):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            async with (
                entered(pool.connection()) as conn,
                entered(conn.transaction()),
            ):
                await execute(conn, INSERT)

    assert ["BEGIN", INSERT, "COMMIT"] == sql(sent)
    assert rows() == 1


# --- what is sent ---------------------------------------------------------------------


async def test_nothing_is_sent_for_a_connection_that_was_not_used(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            async with entered(pool.connection()):
                pass
            with pytest.raises(KeyError):
                async with entered(pool.connection()):
                    raise KeyError
            await result(pool.putconn(await result(pool.getconn())))
            await at_rest(pool, 1)

    assert [] == sent


async def test_nothing_is_sent_for_a_connection_that_is_idle_again(colour, proxy, rows):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            async with entered(pool.connection()) as conn:
                await execute(conn, INSERT)
                await result(conn.commit())

    assert ["BEGIN", INSERT, "COMMIT"] == sql(sent)


async def test_no_more_than_one_commit_is_sent(colour, proxy, rows):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            async with entered(pool.connection()) as conn:
                await execute(conn, INSERT)
            await at_rest(pool, 1)

    assert ["BEGIN", INSERT, "COMMIT"] == sql(sent)


async def test_no_more_than_one_rollback_is_sent(colour, proxy, rows):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            with pytest.raises(KeyError):
                async with entered(pool.connection()) as conn:
                    await execute(conn, INSERT)
                    raise KeyError
            await at_rest(pool, 1)

    assert ["BEGIN", INSERT, "ROLLBACK"] == sql(sent)


# --- left behind in a block -----------------------------------------------------------


async def test_a_connection_closed_inside_is_replaced(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            before = pid(conn)
            await result(conn.close())
        await at_rest(pool, 1)

        assert await lend(pool) != before

        await eventually(lambda: sessions.count == 1)


async def test_a_session_ended_inside_is_replaced(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection()) as conn:
                before = pid(conn)
                await execute(conn, "select 1")
                sessions.terminate(before)
                await execute(conn, "select 1")
        await at_rest(pool, 1)

        assert await lend(pool) != before


async def test_a_session_ended_before_the_commit_is_an_error(
    colour, conninfo, sessions, rows
):
    async with colour.pool(conninfo, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError):
            async with entered(pool.connection()) as conn:
                before = pid(conn)
                await execute(conn, INSERT)
                sessions.terminate(before)
        await at_rest(pool, 1)

        assert await lend(pool) != before
        assert rows() == 0


@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
async def test_a_cursor_left_open_does_no_harm(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            before = pid(conn)
            client_side = conn.cursor()
            await result(client_side.execute("select generate_series(1, 10)"))
            await result(client_side.fetchone())
            server_side = conn.cursor("left_open")
            await result(server_side.execute("select generate_series(1, 10000)"))
            await result(server_side.fetchone())
        async with entered(pool.connection()) as conn:
            again = conn.cursor("left_open")
            await result(again.execute("select 1"))

            assert pid(conn) == before


@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
async def test_pipeline_mode_left_on_ends_the_connection(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            before = pid(conn)
            pipeline = conn.pipeline()
            await _enter(pipeline)
            await execute(conn, "select 1")
        await at_rest(pool, 1)

        assert await lend(pool) != before
        assert before not in sessions.pids


_entered = []


@pytest.fixture(autouse=True)
def leave_in_the_end():
    """Forget what was entered and never left."""
    yield
    _entered.clear()


async def _enter(manager):
    """Enter and not leave. Forgotten, a block of threads would leave by itself."""
    _entered.append(manager)
    if hasattr(manager, "__aenter__"):
        await manager.__aenter__()
    else:
        manager.__enter__()


# --- left behind by getconn and putconn -----------------------------------------------


async def test_putconn_rolls_back(colour, conninfo, rows):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await execute(conn, INSERT)
        await result(pool.putconn(conn))
        await at_rest(pool, 1)

        assert rows() == 0
        assert await lend(pool) == pid(conn)


async def test_what_putconn_rolls_back_is_clean_for_who_waits(colour, conninfo, rows):
    """Also when it goes from hand to hand."""
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        await execute(conn, INSERT)
        waiting = await waiter(pool)
        await result(pool.putconn(conn))
        served = await waiting

        assert pid(served) == pid(conn)
        assert served.info.transaction_status == TransactionStatus.IDLE

        await result(served.commit())
        await result(pool.putconn(served))

        assert rows() == 0


async def test_putconn_rolls_back_what_failed(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        with pytest.raises(psycopg.errors.DivisionByZero):
            await execute(conn, "select 1 / 0")
        await result(pool.putconn(conn))
        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)


async def test_putconn_does_not_wait_for_the_network(colour, proxy, rows):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        conn = await result(pool.getconn())
        await execute(conn, INSERT)
        proxy.black_hole()
        started = time.monotonic()
        await result(pool.putconn(conn))

        assert time.monotonic() - started < GUARD
        assert pool.get_stats()["pool_available"] == 0

        proxy.restore()
        await at_rest(pool, 1)

        assert await lend(pool) == pid(conn)
        assert rows() == 0


async def test_a_rollback_in_a_black_hole_ends_too(colour, proxy, rows, monkeypatch):
    monkeypatch.setattr(_flows, "ROUND_TRIP", 0.1)
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        await execute(conn, INSERT)
        proxy.black_hole()
        await result(pool.putconn(conn))
        await eventually(lambda: pool.get_stats().get("returns_bad") == 1)
        proxy.restore()

        assert await lend(pool) != before

    await eventually(lambda: rows() == 0)


async def _copying(conn):
    copy = conn.cursor().copy("copy (select generate_series(1, 10)) to stdout")
    await _enter(copy)


async def _copying_in(conn):
    await _enter(conn.cursor().copy("copy manners from stdin"))


async def _asking(conn):
    conn.pgconn.send_query(b"select 1")


async def _in_pipeline(conn):
    await _enter(conn.pipeline())


@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
@pytest.mark.parametrize("leave_behind", [_copying, _copying_in, _asking, _in_pipeline])
async def test_putconn_closes_what_is_in_mid_operation(
    colour, conninfo, sessions, table, leave_behind
):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        await leave_behind(conn)
        await result(pool.putconn(conn))
        await at_rest(pool, 1)

        assert conn.closed
        assert await lend(pool) != before

        await eventually(lambda: before not in sessions.pids)


async def test_a_block_that_ends_in_mid_operation_gives_the_place_back(
    colour, conninfo, sessions
):
    """psycopg's own commit at the end may complain; the pool has to cope."""
    async with colour.pool(conninfo, min_size=1) as pool:
        with suppress(psycopg.Error):
            async with entered(pool.connection()) as conn:
                before = pid(conn)
                await _asking(conn)
        await at_rest(pool, 1)

        assert await lend(pool) != before

        await eventually(lambda: before not in sessions.pids)


async def test_putconn_of_what_is_closed_gives_the_place_back(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        await result(conn.close())
        await result(pool.putconn(conn))

        assert await lend(pool) != before


async def test_putconn_of_what_the_server_ended_gives_the_place_back(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        before = pid(conn)
        sessions.terminate(before)
        await result(pool.putconn(conn))

        assert await lend(pool) != before


async def test_an_attribute_set_by_the_borrower_may_stay(colour, conninfo):
    """What it is good for: `configure` by hand. `reset` is there for the others."""
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await set_autocommit(conn, True)
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select 1") == 1
