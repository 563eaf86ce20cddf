"""A closed pool leaves nothing behind; a program may end without closing it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import edgepool
from edgepool import PoolClosed, PoolTimeout
from edgepool._drivers import events, workers
from edgepool._drivers.housekeeper import Housekeeper
from support.parity import (
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    lend,
    result,
    run_blocking,
    spawn,
    waiter,
)
from support.pg import at_rest, borrow_error, size

GUARD = 5.0


async def test_nothing_is_left_of_a_closed_pool(
    colour, conninfo, sessions, monkeypatch
):
    # The process's own may be at work for a pool that another test has left open.
    monkeypatch.setattr(events, "housekeeper", Housekeeper())
    before = set(threading.enumerate())
    tasks = asyncio.all_tasks() if colour.asynchronous else set()
    async with colour.pool(conninfo, min_size=4) as pool:
        await lend(pool)
        await at_rest(pool, 4)

    assert pool.closed
    assert size(pool) == 0
    assert "closed" in repr(pool)

    await eventually(lambda: sessions.count == 0)
    if colour.asynchronous:
        assert tasks == asyncio.all_tasks()
    else:
        left = set(threading.enumerate()) - before

        assert [] == [thread.name for thread in left if "edgepool" in thread.name]


async def test_close_waits_for_borrowers(colour, conninfo, sessions):
    pool = colour.Pool(conninfo, min_size=2, open=False)
    await result(pool.open(wait=True))
    conn = await result(pool.getconn())
    closing = spawn(pool.close, timeout=20)
    # The idle one leaves at once, the borrowed one works on.
    await eventually(lambda: sessions.count == 1)

    assert await fetch(conn, "select 1") == 1

    await result(conn.rollback())

    assert not closing.done()

    await result(pool.putconn(conn))
    await closing

    assert conn.closed

    await eventually(lambda: sessions.count == 0)


async def test_close_waits_for_the_end_of_a_block(colour, conninfo, admin, sessions):
    admin.execute("drop table if exists closing_block")
    admin.execute("create table closing_block (n int)")
    pool = colour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open(wait=True))
    async with entered(pool.connection()) as conn:
        await execute(conn, "insert into closing_block values (1)")
        closing = spawn(pool.close, timeout=20)
        await eventually(lambda: pool.closed)
    await closing
    (rows,) = admin.execute("select count(*) from closing_block").fetchone()
    admin.execute("drop table closing_block")

    assert rows == 1


async def test_close_tells_who_waits(colour, conninfo):
    pool = colour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open(wait=True))
    conn = await result(pool.getconn())
    waiting = await waiter(pool)
    closing = spawn(pool.close, timeout=20)
    with pytest.raises(PoolClosed):
        await waiting
    error, took = await borrow_error(pool)

    assert isinstance(error, PoolClosed)
    assert took < GUARD

    await result(pool.putconn(conn))
    await closing


async def test_close_cuts_off_who_stays_too_long(colour, conninfo, sessions):
    pool = colour.Pool(conninfo, min_size=1, open=False)
    await result(pool.open(wait=True))
    conn = await result(pool.getconn())
    await execute(conn, "select 1")
    started = time.monotonic()
    await result(pool.close(timeout=0.2))

    assert 0.2 <= time.monotonic() - started < GUARD

    await eventually(lambda: sessions.count == 0)
    with pytest.raises(psycopg.OperationalError):
        await execute(conn, "select 1")

    # And its return, late as it is, is no error.
    await result(pool.putconn(conn))

    assert conn.closed
    assert size(pool) == 0


async def test_close_cuts_off_who_waits_for_an_answer(colour, conninfo, sessions):
    # So that the server looks up from its work now and then.
    attentive = make_conninfo(
        conninfo, options="-c client_connection_check_interval=50"
    )
    pool = colour.Pool(attentive, min_size=1, open=False)
    await result(pool.open(wait=True))

    async def ask():
        async with entered(pool.connection()) as conn:
            await execute(conn, "select pg_sleep(60)")

    asking = spawn(ask)
    await eventually(lambda: "select pg_sleep(60)" in sessions.queries)
    started = time.monotonic()
    await result(pool.close(timeout=0.1))
    with pytest.raises(psycopg.OperationalError):
        await asking

    assert time.monotonic() - started < GUARD

    await eventually(lambda: sessions.count == 0)


async def test_close_ends_though_the_network_swallows_all(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)
        conn = await result(pool.getconn())
        await execute(conn, "select 1")
        proxy.black_hole()
        await result(pool.putconn(conn))  # and its rollback hangs
        started = time.monotonic()
        await result(pool.close(timeout=0.2))

        assert time.monotonic() - started < GUARD
        assert size(pool) == 0

        proxy.restore()


async def test_what_connects_while_the_pool_closes_is_closed(
    colour, conninfo, sessions
):
    for _ in range(5):
        pool = colour.Pool(conninfo, min_size=8, open=False)
        await result(pool.open())
        await result(pool.close())

        assert size(pool) == 0

    await eventually(lambda: sessions.count == 0)


async def wait(pool):
    await result(pool.wait(0.1))


async def go_past(pool):
    async with entered(pool.direct(0.1)):
        pytest.fail("it is connected")


@pytest.mark.parametrize(
    ("kind", "least", "ask"),
    [("Pool", 1, wait), ("NullPool", 0, wait), ("Pool", 0, go_past)],
)
async def test_who_waited_in_vain_does_not_wait_for_what_hangs(
    colour, proxy, monkeypatch, caplog, kind, least, ask
):
    # Whoever did, or for its thread, would take long, and say that he has cut it off.
    monkeypatch.setattr(edgepool.Pool, "_hanging", float("inf"))
    monkeypatch.setattr(workers, "PATIENCE", 1000.0)
    proxy.black_hole()
    where = proxy.conninfo(connect_timeout=0)
    sizes = {"min_size": least, "max_size": 1}
    async with entered(getattr(colour, kind)(where, open=False, **sizes)) as pool:
        with pytest.raises(PoolTimeout):
            await ask(pool)

        assert "cut off" not in caplog.text


async def test_a_closed_pool_opens_again(colour, conninfo, sessions):
    pool = colour.Pool(conninfo, min_size=2, open=False)
    for _ in range(3):
        await result(pool.open(wait=True))
        await lend(pool)

        assert sessions.count == 2

        await result(pool.close())

        assert pool.closed

        await eventually(lambda: sessions.count == 0)


async def test_close_may_be_called_at_any_time(colour, conninfo):
    pool = colour.Pool(conninfo, min_size=1, open=False)
    await result(pool.close())
    await result(pool.close())

    assert pool.closed

    async with colour.pool(conninfo, min_size=1) as pool, borrowed(pool, 1):
        closing = [spawn(pool.close, timeout=0.2) for _ in range(3)]
        for close in closing:
            await close

    assert size(pool) == 0


# --- the end of a program -------------------------------------------------------------


# See tests/everywhere/test_exit.py for Python 3.10.
DEV_MODE = ["-X", "dev"] if sys.version_info >= (3, 11) else []


def run(program, *arguments):
    """Run a program with each warning shown; give its output."""
    # As it is imported here, installed or not.
    environment = {**os.environ, "PYTHONPATH": str(Path(edgepool.__file__).parents[1])}
    started = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, *DEV_MODE, "-W", "always", "-c"),
            textwrap.dedent(program),
            *arguments,
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


THREADS = """
    import sys, threading
    from edgepool import ConnectionPool

    pool = ConnectionPool(sys.argv[1], min_size=3, max_size=4, open=True)
    pool.wait()
    with pool.connection() as conn:
        conn.execute("select 1")
