"""A fork leaves the parent what is the parent's, on every Python; no server is needed.

With a real one, and in depth: tests/faults/test_fork.py.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMON = """
import asyncio, os, sys, warnings
from edgepool import AsyncPool, Pool
from edgepool.testing import AsyncFakeAdapter, FakeAdapter, FakeServer

warnings.filterwarnings("ignore", r".*multi-threaded.*fork", DeprecationWarning)
server = FakeServer()
"""

THREADS = (
    COMMON
    + """
with Pool(FakeAdapter(server), min_size=2, max_size=3) as pool:
    pool.wait()
    with pool.borrow() as session:
        child = os.fork()
        if child == 0:
            assert not session.alive
            assert pool.statistics().size == 0
            with pool.borrow() as own:
                assert own.alive and own.number > 2
        else:
            assert session.alive
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    size = pool.statistics().size
    assert size <= 2, size
print("child" if child == 0 else "parent", flush=True)
"""
)

TASKS = (
    COMMON
    + """
async def borrow(count):
    async with pool.borrow() as session:
        return session.number, pool.statistics().size, await asyncio.to_thread(int)

loop = asyncio.new_event_loop()
pool = AsyncPool(AsyncFakeAdapter(server), min_size=1)
parents = loop.run_until_complete(borrow(1))[0]
child = os.fork()
if child == 0:
    assert asyncio.run(borrow(1))[0] != parents
    loop.close()
else:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(borrow(1))[0] == parents
    loop.run_until_complete(asyncio.wait_for(borrow(1), 10.0))
    loop.run_until_complete(pool.close())
    loop.close()
print("child" if child == 0 else "parent", flush=True)
os._exit(0)
"""
)

# A fork that Python notices, while a thread notices one that it did not.
NOTICED = (
    COMMON
    + """
import signal
from threading import Event, Thread
from edgepool._drivers import fork

noticing, over = Event(), Event()

def notice():
    with fork._noticing:
        noticing.set()
        over.wait()

Thread(target=notice).start()
noticing.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    fork.UNFORKED[0] = 0
    fork.notice_late()
else:
    over.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("child" if child == 0 else "parent", flush=True)
os._exit(0)
"""
)

PROGRAMS = {"threads": THREADS, "tasks": TASKS, "noticed": NOTICED}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_child_begins_with_nothing_and_the_parent_keeps_all(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )

    assert ("child\nparent\n", "", 0) == (done.stdout, done.stderr, done.returncode)
