"""A network that has fallen silent, at each stage of a connection's life.

Deadlines are of the test's own where the default would take too long to wait for. The
proxy accepts connections and acknowledges what it swallows, so the kernel's timeouts
(see test_network_defaults.py) never come to help here.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import edgepool
from edgepool import PoolTimeout, _flows
from support.conservation import conserved
from support.parity import borrowed, entered, eventually, execute, fetch, result, spawn
from support.pg import application_name, at_rest, borrow_error, idle, size
from support.profile import GUARD, GUARD_OF_A_RETURN

TIMEOUT = 1.0


@contextmanager
def deaf():
    """Give the port of a machine that does not answer an attempt to connect.

    Linux drops attempts while the queue of those not accepted yet is full.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        yield port
        for one in crowd:
            one.close()


async def timed(awaitable):
    """Tell how long something takes, in seconds."""
    started = time.monotonic()
    await result(awaitable)
    return time.monotonic() - started


async def hopeless(pool):
    """See a borrow and the closing of the pool end in time."""
    error, took = await borrow_error(pool, timeout=TIMEOUT)

    assert isinstance(error, PoolTimeout)
    assert took < TIMEOUT + 0.2 + GUARD

    took = await timed(spawn(pool.close, timeout=TIMEOUT))

    assert took < TIMEOUT + 0.5 + GUARD
    assert size(pool) == 0


# --- connecting -----------------------------------------------------------------------


async def test_nobody_answers_a_connect(colour, conninfo):
    with deaf() as port:
        where = make_conninfo(conninfo, port=port)
        pool = colour.Pool(where, min_size=1, max_size=2, open=False)
        await result(pool.open())
        await hopeless(pool)


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
async def test_nobody_answers_a_greeting(colour, proxy, sslmode):
    proxy.black_hole()
    pool = colour.Pool(proxy.conninfo(sslmode=sslmode), min_size=1, open=False)
    await result(pool.open())
    await hopeless(pool)


async def test_nobody_answers_a_password(colour, guarded, role, proxy):
    proxy.target = ("127.0.0.1", guarded.port)
    proxy.black_hole_at("p")
    where = proxy.conninfo(user=role.name, password="right")
    pool = colour.Pool(where, min_size=1, open=False)
    await result(pool.open())
    await hopeless(pool)

    assert "p" in [kind for kind, _ in proxy.messages]


def configured(colour, proxy):
    """Make a pool that sends something when it configures a connection."""

    async def configure(conn):
        await execute(conn, "select 'configured'")
        await result(conn.rollback())

    proxy.black_hole_at("Q", b"BEGIN")
    where = proxy.conninfo(connect_timeout=2)
    configure = colour.callback(configure)
    return colour.Pool(where, min_size=1, max_size=1, configure=configure, open=False)


async def test_nobody_answers_configure(colour, proxy):
    pool = configured(colour, proxy)
    await result(pool.open())
    await hopeless(pool)


async def test_a_connect_that_hangs_gives_up_its_place(colour, proxy, server, conninfo):
    proxy.black_hole()
    where = proxy.conninfo(connect_timeout=2)
    async with colour.pool(where, min_size=1, max_size=1) as pool:
        await eventually(lambda: proxy.connects == 1)
        proxy.lose()
        async with entered(pool.connection(timeout=20)) as conn:
            assert await fetch(conn, "select 1") == 1

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


async def test_a_configure_that_hangs_gives_up_its_place(
    colour, proxy, server, conninfo, monkeypatch
):
    monkeypatch.setattr(_flows, "CONFIGURE", 0.5)
    pool = configured(colour, proxy)
    async with entered(pool):
        await eventually(lambda: not proxy.open.is_set())
        proxy.lose()
        async with entered(pool.connection(timeout=20)) as conn:
            assert await fetch(conn, "select 1") == 1

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


async def test_close_does_not_wait_for_a_connect_that_hangs(colour, proxy):
    proxy.black_hole()
    pool = colour.Pool(proxy.conninfo(), min_size=2, open=False)
    await result(pool.open())
    await eventually(lambda: proxy.connects == 2)
    took = await timed(spawn(pool.close, timeout=15.0))

    assert took < 1.5 + GUARD
    assert size(pool) == 0


