"""A direct connection is a session of its own, past the pool and past a pooler."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

import edgepool
from edgepool import BorrowedBeforeFork, ConnectFailed, PoolClosed, PoolTimeout
from edgepool._drivers import events, threads
from edgepool._drivers.housekeeper import Housekeeper
from support.cancel import at_every_suspension
from support.forks import Child
from support.interrupt import Interruption, at_every_line
from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    pid,
    result,
)
from support.pg import TASKS, THREADS, Sessions, application_name, at_rest, error_of

PID = "select pg_backend_pid()"


@pytest.fixture
def direct(conninfo):
    """The database's own address, under another application_name than the pool's."""
    return make_conninfo(
        conninfo, application_name=f"{application_name(conninfo)}-direct"
    )


@pytest.fixture
def directly(admin, direct):
    """What the server knows of this test's direct sessions."""
    return Sessions(admin, application_name(direct))


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="edgepool.direct")
    return lambda: [r.message for r in caplog.records if r.name == "edgepool.direct"]


async def direct_error(pool, **arguments):
    async def attempt():
        async with entered(pool.direct(**arguments)) as conn:
            return conn

    return await error_of(attempt())


# --- one connection, from the beginning of the block to its end -----------------------


async def test_it_goes_to_the_direct_address(colour, conninfo, direct, directly):
    async with colour.pool(conninfo, min_size=1, direct_conninfo=direct) as pool:
        async with entered(pool.direct()) as conn:
            assert [await fetch(conn, PID)] == directly.pids

        await eventually(lambda: directly.pids == [])


async def test_without_an_address_it_goes_where_the_pool_goes(
    colour, conninfo, sessions
):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.connection()) as pooled,
        entered(pool.direct()) as conn,
    ):
        assert {pid(pooled), pid(conn)} == set(sessions.pids)


async def test_it_takes_no_place_of_the_pool(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        borrowed(pool, 1),
        entered(pool.direct(timeout=20)) as one,
        entered(pool.direct(timeout=20)) as two,
    ):
        assert pid(one) != pid(two)
        assert pool.get_stats()["pool_size"] == 1
        assert pool.get_stats()["requests_num"] == 1


async def test_its_end_commits(colour, conninfo, admin):
    async with (
        colour.pool(conninfo, min_size=0, max_size=1) as pool,
        entered(pool.direct()) as conn,
    ):
        await execute(conn, "create table kept_by_direct (x int)")

    kept = admin.execute("drop table kept_by_direct").statusmessage

    assert kept == "DROP TABLE"


async def test_an_exception_rolls_back(colour, conninfo, admin):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with entered(pool.direct()) as conn:
                await execute(conn, "create table lost_by_direct (x int)")
                1 / 0  # noqa: B018

    found = admin.execute("select to_regclass('lost_by_direct')").fetchone()

    assert found == (None,)


