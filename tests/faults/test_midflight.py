"""A query that is still under way when its connection comes back, or is cut off."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from functools import partial

import anyio
import psycopg
import pytest

from edgepool import AsyncConnectionPool, ConnectionPool, _flows
from edgepool.psycopg import _cancel
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
    run_blocking,
    spawn,
)
from support.pg import application_name, borrow_error, is_async, size
from support.profile import GUARD, GUARD_OF_A_RETURN


async def ended_at_once(sessions, within=1.0):
    """See that no session is at work a second from now."""
    await eventually(lambda: not sessions.states["active"], within=within + GUARD)


# --- what comes back in the midst of something ----------------------------------------


async def query(conn):
    conn.pgconn.send_query(b"select pg_sleep(60)")


async def extended_query(conn):
    conn.pgconn.send_query_params(b"select pg_sleep($1)", [b"60"])


async def copy_out(conn):
    conn.pgconn.send_query(b"copy (select pg_sleep(60)) to stdout")


async def copy_out_of_much(conn):
    conn.pgconn.send_query(b"copy (select generate_series(1, 10000000)) to stdout")


async def copy_in(conn):
    await execute(conn, "create temporary table target (n int)")
    conn.pgconn.send_query(b"copy target from stdin")


async def server_side_cursor(conn):
    await execute(conn, "begin")
    await execute(conn, "declare slow cursor for select pg_sleep(60)")
    conn.pgconn.send_query(b"fetch 1 from slow")


async def pipeline(conn):
    conn.pgconn.enter_pipeline_mode()
    await extended_query(conn)
    conn.pgconn.pipeline_sync()


async def stream(conn):
    # A first row that is too long to be kept back by the server.
    slow = "select repeat('x', 100000), pg_sleep(60 * n) from generate_series(0, 1) n"
    conn.leftover = rows = conn.cursor().stream(slow)
    if is_async(conn):
        await rows.__anext__()
    else:
        next(rows)


WAYS = (
    query,
    extended_query,
    copy_out,
    copy_out_of_much,
    copy_in,
    server_side_cursor,
    pipeline,
    stream,
)


@pytest.mark.parametrize("begin", WAYS)
async def test_what_comes_back_in_the_midst_of_work_is_ended_on_the_server(
    colour, conninfo, server, sessions, begin
):
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        conn = await result(pool.getconn())
        first = pid(conn)
        await begin(conn)
        started = time.monotonic()
        await result(pool.putconn(conn))

        assert time.monotonic() - started < 0.1 + GUARD_OF_A_RETURN

        # Nobody gets it, and its place is free as soon as the server has let go.
        async with entered(pool.connection(timeout=PATIENCE)) as other:
            assert await fetch(other, "select 'mine'") == "mine"
            assert pid(other) != first
        assert time.monotonic() - started < 1.0 + GUARD

        await eventually(lambda: first not in sessions.pids, within=1.0 + GUARD)
        assert conn.closed
        await conserved(pool, server, application_name(conninfo))


async def test_a_block_that_leaves_work_behind_is_ended_on_the_server(
    colour, conninfo, server, sessions
):
    async with colour.pool(conninfo, min_size=2) as pool:
        with pytest.raises(RuntimeError, match="lost interest"):
            async with entered(pool.connection()) as conn:
                await query(conn)
                raise RuntimeError("lost interest")
        await ended_at_once(sessions)
        await conserved(pool, server, application_name(conninfo))


async def test_a_stream_that_is_left_and_let_go_of_holds_up_nobody(
    colour, conninfo, server
):
    many = "select generate_series(1, 1000000)"
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        async with entered(pool.connection()) as conn:
            rows = conn.cursor().stream(many)
            if colour.asynchronous:
                async for _ in rows:
                    break
            else:
                for _ in rows:
                    break
            del rows

        await conserved(pool, server, application_name(conninfo))


async def test_the_place_is_kept_until_the_server_was_told(
    colour, conninfo, server, monkeypatch
):
    gate = threading.Event()
    told = []

    def waits(*request):
        told.append(request)
        gate.wait(PATIENCE)
        _cancel.send(*request)

    async def waits_async(*request):
        told.append(request)
        while not gate.is_set():
            await asyncio.sleep(0.001)
        await _cancel.send_async(*request)

    monkeypatch.setattr("edgepool.psycopg._adapter.send", waits)
    monkeypatch.setattr("edgepool.psycopg._async_adapter.send_async", waits_async)
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        conn = await result(pool.getconn())
        await query(conn)
        await result(pool.putconn(conn))
        await eventually(lambda: told)
        assert (1, 1) == (pool.statistics().size, pool.statistics().closing)
        assert not conn.closed
        error, _ = await borrow_error(pool, timeout=0.05)
        assert isinstance(error, psycopg.OperationalError)

        gate.set()
        await conserved(pool, server, application_name(conninfo))


async def test_an_old_libpq_is_not_waited_for(
    colour, conninfo, server, sessions, monkeypatch
):
    monkeypatch.setattr(_cancel.capabilities, "has_cancel_safe", lambda: False)
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        conn = await result(pool.getconn())
        await query(conn)
        await eventually(lambda: sessions.states["active"])
        await result(pool.putconn(conn))
        await ended_at_once(sessions)
        await conserved(pool, server, application_name(conninfo))


async def sleeping_while(slow, conn):
    await execute(conn, "select pg_sleep(60)" if slow else "select 1")
    await result(conn.rollback())


async def test_a_check_that_is_cut_off_is_ended_on_the_server(
    colour, conninfo, server, sessions
):
    slow = [True]
    check = colour.callback(partial(sleeping_while, slow))
    async with colour.pool(conninfo, min_size=1, max_size=1, check=check) as pool:
        error, _ = await borrow_error(pool, timeout=0.3)
        assert isinstance(error, psycopg.OperationalError)
        await ended_at_once(sessions)
        slow.clear()
        await conserved(pool, server, application_name(conninfo))


@pytest.mark.parametrize(
    ("step", "limit"), [("reset", "ROUND_TRIP"), ("configure", "CONFIGURE")]
)
async def test_a_step_that_is_cut_off_is_ended_on_the_server(
    colour, conninfo, server, sessions, monkeypatch, step, limit
):
    monkeypatch.setattr(_flows, limit, 0.3)
    slow = [True]
    arguments = {step: colour.callback(partial(sleeping_while, slow))}
    async with colour.pool(conninfo, min_size=1, max_size=1, **arguments) as pool:
        if step == "reset":
            async with borrowed(pool, 1):
                pass
        await eventually(lambda: sessions.states["active"])
        slow.clear()
        await ended_at_once(sessions)
        await conserved(pool, server, application_name(conninfo))


# --- closing the pool -----------------------------------------------------------------


async def test_who_is_cut_off_by_close_is_ended_on_the_server(
    colour, conninfo, sessions
):
    pool = colour.Pool(conninfo, min_size=3, open=False)
    await result(pool.open(wait=True))

    async def ask():
        async with entered(pool.connection()) as conn:
            await execute(conn, "select pg_sleep(60)")

    asking = [spawn(ask) for _ in range(3)]
    await eventually(lambda: sessions.states["active"] == 3)
    started = time.monotonic()
    await result(pool.close(timeout=0.2))

    assert time.monotonic() - started < 0.2 + 0.5 + GUARD

    await eventually(lambda: sessions.count == 0, within=1.0 + GUARD)
    for one in asking:
        with pytest.raises(psycopg.OperationalError):
            await one
    assert size(pool) == 0


async def test_a_reset_under_way_when_the_pool_closes_is_ended_on_the_server(
    colour, conninfo, sessions
):
    async def reset(conn):
        await execute(conn, "select pg_sleep(60)")

    pool = colour.Pool(conninfo, min_size=1, reset=colour.callback(reset), open=False)
    await result(pool.open(wait=True))
    async with borrowed(pool, 1):
        pass
    await eventually(lambda: sessions.states["active"])
    await result(pool.close(timeout=0.2))
    await eventually(lambda: sessions.count == 0, within=1.0 + GUARD)


# --- tasks that are cancelled ---------------------------------------------------------

ROUNDS = 2000
CROWD = 8


async def own_row(conn, dice, number):
    """Ask for a number in one of several ways; give what came back."""
    nap = dice.choice(["", ", pg_sleep(0.002)"])
    question = f"select %s::int{nap}"
    match dice.randrange(5):
        case 0:
            return await fetch_first(await conn.execute(question, [number]))
        case 1:
            async with conn.cursor(name=f"c{number}") as cursor:
                return await fetch_first(await cursor.execute(question, [number]))
        case 2:
            async with conn.pipeline():
                return await fetch_first(await conn.execute(question, [number]))
        case 3:
            rows = [row async for row in conn.cursor().stream(question, [number])]
            return rows[0][0]
        case _:
            text = f"copy (select {number}, pg_sleep(0)) to stdout"
            async with conn.cursor().copy(text) as copy:
                rows = [line async for line in copy.rows()]
            return int(rows[0][0])


async def fetch_first(cursor):
    return (await cursor.fetchone())[0]


# psycopg complains about a server-side cursor whose closing is cancelled as well.
@pytest.mark.filterwarnings("ignore:.*ServerCursor.*deleted while still open")
async def test_after_a_cancelled_query_everybody_gets_their_own_row(conninfo, server):
    seed = time.time_ns()
    print(f"seed {seed}")
    dice = random.Random(seed)
    strange = []
    done = cancelled = 0

    async def ask(pool, number):
        nonlocal done
        async with pool.connection() as conn:
            row = await own_row(conn, dice, number)
            done += 1
            if row != number:
                strange.append((number, row))

    async with AsyncConnectionPool(
        conninfo, min_size=4, kwargs={"prepare_threshold": 1}
    ) as pool:
        for first in range(0, ROUNDS, CROWD):
            tasks = [
                asyncio.create_task(ask(pool, number))
                for number in range(first, first + CROWD)
            ]
            for task in tasks:
                await asyncio.sleep(dice.random() * 0.002)
                if dice.random() < 0.7:
                    task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(e, asyncio.CancelledError) for e in ends)
            failures = [e for e in ends if isinstance(e, Exception)]

            assert [] == failures

        assert [] == strange
        # Otherwise nothing was tried.
        assert done > ROUNDS / 10
        assert cancelled > ROUNDS / 10
        await conserved(pool, server, application_name(conninfo))


async def test_a_cancelled_query_is_ended_on_the_server(conninfo, server, sessions):
    async with AsyncConnectionPool(conninfo, min_size=2) as pool:

        async def ask():
            async with pool.connection() as conn:
                await conn.execute("select pg_sleep(60)")

        task = asyncio.create_task(ask())
        await eventually(lambda: sessions.states["active"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ended_at_once(sessions)
        await conserved(pool, server, application_name(conninfo))


@pytest.mark.parametrize("lazy", [False, True], ids=["at once", "lazy"])
async def test_a_query_is_ended_on_the_server_also_if_it_is_cancelled_again_and_again(
    conninfo, server, sessions, lazy
):
    """As anyio does, and so Starlette: at each await of what is to end."""
    async with AsyncConnectionPool(conninfo, min_size=2) as pool:

        async def ask():
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                async with pool.connection(lazy=lazy) as conn:
                    await conn.execute("select pg_sleep(60)")

        scopes = []
        task = asyncio.create_task(ask())
        await eventually(lambda: sessions.states["active"])
        scopes[0].cancel()
        await task
        await ended_at_once(sessions)
        await conserved(pool, server, application_name(conninfo))


async def test_a_connection_is_not_lent_while_an_answer_is_outstanding(
    conninfo, server, sessions
):
    """A task that was left behind still waits for its row."""
    async with AsyncConnectionPool(conninfo, min_size=1, max_size=1) as pool:
        conn = await pool.getconn()
        left_behind = asyncio.create_task(conn.execute("select pg_sleep(60)"))
        await eventually(lambda: sessions.states["active"])
        await pool.putconn(conn)
        for number in range(20):
            async with pool.connection(timeout=PATIENCE) as other:
                cursor = await other.execute("select %s::int", [number])
                assert await cursor.fetchone() == (number,)
        with pytest.raises(psycopg.Error):
            await left_behind
        await conserved(pool, server, application_name(conninfo))


# --- threads that are interrupted -----------------------------------------------------


SLEEP = "select pg_sleep(60)"


class Interrupt(BaseException):
    """What psycopg does not know: `gevent.Timeout`, an alarm's handler."""