# --- idle, and borrowed ---------------------------------------------------------------


async def test_nobody_answers_a_check(colour, proxy, server, conninfo, monkeypatch):
    check = colour.Pool.check_connection
    async with colour.pool(
        proxy.conninfo(connect_timeout=2), min_size=2, check=check
    ) as pool:
        await at_rest(pool, 2)
        proxy.black_hole()
        error, took = await borrow_error(pool, timeout=TIMEOUT)

        assert isinstance(error, PoolTimeout)
        assert took < TIMEOUT + 0.2 + GUARD

        # Nor is all the time spent on the next that says nothing.
        monkeypatch.setattr(_flows, "ROUND_TRIP", 0.3)
        proxy.lose()
        async with entered(pool.connection(timeout=20)) as conn:
            assert await fetch(conn, "select 1") == 1

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


async def test_nobody_answers_a_check_in_the_background(
    colour, proxy, server, conninfo, monkeypatch
):
    monkeypatch.setattr(_flows, "ROUND_TRIP", 0.3)
    async with colour.pool(
        proxy.conninfo(connect_timeout=2), min_size=2, check_after=0.1
    ) as pool:
        await at_rest(pool, 2)
        proxy.lose()
        # They are replaced, though nobody asks for one.
        await eventually(lambda: proxy.connects >= 4 and idle(pool) == 2)
        async with entered(pool.connection(timeout=TIMEOUT)) as conn:
            assert await fetch(conn, "select 1") == 1

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


# --- returning ------------------------------------------------------------------------


async def nothing(conn):
    await execute(conn, "select 'reset'")
    await result(conn.rollback())


@pytest.mark.parametrize("reset", ["rollback", "clean", "callback"])
async def test_nobody_answers_a_return(
    colour, proxy, server, conninfo, monkeypatch, reset
):
    monkeypatch.setattr(_flows, "ROUND_TRIP", 0.3)
    resets = {"rollback": None, "clean": "clean", "callback": colour.callback(nothing)}
    async with colour.pool(
        proxy.conninfo(connect_timeout=2), min_size=1, max_size=1, reset=resets[reset]
    ) as pool:
        conn = await result(pool.getconn())
        if reset == "rollback":
            await execute(conn, "select 1")
        proxy.black_hole()
        took = await timed(pool.putconn(conn))

        assert took < 0.1 + GUARD_OF_A_RETURN

        proxy.lose()
        async with entered(pool.connection(timeout=20)) as conn:
            assert await fetch(conn, "select 1") == 1
        assert proxy.connects >= 2

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


async def test_nobody_answers_a_request_to_cancel(
    colour, proxy, server, conninfo, sessions
):
    async with colour.pool(
        proxy.conninfo(connect_timeout=2), min_size=1, max_size=1
    ) as pool:
        conn = await result(pool.getconn())
        conn.pgconn.send_query(b"select pg_sleep(60)")
        await eventually(lambda: sessions.states["active"])
        proxy.black_hole()
        took = await timed(pool.putconn(conn))

        assert took < 0.1 + GUARD_OF_A_RETURN

        await eventually(lambda: proxy.connects >= 2)  # the request
        proxy.lose()
        async with entered(pool.connection(timeout=20)) as conn:
            assert await fetch(conn, "select 1") == 1

        proxy.restore()
        await conserved(pool, server, application_name(conninfo))


@pytest.mark.parametrize("lent", [0, 2], ids=["idle", "borrowed"])
async def test_nobody_answers_when_the_pool_is_closed(colour, proxy, lent):
    pool = colour.Pool(proxy.conninfo(), min_size=2, open=False)
    await result(pool.open(wait=True))
    busy = [await result(pool.getconn()) for _ in range(lent)]
    for conn in busy:
        conn.pgconn.send_query(b"select pg_sleep(60)")
    proxy.black_hole()
    took = await timed(spawn(pool.close, timeout=TIMEOUT))

    assert took < TIMEOUT + 0.5 + GUARD
    assert size(pool) == 0


# --- other ills of a network ----------------------------------------------------------