async def test_it_is_closed_at_the_end(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        async with entered(pool.direct()) as conn:
            await execute(conn, "select 1")

        await eventually(lambda: sessions.count == 0)
        error = await error_of(execute(conn, "select 1"))

        assert conn.closed
        assert isinstance(error, psycopg.OperationalError)


async def test_a_closed_one_may_be_dropped(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        async with entered(pool.direct()) as conn:
            await result(conn.close())

        await eventually(lambda: sessions.count == 0)


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
async def test_what_is_dropped_ends_and_is_told_of(colour, conninfo, sessions, caplog):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        block = pool.direct()
        enter = getattr(block, "__aenter__", None) or block.__enter__
        conn = await result(enter())

        assert await fetch(conn, "select 1") == 1

        del conn, block, enter
        gc.collect()
        await eventually(lambda: sessions.count == 0)
        await eventually(lambda: "was dropped, not returned" in caplog.text)

    assert "/_direct.py" not in caplog.text  # but who has entered it


async def test_it_is_made_as_the_pools_are(colour, conninfo):
    async def configure(conn):
        await execute(conn, "set application_name to configured")
        await result(conn.commit())

    mine = type("Mine", (colour.Connection,), {})
    arguments = {
        "configure": colour.callback(configure),
        "connection_class": mine,
        "kwargs": {"autocommit": True},
    }
    async with (
        colour.pool(conninfo, min_size=0, max_size=1, **arguments) as pool,
        entered(pool.direct()) as conn,
    ):
        assert type(conn) is mine
        assert conn.autocommit
        assert await fetch(conn, "show application_name") == "configured"
        assert conn.info.get_parameters()["tcp_user_timeout"] == "30000"
        assert conn.info.transaction_status == TransactionStatus.IDLE


async def test_no_thread_is_left(colour, conninfo, monkeypatch):
    # The process's own may be at work for a pool that another test has left open.
    monkeypatch.setattr(events, "housekeeper", Housekeeper())
    before = set(threading.enumerate())
    pool = colour.Pool(conninfo, min_size=0, max_size=1)
    async with entered(pool.direct()):
        pass

    left = set(threading.enumerate()) - before

    assert [] == [thread.name for thread in left if "edgepool" in thread.name]


# --- and the pool ---------------------------------------------------------------------


async def test_the_pool_need_not_be_open(colour, conninfo, sessions):
    pool = colour.Pool(conninfo, min_size=4, open=False)
    async with entered(pool.direct()):
        assert pool.closed
        assert sessions.count == 1


async def test_a_closed_pool_refuses(colour, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=1, name="over") as pool:
        pass

    error = await direct_error(pool)

    assert isinstance(error, PoolClosed)
    assert str(error) == "the pool 'over' is already closed"


async def test_to_close_the_pool_leaves_it_to_its_borrower(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        entered(pool.direct()) as conn,
    ):
        await result(pool.close(timeout=0))

        assert await fetch(conn, "select 1") == 1


# --- what goes wrong ------------------------------------------------------------------


async def test_nobody_there_is_told_at_the_timeout(colour, conninfo):
    nowhere = "host=127.0.0.1 port=1 password=hush"
    async with colour.pool(conninfo, min_size=1, direct_conninfo=nowhere) as pool:
        error = await direct_error(pool, timeout=0.1)

        assert type(error) is PoolTimeout
        assert isinstance(error.__cause__, psycopg.OperationalError)
        assert "hush" not in f"{error} {error.__cause__}"
        assert pool.get_stats().get("connections_errors", 0) == 0


async def test_the_pools_timeout_is_the_default(colour, conninfo, proxy):
    stuck = proxy.conninfo()
    proxy.black_hole()
    async with colour.pool(
        conninfo, min_size=0, max_size=1, direct_conninfo=stuck, timeout=0.1
    ) as pool:
        error = await direct_error(pool)

    assert type(error) is PoolTimeout
    assert error.waited < 10


async def test_a_refusal_is_told_at_once(colour, role):
    wrong = role.conninfo(password="hush")
    async with colour.pool(
        role.conninfo(password="right"), min_size=1, direct_conninfo=wrong
    ) as pool:
        error = await direct_error(pool)

    assert isinstance(error, ConnectFailed)
    assert "password authentication failed" in str(error)
    assert "hush" not in str(error)


async def test_a_configure_that_leaves_something_open_is_named(colour, conninfo):
    async def leaves_open(conn):
        await execute(conn, "select 1")

    configure = colour.callback(leaves_open)
    pool = colour.Pool(conninfo, min_size=0, max_size=1, configure=configure)

    error = await direct_error(pool)

    assert isinstance(error, ConnectFailed)
    assert "left in status INTRANS by configure function" in str(error)


async def test_a_forked_child_has_none(colour, conninfo):
    pool = colour.Pool(conninfo, min_size=0, max_size=1)
    async with entered(pool.direct()) as conn:

        async def use_it():
            return type(await error_of(execute(conn, "select 1")))

        assert await Child(colour, use_it).outcome() is BorrowedBeforeFork

        assert await fetch(conn, "select 1") == 1


async def test_a_forked_child_has_its_own(colour, conninfo, direct):
    pool = colour.Pool(conninfo, min_size=0, max_size=1, direct_conninfo=direct)
    async with entered(pool.direct()) as conn:

        async def have_another():
            async with entered(pool.direct()) as mine:
                return pid(mine)

        assert await Child(colour, have_another).outcome() != pid(conn)


@pytest.mark.parametrize("colour", [TASKS], ids=["tasks"])
async def test_a_cancellation_leaves_nothing_wherever_it_comes(
    colour, conninfo, sessions
):
    async def configure(conn):
        await conn.execute("select 'configured'")
        await conn.commit()

    async def scenario(drive):
        pool = edgepool.AsyncConnectionPool(
            conninfo, min_size=0, max_size=1, configure=configure, open=False
        )

        async def act():
            async with pool.direct() as conn:
                await conn.execute("select 1")

        await drive(act())
        await eventually(lambda: sessions.count == 0)

    assert await at_every_suspension(scenario) > 0


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
@pytest.mark.filterwarnings("ignore:.*was deleted while still open")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.usefixtures("own_background")
def test_a_connect_may_be_interrupted_at_every_line(conninfo, sessions, monkeypatch):
    # What is told of a leak comes a moment later, in another test.
    monkeypatch.setattr(
        threads.ThreadDriver,
        "_collect",
        lambda driver: driver.tell(driver.core.collect),
    )

    def scenario(interruption):
        pool = edgepool.ConnectionPool(conninfo, min_size=0, max_size=1)
        block = pool.direct()
        with contextlib.suppress(Interruption), interruption.here():
            block.__enter__()
        del block
        gc.collect()
        THREADS.run(eventually(lambda: sessions.count == 0))

    assert at_every_line(scenario) > 100


# --- whether direct is direct ---------------------------------------------------------


async def test_a_pooler_that_shares_sessions_is_not_direct(
    colour, conninfo, bouncer, log
):
    pooled = make_conninfo(bouncer("transaction").conninfo_for(), password="hush")
    async with colour.pool(conninfo, min_size=1, direct_conninfo=pooled) as pool:
        error = await direct_error(pool)
        again = await direct_error(pool)

    assert isinstance(error, ConnectFailed)
    assert type(again) is type(error)
    assert "direct_conninfo leads to a pooler in transaction mode" in str(error)
    assert "hush" not in str(error)
    assert log() == []


async def test_one_that_does_not_is_warned_of_once(colour, conninfo, bouncer, log):
    pooled = bouncer("session").conninfo_for()
    async with colour.pool(
        conninfo, min_size=1, direct_conninfo=pooled, name="p"
    ) as pool:
        for _ in range(2):
            async with entered(pool.direct()) as conn:
                assert await fetch(conn, "select 1") == 1

    assert log() == [
        "p: direct_conninfo leads to something in front of the database; if that is a"
        " pooler, it has to be in session mode"
    ]


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pool_without_an_address_of_its_own_is_warned_once(
    colour, bouncer, mode, log
):
    pooled = bouncer(mode).conninfo_for()
    async with colour.pool(pooled, min_size=0, max_size=1, name="p") as pool:
        for _ in range(2):
            async with entered(pool.direct()) as conn:
                assert await fetch(conn, "select 1") == 1

    assert log() == [
        "p: there is something in front of the database, and no direct_conninfo: what"
        " needs a session may not work"
    ]


async def test_a_pooler_without_a_second_session_is_not_waited_for(
    colour, conninfo, bouncer, log
):
    pooled = bouncer("session", default_pool_size=1).conninfo_for()
    async with (
        colour.pool(conninfo, min_size=1, direct_conninfo=pooled) as pool,
        entered(pool.direct()) as conn,
    ):
        assert await fetch(conn, "select 1") == 1

    assert len(log()) == 1


async def test_it_is_looked_at_once(colour, conninfo, proxy, log):
    direct = proxy.conninfo()
    async with colour.pool(
        conninfo, min_size=0, max_size=1, direct_conninfo=direct
    ) as pool:
        for _ in range(3):
            async with entered(pool.direct()):
                pass

    assert 1 == sum("pg_backend_pid" in text for text in proxy.statements)
    assert log() == []


async def test_another_address_is_looked_at_again(colour, conninfo, bouncer):
    pooled = bouncer("transaction").conninfo_for()
    async with colour.pool(conninfo, min_size=1, direct_conninfo=conninfo) as pool:
        async with entered(pool.direct()):
            pass
        pool.direct_conninfo = pooled

        assert isinstance(await direct_error(pool), ConnectFailed)


async def test_the_pool_itself_goes_on_through_the_pooler(colour, conninfo, bouncer):
    behind = bouncer("transaction").conninfo_for()
    async with colour.pool(behind, min_size=2, direct_conninfo=conninfo) as pool:
        await at_rest(pool, 2)
        async with entered(pool.direct()) as conn:
            assert await fetch(conn, PID) == pid(conn)
        async with entered(pool.connection()) as conn:
            assert await fetch(conn, PID) != pid(conn)