@pytest.fixture
def interrupts():
    """Have a signal raise in the main thread, while it is `inside` of something."""
    state = {"inside": False, "kind": Interrupt}

    def handler(number, frame):
        # Not in a finaliser, which would swallow it.
        if state["inside"] and "psycopg" in frame.f_code.co_filename:
            state["inside"] = False
            raise state["kind"]

    before = signal.signal(signal.SIGUSR1, handler)
    yield state
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", [Interrupt, KeyboardInterrupt])
def test_an_interrupted_query_is_ended_on_the_server(
    conninfo, server, sessions, interrupts, kind
):
    interrupts["kind"] = kind

    def strike():
        run_blocking(eventually(lambda: SLEEP in sessions.queries))
        os.kill(os.getpid(), signal.SIGUSR1)

    with ConnectionPool(conninfo, min_size=2, max_size=2, open=True) as pool:
        threading.Thread(target=strike).start()
        with pytest.raises(kind), pool.connection() as conn:
            interrupts["inside"] = True
            conn.execute(SLEEP)
        run_blocking(ended_at_once(sessions))
        run_blocking(conserved(pool, server, application_name(conninfo)))


def test_after_an_interrupted_query_everybody_gets_their_own_row(
    conninfo, server, interrupts
):
    stopped = threading.Event()
    dice = random.Random(time.time_ns())
    interrupted = 0

    def strike():
        while not stopped.wait(dice.random() * 0.01):
            os.kill(os.getpid(), signal.SIGUSR1)

    with ConnectionPool(conninfo, min_size=2, max_size=2, open=True) as pool:
        striker = threading.Thread(target=strike)
        striker.start()
        try:
            for number in range(300):
                nap = dice.choice(["", ", pg_sleep(0.005)"])
                try:
                    with pool.connection() as conn:
                        interrupts["inside"] = True
                        cursor = conn.execute(f"select %s::int{nap}", [number])
                        interrupts["inside"] = False
                        assert cursor.fetchone()[0] == number
                except Interrupt:
                    interrupted += 1
        finally:
            interrupts["inside"] = False
            stopped.set()
            striker.join()

        assert interrupted > 20
        run_blocking(conserved(pool, server, application_name(conninfo)))