"""
GROWING = """
    import sys
    from edgepool import ConnectionPool

    pool = ConnectionPool(sys.argv[1], min_size=4, open=True)
    with pool.connection() as conn:
        conn.execute("select 1")
"""
BORROWED = """
    lent = [pool.getconn() for _ in range(4)]
"""
WAITED_FOR = """
    threading.Thread(target=pool.getconn, daemon=True).start()
    while not pool.get_stats()["requests_waiting"]:
        pass
"""
LOST = """
    pool.getconn().execute("select 1")
    del pool, conn
"""
TASKS = """
    import asyncio, sys
    from edgepool import AsyncConnectionPool

    async def main():
        global pool, lent
        pool = AsyncConnectionPool(sys.argv[1], min_size=3, max_size=4)
        await pool.open(wait=True)
        async with pool.connection() as conn:
            await conn.execute("select 1")
        {more}

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(THREADS, id="threads"),
        pytest.param(GROWING, id="threads, growing"),
        pytest.param(THREADS + BORROWED, id="threads, borrowed"),
        pytest.param(THREADS + BORROWED + WAITED_FOR, id="threads, waited for"),
        pytest.param(THREADS + LOST, id="threads, lost"),
        pytest.param(TASKS.format(more=""), id="tasks"),
        pytest.param(
            TASKS.format(more="lent = [await pool.getconn() for _ in range(4)]"),
            id="tasks, borrowed",
        ),
        pytest.param(TASKS.format(more="del pool, conn"), id="tasks, lost"),
    ],
)
def test_a_program_ends_at_once_and_in_silence(conninfo, sessions, program):
    status, printed, complaints, took = run(program, conninfo)

    assert (0, "", "") == (status, printed, complaints)
    # Starting takes its time too.
    assert took < 20

    run_blocking(eventually(lambda: sessions.count == 0))


def test_a_program_ends_at_once_though_a_connect_hangs(own_server):
    server = own_server()
    program = """
        import sys
        from edgepool import ConnectionPool

        pool = ConnectionPool(sys.argv[1], min_size=2, open=True)
        while pool.statistics().opening < 2:
            pass
    """
    server.freeze()
    status, printed, complaints, took = run(program, server.conninfo)
    server.thaw()

    assert (0, "", "") == (status, printed, complaints)
    assert took < 20


def test_a_thread_that_waits_may_be_interrupted_by_the_end(own_server):
    """Ctrl-C in the main thread, which waits for a connection: no error but that."""
    server = own_server()
    program = """
        import os, signal, sys, threading
        from edgepool import ConnectionPool

        pool = ConnectionPool(sys.argv[1], min_size=1, open=True)

        def interrupt():
            while not pool.get_stats()["requests_waiting"]:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        try:
            pool.getconn()
        except KeyboardInterrupt:
            print("interrupted")
    """
    server.freeze()
    status, printed, complaints, took = run(program, server.conninfo)
    server.thaw()

    assert (0, "interrupted\n", "") == (status, printed, complaints)
    assert took < 20