async def test_every_connection_is_reset_by_the_network(
    colour, proxy, server, conninfo
):
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        await at_rest(pool, 3)
        async with borrowed(pool, 1) as (conn,):
            proxy.reset()
            with pytest.raises(psycopg.OperationalError):
                await execute(conn, "select 1")
            await eventually(lambda: proxy.links == 0)
            proxy.restore()

        async with entered(pool.connection(timeout=TIMEOUT + GUARD)) as conn:
            assert await fetch(conn, "select 1") == 1

        await conserved(pool, server, application_name(conninfo))


async def test_a_slow_network_delays_and_breaks_nothing(
    colour, proxy, server, conninfo
):
    async with colour.pool(proxy.conninfo(), min_size=2, reset="clean") as pool:
        await at_rest(pool, 2)
        proxy.rate = 20_000
        for number in range(5):
            async with entered(pool.connection(timeout=20)) as conn:
                text = await fetch(conn, "select repeat('x', 1000) || %s", [number])

                assert text == "x" * 1000 + str(number)

        proxy.rate = float("inf")
        await conserved(pool, server, application_name(conninfo))


# --- the end of a program -------------------------------------------------------------

THREADS = """
    import logging, sys, threading, time
    from edgepool import ConnectionPool

    logging.disable(logging.WARNING)
    configuring = threading.Event()
    stage = sys.argv[2]

    def configure(conn):
        if stage == "configure":
            configuring.set()
            conn.execute("select 1")
            conn.rollback()

    pool = ConnectionPool(
        sys.argv[1], min_size=1, max_size=2, open=True, configure=configure,
        check_after=0.2, reset=None if stage == "check" else "clean",
    )
    if stage == "connect":
        while not pool.statistics().opening:
            pass
    elif stage == "configure":
        configuring.wait()
    else:
        pool.wait()
        conn = pool.getconn()
        if stage == "cancel":
            conn.pgconn.send_query(b"select pg_sleep(60)")
        print("ready", flush=True)
        sys.stdin.readline()
        pool.putconn(conn)
        while pool.statistics().idle:  # the check is not due yet
            pass
    print(time.time(), flush=True)
"""
TASKS = """
    import asyncio, logging, sys, time
    from edgepool import AsyncConnectionPool

    logging.disable(logging.WARNING)
    configuring = asyncio.Event()
    stage = sys.argv[2]

    async def configure(conn):
        if stage == "configure":
            configuring.set()
            await conn.execute("select 1")
            await conn.rollback()

    async def main():
        pool = AsyncConnectionPool(
            sys.argv[1], min_size=1, max_size=2, configure=configure,
            check_after=0.2, reset=None if stage == "check" else "clean",
        )
        await pool.open()
        if stage == "connect":
            while not pool.statistics().opening:
                await asyncio.sleep(0)
        elif stage == "configure":
            await configuring.wait()
        else:
            await pool.wait()
            conn = await pool.getconn()
            if stage == "cancel":
                conn.pgconn.send_query(b"select pg_sleep(60)")
            print("ready", flush=True)
            sys.stdin.readline()
            await pool.putconn(conn)
            while pool.statistics().idle:  # the check is not due yet
                await asyncio.sleep(0)
            for _ in range(10):  # let it begin
                await asyncio.sleep(0)
        print(time.time(), flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("stage", ["connect", "configure", "check", "reset", "cancel"])
async def test_a_program_ends_though_nobody_answers(colour, proxy, stage):
    if stage == "connect":
        proxy.black_hole()
    elif stage == "configure":
        proxy.black_hole_at("Q", b"BEGIN")
    program = subprocess.Popen(  # noqa: ASYNC220, it is waited for in a thread
        [
            *(sys.executable, "-c"),
            textwrap.dedent(TASKS if colour.asynchronous else THREADS),
            *(proxy.conninfo(), stage),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(edgepool.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end():
        with program:
            if stage in ("check", "reset", "cancel"):
                assert program.stdout.readline() == "ready\n"

                proxy.black_hole()
            printed, complaints = program.communicate("go\n", timeout=60)
            return float(printed.split()[-1]), time.time(), complaints

    if colour.asynchronous:
        said, ended, complaints = await asyncio.to_thread(end)
    else:
        said, ended, complaints = end()

    assert complaints == ""
    assert ended - said < 1.0 + GUARD
