"""One pool and several event loops: an error at once, or a fresh start; never a hang.

With a real server, whose connections are bound to the loop in which they were made;
with asyncio's own loop and with uvloop.
"""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from edgepool import AsyncConnectionPool
from support.conservation import conserved
from support.loops import LOOPS, run_in
from support.parity import eventually
from support.pg import application_name, sessions_of

pytestmark = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)

# What is wrong is said at once.
AT_ONCE = 2.0


async def answer(pool, timeout=30.0):
    async with pool.connection(timeout) as conn:
        cursor = await conn.execute("select 42")
        return (await cursor.fetchone())[0]


def make_pool(conninfo, **arguments):
    return AsyncConnectionPool(conninfo, min_size=1, max_size=1, **arguments)


async def gone(server, conninfo):
    """Wait until the server has no session of the pool's any more."""
    await eventually(lambda: not sessions_of(server, application_name(conninfo)))


def test_a_pool_of_the_module_serves_one_event_loop_after_the_other(
    new_loop, server, conninfo
):
    pool = make_pool(conninfo)

    for _ in range(3):
        assert 42 == run_in(new_loop, answer(pool))

        assert 1 == pool.statistics().size

    run_in(new_loop, conserved(pool, server, application_name(conninfo)))
    run_in(new_loop, pool.close())
    run_in(new_loop, gone(server, conninfo))


def test_a_loop_for_each_test_needs_no_pool_for_each_test(new_loop, server, conninfo):
    # As pytest-asyncio does it: open and close by fixtures, in the test's loop.
    pool = make_pool(conninfo, open=False)

    async def test():
        async with pool:
            await asyncio.gather(*[answer(pool) for _ in range(5)])
            await conserved(pool, server, application_name(conninfo))

    for _ in range(5):
        run_in(new_loop, test())

        assert 0 == pool.statistics().size


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of psycopg: it was lent
def test_what_a_closed_loop_had_borrowed_takes_no_place(new_loop, server, conninfo):
    pool = make_pool(conninfo)

    async def borrow_and_forget():
        waiting = asyncio.ensure_future(pool.getconn())
        conn = await waiting
        waiting = asyncio.ensure_future(answer(pool))  # until the loop ends
        await asyncio.sleep(0)
        return conn, waiting

    lent = run_in(new_loop, borrow_and_forget())

    assert 42 == run_in(new_loop, answer(pool))

    del lent
    run_in(new_loop, conserved(pool, server, application_name(conninfo)))
    run_in(new_loop, pool.close())
    run_in(new_loop, gone(server, conninfo))


def test_a_connect_that_dies_with_its_loop_is_begun_anew(new_loop, server, conninfo):
    pool = make_pool(conninfo)

    async def begin():
        await pool.open()
        await asyncio.sleep(0)

    run_in(new_loop, begin())

    assert 42 == run_in(new_loop, answer(pool))

    run_in(new_loop, conserved(pool, server, application_name(conninfo)))
    run_in(new_loop, pool.close())
    run_in(new_loop, gone(server, conninfo))


@pytest.mark.parametrize(
    "use",
    [
        lambda pool: answer(pool),
        lambda pool: pool.getconn(),
        lambda pool: pool.check(),
        lambda pool: pool.wait(),
        lambda pool: pool.close(),
    ],
    ids=["connection", "getconn", "check", "wait", "close"],
)
@pytest.mark.parametrize("lent", [False, True], ids=["idle", "lent"])
def test_a_second_event_loop_is_refused_at_once(new_loop, server, conninfo, use, lent):
    pool = make_pool(conninfo)
    outcome = []

    def in_another_loop():
        started = time.monotonic()
        try:
            run_in(new_loop, use(pool))
        except RuntimeError as error:
            outcome.append((str(error), time.monotonic() - started))

    async def in_this_loop():
        await answer(pool)
        held = await pool.getconn() if lent else None
        await asyncio.to_thread(in_another_loop)
        if held is not None:
            await pool.putconn(held)

        assert 42 == await answer(pool)

        await conserved(pool, server, application_name(conninfo))
        await pool.close()

    run_in(new_loop, in_this_loop())
    ((message, took),) = outcome

    assert "belongs to another event loop" in message
    assert took < AT_ONCE


def test_a_thread_without_a_loop_is_told_so(new_loop, server, conninfo):
    pool = make_pool(conninfo)
    errors = []

    def drive_by_hand():
        # What was proven just now is lent without a look: so that was a second ago.
        pool._engine.clock = lambda: time.monotonic() + 1.0
        coroutine = pool.getconn()
        try:
            coroutine.send(None)
        except RuntimeError as error:
            errors.append(str(error))
        finally:
            coroutine.close()

    async def main():
        await answer(pool)
        thread = threading.Thread(target=drive_by_hand)
        thread.start()
        await asyncio.to_thread(thread.join)

        assert 42 == await answer(pool)

        await conserved(pool, server, application_name(conninfo))
        await pool.close()

    run_in(new_loop, main())

    (error,) = errors

    assert "no event loop is running" in error
