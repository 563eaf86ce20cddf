"""A program that does not clean up ends at once, successfully and without a word.

Each program runs in an interpreter of its own, in which every warning is an error. The
guard is generous: a pool that holds up the exit does so for ever, or for its timeouts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import edgepool

GUARD = 60.0
SOURCES = str(Path(edgepool.__file__).parent.parent)

# In this mode Python 3.10 may crash at exit, if a daemon thread starts another just
# then; a program of five lines without edgepool does so once in ten times.
DEV_MODE = ["-X", "dev"] if sys.version_info >= (3, 11) else []

THREADS = """
    import atexit, sys, threading
    from edgepool import ConnectionPool, Pool
    from edgepool.testing import FakeAdapter, FakeServer

    FOREVER = 10_000.0
    server = FakeServer()

    def make_pool(**settings):
        settings = {"min_size": 1, "open": True, "nested": "wait"} | settings
        return Pool(FakeAdapter(server), **settings)
"""

TASKS = """
    import asyncio
    from edgepool import AsyncConnectionPool, AsyncPool
    from edgepool.testing import AsyncFakeAdapter, FakeServer

    FOREVER = 10_000.0
    server = FakeServer()

    def make_pool(**settings):
        settings = {"min_size": 1, "nested": "wait"} | settings
        return AsyncPool(AsyncFakeAdapter(server), **settings)
"""

# Log lines are not what this is about: logging prints warnings if nobody handles them.
UNLOGGED = """
    import logging

    logging.getLogger("edgepool.connect").addHandler(logging.NullHandler())
"""

# A server that accepts connections and never says a word.
SILENT = """
    import socket

    silent = socket.create_server(("127.0.0.1", 0))
    conninfo = f"host=127.0.0.1 port={silent.getsockname()[1]} user=x dbname=x"
