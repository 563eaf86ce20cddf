"""A pool that was opened before a fork just works, in the parent and in the child.

Promise 9. Each test forks in earnest. With asyncio the fork happens inside a running
event loop, and the child runs another one; how a child that does not end by
`os._exit` ends is tried out in programs of their own.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import threading
import time

import pytest

from edgepool import BorrowedBeforeFork, PoolClosed
from edgepool.psycopg._leases import lend as lend_entry
from support.conservation import conserved
from support.forks import Child, storm
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    spawn,
)
from support.pg import (
    COLOURS,
    THREADS,
    Sessions,
    application_name,
    at_rest,
    beside,
    error_of,
    sessions_of,
    size,
)
from support.programs import run_program

QUERIES = 1500
IN_TIME = 60.0


# --- parent and child -----------------------------------------------------------------


async def test_no_answer_goes_to_the_wrong_process(colour, way):
    async def in_the_child():
        return await storm(pool, QUERIES)

    async with colour.pool(way.conninfo, min_size=4) as pool:
        await result(pool.wait())
        child = Child(colour, in_the_child)
        ours = await storm(pool, QUERIES)
        theirs = await child.outcome()

        assert (QUERIES, [], []) == ours.summary()
        assert (QUERIES, [], []) == theirs.summary()
        assert not ours.pids & theirs.pids
        await conserved(pool, way.server, way.name)


async def test_the_child_has_as_many_sessions_of_its_own(colour, way, server):
    async def in_the_child():
        before = pool.statistics()
        backend = await lend(pool)
        await at_rest(pool, 3)
        return before, backend, pool.statistics(), pool.get_stats()

    async with colour.pool(way.conninfo, min_size=3, max_size=5) as pool:
        await at_rest(pool, 3)
        parents = {await lend(pool) for _ in range(3)}
        pool.pop_stats()
        before, backend, after, stats = await Child(colour, in_the_child).outcome()

        assert 0 == before.size
        assert backend not in parents
        assert (3, 3, 1) == (after.size, after.idle, after.requests)
        assert (1, 3) == (stats["requests_num"], stats["connections_num"])
        assert {await lend(pool) for _ in range(3)} <= parents
        await conserved(pool, way.server, way.name)


async def test_a_child_may_fork_as_well(colour, conninfo, server):
    async def in_the_grandchild():
        return await lend(pool)

    async def in_the_child():
        first = await lend(pool)
        grandchild = await Child(colour, in_the_grandchild).outcome()
        return first, grandchild, await lend(pool)

    async with colour.pool(conninfo, min_size=1) as pool:
        parents = await lend(pool)
        first, grandchild, again = await Child(colour, in_the_child).outcome()

        assert 3 == len({parents, first, grandchild})
        assert first == again
        assert parents == await lend(pool)
        await conserved(pool, server, application_name(conninfo))


async def test_a_child_that_closes_the_pool_closes_its_own(colour, conninfo, server):
    async def in_the_child():
        await lend(pool)
        await result(pool.close())
        name = application_name(conninfo)
        await eventually(lambda: sessions_of(server, name) == 2)  # the parent's
        return pool.closed

    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        backend = await lend(pool)

        assert await Child(colour, in_the_child).outcome()
        assert backend == await lend(pool)
        await conserved(pool, server, application_name(conninfo))


async def test_null_pools_survive_too(colour, conninfo, server):
    async def in_the_child():
        return await lend(pool), size(pool)

    async with colour.null_pool(conninfo, max_size=2) as pool:
        async with entered(pool.connection()) as conn:
            backend, left = await Child(colour, in_the_child).outcome()

            assert pid(conn) != backend
            assert 0 == left
            assert pid(conn) == await fetch(conn, "select pg_backend_pid()")

        await conserved(pool, server, application_name(conninfo))


async def test_a_pool_is_as_open_in_the_child_as_in_the_parent(colour, conninfo):
    async def in_the_child():
        return (
            type(await error_of(pool_error(never))),
            type(await error_of(pool_error(closed))),
            await lend(lazy) > 0,
            [never.closed, closed.closed],
        )

    async def pool_error(pool):
        return await result(pool.getconn(timeout=5.0))

    lazy = colour.Pool(conninfo, min_size=1)
    never = colour.Pool(conninfo, min_size=1, open=False)
    closed = colour.Pool(conninfo, min_size=1)
    await lend(closed)
    await result(closed.close())
    said = await Child(colour, in_the_child).outcome()

    assert (PoolClosed, PoolClosed, True, [True, True]) == said
    assert lazy.closed


async def test_the_log_says_so_once_when_the_child_first_uses_the_pool(
    colour, conninfo, caplog
):
    async def in_the_child():
        caplog.clear()
        await lend(pool)
        await lend(pool)
        return [m for m in caplog.messages if "forked" in m]

    caplog.set_level("INFO", "edgepool.pool")
    async with colour.pool(conninfo, min_size=1, name="web") as pool:
        await lend(pool)
        lines = await Child(colour, in_the_child).outcome()

    assert [f"web: starts over in a forked process, child of {os.getpid()}"] == lines


# --- in the midst of something --------------------------------------------------------


async def test_a_fork_while_another_thread_holds_every_lock(conninfo, server):
    from edgepool._drivers.housekeeper import housekeeper
    from edgepool._drivers.workers import workers

    async def in_the_child():
        await result(conn.close())
        pool.putconn(conn)
        return await lend(pool)

    def hold():
        with engine._mutex, housekeeper._lock, workers._lock, conn.lock:
            held.set()
            release.wait(IN_TIME)

    async with THREADS.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        engine, conn = pool._engine, pool.getconn()
        held, release = threading.Event(), threading.Event()
        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(IN_TIME)
        try:
            backend = await Child(THREADS, in_the_child).outcome()
        finally:
            release.set()
            holder.join()

        assert backend != pid(conn)

        pool.putconn(conn)
        await conserved(pool, server, application_name(conninfo))


async def test_a_fork_while_connecting(colour, own_server):
    async def in_the_child():
        said.append(await lend(pool))
        return said

    server, said = own_server(), []
    conninfo = server.conninfo_for(application_name="forking")
    async with colour.pool(conninfo, min_size=1, max_size=2) as pool:
        held = await result(pool.getconn())
        server.freeze()
        waiting = spawn(pool.getconn)
        await eventually(lambda: pool.statistics().opening == 1)
        child = Child(colour, in_the_child)
        server.thaw()
        (backend,) = await child.outcome()
        other = await waiting

        assert 3 == len({backend, pid(held), pid(other)})
        assert 1 == await fetch(other, "select 1")

        for conn in (held, other):
            await result(conn.rollback())
            await result(pool.putconn(conn))
        await conserved(pool, server, "forking")


async def test_a_fork_in_mid_configure(colour, conninfo, server):
    forked, children = [], []

    async def configure(conn):
        async def in_the_child():
            with pytest.raises(BorrowedBeforeFork, match=f"in process {parent}"):
                await execute(conn, "select 1")
            return await lend(pool)

        if not forked:
            forked.append(True)  # or each child would have a child
            children.append(Child(colour, in_the_child))
        await execute(conn, "select 1")
        await result(conn.commit())

    parent = os.getpid()
    configure = colour.callback(configure)
    # The fork may come before the block has begun.
    pool = colour.Pool(conninfo, open=False, min_size=1, configure=configure)
    async with entered(pool):
        backend = await lend(pool)

        assert await children[0].outcome() != backend
        await conserved(pool, server, application_name(conninfo))


def at_work():
    return [t for t in threading.enumerate() if t.name == "edgepool-worker"]


def raw_fork():
    """Fork as uWSGI does, without a word to Python."""
    loop = asyncio._get_running_loop()
    task = loop and asyncio.current_task()
    if (child := ctypes.PyDLL(None).fork()) == 0 and loop:
        # As a hook of asyncio would have done. uWSGI forks outside of any loop.
        asyncio._leave_task(loop, task)
        asyncio._set_running_loop(None)
    return child


async def test_a_fork_that_python_does_not_notice(colour, way):
    """As uWSGI's. It shows at the first borrow.

    Nobody tells `logging` either: so no worker is left that might be writing a line.
    """

    async def in_the_child():
        return await storm(pool, 100)

    async with colour.pool(way.conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        await eventually(lambda: not at_work())
        child = Child(colour, in_the_child, fork=raw_fork)
        ours, theirs = await storm(pool, 100), await child.outcome()

        assert (100, [], []) == ours.summary()
        assert (100, [], []) == theirs.summary()
        assert not ours.pids & theirs.pids
        await conserved(pool, way.server, way.name)


async def test_threads_that_notice_at_the_same_time_share_nothing_with_the_parent(
    conninfo, server, sessions
):
    """Each has an inherited connection in his hands; one is first to start over."""

    async def in_the_child():
        engine = pool._engine
        start_over, noticing = engine.start_over, threading.Event()
        late = engine.core.borrow(time.monotonic(), None)
        lent = []

        def slow(parent):
            noticing.set()
            other.join(0.1)  # he would be served by now if he did not wait
            start_over(parent)

        def second():
            noticing.wait(IN_TIME)
            lent.append(pool.getconn())

        engine.start_over = slow
        other = threading.Thread(target=second)
        other.start()
        lent.append(pool.getconn())
        other.join()
        entry = engine.settle(late, time.monotonic(), None, None)
        lent.append(lend_entry(pool, entry))
        return {pid(conn) for conn in lent}, pool.statistics()

    async with THREADS.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        parents = set(sessions.pids)
        await eventually(lambda: not at_work())
        child = Child(THREADS, in_the_child, fork=raw_fork)
        theirs, statistics = await child.outcome()

        assert 3 == len(theirs - parents)
        assert (3, 0) == (statistics.in_use, statistics.lost)
        await conserved(pool, server, application_name(conninfo))


# --- what is left ---------------------------------------------------------------------


def sockets():
    """Tell which sockets this process has open."""
    found = set()
    for name in os.listdir("/dev/fd"):
        try:
            found.add(os.fstat(int(name)).st_ino)
        except OSError:  # the folder's own
            continue
    return found


async def test_no_descriptor_of_a_session_is_left_in_the_child(colour, conninfo):
    async def in_the_child():
        return sockets() & theirs

    async with colour.pool(conninfo, min_size=3) as pool:
        await at_rest(pool, 3)
        held = [await result(pool.getconn()) for _ in range(3)]
        theirs = {os.fstat(conn.fileno()).st_ino for conn in held}
        await result(pool.putconn(held[0]))

        assert set() == await Child(colour, in_the_child).outcome()

        for conn in held[1:]:
            await result(pool.putconn(conn))


async def test_the_sessions_of_a_killed_parent_end_though_a_child_lives(
    colour, conninfo, admin
):
    async def idle_for_ever():
        await beside(signal.pause)

    async def in_the_parent():
        pool = colour.Pool(conninfo, min_size=3)
        await result(pool.wait())
        orphan = Child(colour, idle_for_ever)
        os.write(writing, str(orphan.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    reading, writing = os.pipe()
    parent = Child(colour, in_the_parent)
    await beside(os.waitpid, parent.pid, 0)
    orphan = int(os.read(reading, 20))
    try:
        of_the_parent = Sessions(admin, application_name(conninfo))
        await eventually(lambda: of_the_parent.count == 0)
        os.kill(orphan, 0)  # it is still there
    finally:
        os.kill(orphan, signal.SIGKILL)
        for fd in (reading, writing, parent._pipe):
            os.close(fd)


def test_the_sessions_of_the_parent_survive_every_way_a_child_can_end(colour, way):
    name = next(name for name, each in COLOURS.items() if each is colour)
    outcome = json.loads(run_program("ending.py", name, way.conninfo))

    assert 14 == len(outcome)
    assert {} == {
        end: complaint for end, (_, complaint) in outcome.items() if complaint
    }
    assert [0, 3, 3, 1, -9, -15, 3] == [
        status for end, (status, _) in outcome.items() if ", used" not in end
    ]


def test_a_child_may_close_the_event_loop_that_it_has_inherited(conninfo):
    """The parent goes on with it; they share nothing of it."""
    out = run_program("closing_the_loop.py", conninfo)

    assert "the parent goes on\n" == out


def test_an_adapter_that_fails_to_disown_hinders_no_other(conninfo):
    out = run_program("failing_adapter.py", conninfo)

    assert "3 disowned, the others served\n" == out