"""

PROGRAMS = {
    "an open pool that is idle": THREADS
    + """
    pool = make_pool(min_size=3, max_idle=60.0, check_after=30.0)
    pool.wait()
    """,
    "a pool that was never opened": THREADS
    + """
    pool = make_pool(open=None)
    """,
    "a pool that was just opened": THREADS
    + """
    pool = make_pool(min_size=5)
    """,
    "a pool in a function that has returned": THREADS
    + """
    def main():
        pool = make_pool()
        with pool.borrow():
            pass

    main()
    """,
    "a connect that hangs": THREADS
    + """
    server.hang("connect")
    pool = make_pool(min_size=2)
    server.wait_until(lambda server: server.under_way("connect") == 2)
    """,
    "a reset that hangs": THREADS
    + """
    server.hang("reset")
    pool = make_pool()
    with pool.borrow() as session:
        session.dirty = True
    server.wait_until(lambda server: server.under_way("reset") == 1)
    """,
    "a close that hangs": THREADS
    + """
    server.hang("close")
    pool = make_pool()
    pool.wait()
    pool.drain()
    server.wait_until(lambda server: server.under_way("close") == 1)
    """,
    "a session that was never returned": THREADS
    + """
    pool = make_pool()
    session = pool.borrow().__enter__()
    """,
    "threads that wait": THREADS
    + """
    server.hang("connect")
    pool = make_pool(min_size=0, max_size=2)

    def wait():
        with pool.borrow(FOREVER):
            pass

    for _ in range(2):
        threading.Thread(target=wait, daemon=True).start()
    server.wait_until(lambda server: server.under_way("connect") == 2)
    """,
    "an outage": THREADS
    + UNLOGGED
    + """
    server.down()
    pool = make_pool(min_size=2)
    server.wait_until(lambda server: server.connects >= 3)
    """,
    "a close at exit": THREADS
    + """
    pool = make_pool(min_size=3)
    pool.wait()
    atexit.register(pool.close)
    """,
    "a close at exit, after a pause that sent the workers away": THREADS
    + """
    pool = make_pool(min_size=3)
    pool.wait()
    for thread in threading.enumerate():
        if thread.name == "edgepool-worker":
            thread.join()
    atexit.register(pool.close)
    """,
    "a borrow at exit": THREADS
    + """
    pool = make_pool()
    pool.wait()
    for thread in threading.enumerate():
        if thread.name == "edgepool-worker":
            thread.join()

    @atexit.register
    def last_words():
        with pool.borrow() as session:
            session.dirty = True
    """,
    "an exit by an error in the borrower's block": THREADS
    + """
    pool = make_pool()
    with pool.borrow():
        print("the end")
        sys.exit(0)
    """,
    "an exit by SystemExit in a thread that holds a session": THREADS
    + """
    pool = make_pool()

    def use():
        with pool.borrow():
            sys.exit(1)  # ends this thread only

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert pool.statistics().in_use == 0
    """,
    "daemon threads that go on borrowing": THREADS
    + """
    pool = make_pool(min_size=2)
    pool.wait()
    begun = threading.Barrier(5)

    def use():
        begun.wait()
        while True:
            with pool.borrow(FOREVER) as session:
                session.dirty = True

    for _ in range(4):
        threading.Thread(target=use, daemon=True).start()
    begun.wait()
    """,
    "threads that wait for a session that is lent": THREADS
    + """
    pool = make_pool()
    lease = pool.borrow()
    lease.__enter__()

    def wait():
        with pool.borrow(FOREVER):
            pass

    for _ in range(3):
        threading.Thread(target=wait, daemon=True).start()
    while pool.statistics().waiting < 3:
        pass
    """,
    "a borrow that was interrupted": THREADS
    + """
    import signal

    pool = make_pool()
    lease = pool.borrow()
    lease.__enter__()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        pool.borrow(FOREVER).__enter__()
    except KeyboardInterrupt:
        pass
    assert pool.statistics().waiting == 0
    """,
    "a pool of connections that cannot be opened": THREADS
    + UNLOGGED
    + SILENT
    + """
    silent.close()
    pool = ConnectionPool(conninfo, open=True)
    """,
    "a pool of connections whose server is silent": THREADS
    + UNLOGGED
    + SILENT
    + """
    pool = ConnectionPool(conninfo, min_size=2, open=True)
    accepted = [silent.accept()[0], silent.accept()[0]]

    @atexit.register
    def close_what_is_our_own():
        for each in [*accepted, silent]:
            each.close()
    """,
    "asyncio: an open pool that is idle": TASKS
    + """
    async def main():
        pool = make_pool(min_size=3, check_after=30.0)
        await pool.open(wait=True)

    asyncio.run(main())
    """,
    "asyncio: a pool that outlives its event loop": TASKS
    + """
    pool = make_pool(min_size=3, check_after=30.0)

    async def main():
        async with pool.borrow():
            pass

    asyncio.run(main())
    """,
    "asyncio: a pool that was never opened": TASKS
    + """
    pool = make_pool()
    """,
    "asyncio: a pool that was just opened": TASKS
    + """
    async def main():
        await make_pool(min_size=5).open()

    asyncio.run(main())
    """,
    "asyncio: a connect that hangs": TASKS
    + """
    async def main():
        server.hang("connect")
        await make_pool(min_size=2).open()
        while server.under_way("connect") < 2:
            await asyncio.sleep(0)

    asyncio.run(main())
    """,
    "asyncio: a check that hangs": TASKS
    + """
    async def main():
        server.hang("check")
        pool = make_pool()
        asyncio.ensure_future(pool.borrow().__aenter__())
        while server.under_way("check") < 1:
            await asyncio.sleep(0)

    asyncio.run(main())
    """,
    "asyncio: a reset that hangs": TASKS
    + """
    async def main():
        server.hang("reset")
        pool = make_pool()
        async with pool.borrow() as session:
            session.dirty = True
        while server.under_way("reset") < 1:
            await asyncio.sleep(0)

    asyncio.run(main())
    """,
    "asyncio: a session that was never returned": TASKS
    + """
    async def main():
        await make_pool().borrow().__aenter__()

    asyncio.run(main())
    """,
    "asyncio: an exit in the borrower's block": TASKS
    + """
    import sys

    async def main():
        async with make_pool().borrow():
            print("the end")
            sys.exit(0)

    asyncio.run(main())
    """,
    "asyncio: one pool in two event loops, one after the other": TASKS
    + """
    pool = make_pool(check_after=30.0)

    async def main():
        async with pool.borrow():
            pass

    asyncio.run(main())
    asyncio.run(main())
    """,
    "asyncio: tasks that wait": TASKS
    + """
    async def main():
        pool = make_pool()
        await pool.borrow().__aenter__()
        for _ in range(3):
            asyncio.ensure_future(pool.borrow(FOREVER).__aenter__())
        while pool.statistics().waiting < 3:
            await asyncio.sleep(0)

    asyncio.run(main())
    """,
}


def ended(program, options=()):
    """Run a program; give how it ended."""
    return subprocess.run(
        [sys.executable, *options, "-W", "error", "-c", program],
        env=os.environ | {"PYTHONPATH": SOURCES},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_program_that_does_not_clean_up_ends_at_once(program):
    program = dedent(program) + "\nprint('the end')\n"

    run = ended(program, DEV_MODE)

    assert ("", 0) == (run.stderr, run.returncode)
    assert "the end" in run.stdout


def test_a_program_that_a_signal_ends_is_ended_at_once():
    program = """
        import os, signal

        pool = make_pool(min_size=2)
        pool.wait()
        server.hang("connect")
        with pool.borrow(), pool.borrow():
            print("the end", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            pool.borrow(FOREVER).__enter__()
    """
    run = ended(dedent(THREADS) + dedent(program))

    assert ("the end\n", "", -signal.SIGTERM) == (
        run.stdout,
        run.stderr,
        run.returncode,
    )


CTRL_C = """
    import os, signal

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
"""

INTERRUPTED = {
    "threads": THREADS
    + CTRL_C
    + """
    pool = make_pool()
    lease = pool.borrow()
    lease.__enter__()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    pool.borrow(FOREVER).__enter__()
    """,
    "asyncio": TASKS
    + CTRL_C
    + """
    async def main():
        pool = make_pool()
        async with pool.borrow():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            await pool.borrow(FOREVER).__aenter__()

    asyncio.run(main())
    """,
}


@pytest.mark.parametrize("program", INTERRUPTED.values(), ids=INTERRUPTED.keys())
def test_a_program_that_ctrl_c_ends_ends_at_once(program):
    run = ended(dedent(program))

    assert "KeyboardInterrupt" == run.stderr.splitlines()[-1]
    # As a shell is to be told, so that its script ends as well.
    assert -signal.SIGINT == run.returncode
