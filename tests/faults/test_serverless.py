"""A function's process: it is frozen between two requests, and ends without a word."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgepool._drivers import base, events
from edgepool._drivers.housekeeper import Housekeeper
from edgepool.testing._processes import wait_until_suspended
from support.conservation import conserved
from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    fetch,
    lend,
    pause,
    result,
    waiter,
)
from support.pg import beside, load
from support.pgbouncer import PgBouncer

PROGRAM = Path(__file__).parent / "programs" / "function.py"


class Instance:
    """A process of its own with a pool; see programs/function.py."""

    def __init__(self, colour, kind, conninfo, **arguments):
        name = "tasks" if colour.asynchronous else "threads"
        words = [f"{key}={value}" for key, value in arguments.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROGRAM), name, kind, conninfo, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def call(self):
        """Have it borrow; give the server's process that it has had."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.process.stderr.read()
        return int(answer)

    @contextmanager
    def frozen(self):
        """Suspend it for the block."""
        self.process.send_signal(signal.SIGSTOP)
        wait_until_suspended(self.process.pid)
        yield
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        """Let it look at its pool and end; give its status, and what was wrong."""
        _, complaints = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, complaints


@pytest.fixture
def instance(colour, conninfo):
    """Start an instance: `instance("null", **arguments)`."""
    started = []

    def start(kind, **arguments):
        started.append(Instance(colour, kind, conninfo, **arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            one.process.kill()
            one.process.communicate()


# --- between two requests -------------------------------------------------------------


async def test_nothing_is_left_when_nothing_is_borrowed(
    colour, server, conninfo, sessions, monkeypatch
):
    # The process's own may be at work for a pool that another test has left open.
    monkeypatch.setattr(events, "housekeeper", Housekeeper())
    before = set(threading.enumerate())
    tasks = asyncio.all_tasks() if colour.asynchronous else set()
    pool = colour.NullPool(conninfo, max_size=2)
    for _ in range(3):
        await lend(pool)

    def names():
        left = set(threading.enumerate()) - before
        return [thread.name for thread in left if "edgepool" in thread.name]

    await eventually(lambda: names() == [])
    await eventually(lambda: sessions.count == 0)
    await eventually(lambda: pool._engine._timer is None)
    if colour.asynchronous:
        assert tasks == asyncio.all_tasks()

    assert not pool.closed
    assert await lend(pool)

    await conserved(pool, server, sessions.name)
    await result(pool.close())


async def test_an_instance_ends_without_closing_its_pool(instance, sessions):
    one = instance("null", max_size=2)
    one.call()

    assert one.end() == (0, "")

    await eventually(lambda: sessions.count == 0)


@pytest.mark.parametrize(("kind", "min_size"), [("pool", 1), ("null", 0)])
async def test_after_a_freeze_no_dead_connection_is_lent(
    instance, sessions, kind, min_size
):
    one = instance(kind, min_size=min_size, max_size=2)
    before = one.call()
    with one.frozen():
        sessions.terminate()

    assert one.call() not in (0, before)
    assert one.end() == (0, "")

    await eventually(lambda: sessions.count == 0)


async def test_the_time_of_a_freeze_counts(instance, sessions):
    one = instance("pool", min_size=1, max_lifetime=0.5)
    before = one.call()
    await eventually(lambda: sessions.count == 1)
    with one.frozen():
        await pause(0.6)

    assert one.call() != before
    assert one.end() == (0, "")

    await eventually(lambda: sessions.count == 0)


async def test_a_null_pool_has_nothing_that_could_die_in_a_freeze(instance, sessions):
    one = instance("null", max_size=2)
    one.call()
    await eventually(lambda: sessions.count == 0)
    with one.frozen():
        pass

    assert one.call()
    assert one.end() == (0, "")

    await eventually(lambda: sessions.count == 0)


async def test_after_the_machine_was_suspended_nothing_forgotten_is_lent(
    colour, proxy, monkeypatch
):
    # Nothing short of suspending this machine stops its monotonic clock.
    gained = 0.0
    monkeypatch.setattr(base, "time", lambda: time.time() + gained)
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        before = await lend(pool)
        proxy.forget()
        gained = 3600.0
        await pause(0.02)

        async with entered(pool.connection(timeout=PATIENCE)) as conn:
            assert await fetch(conn, "select pg_backend_pid()") != before


# --- many instances before one pooler -------------------------------------------------


async def test_many_instances_share_few_sessions(colour, server, conninfo, sessions):
    name = sessions.name
    with PgBouncer(server, "transaction", default_pool_size=3) as pooler:
        behind = pooler.conninfo_for(application_name=name)
        arguments = {"max_size": 5, "kwargs": {"prepare_threshold": None}}
        pools = [colour.NullPool(behind, **arguments) for _ in range(4)]
        peak = 0
        async with (
            load(pools[0], 5, hold=0.01),
            load(pools[1], 5, hold=0.01) as busy,
            load(pools[2], 5, hold=0.01),
            load(pools[3], 5, hold=0.01),
        ):
            while busy.done < 50:
                peak = max(peak, await beside(lambda: sessions.count))
                await pause(0.01)

        assert busy.errors == []
        assert 0 < peak <= 3
        for pool in pools:
            await conserved(pool, pooler)
            await result(pool.close())


async def test_an_instance_bounds_and_queues_its_own(
    colour, server, conninfo, sessions
):
    pool = colour.NullPool(conninfo, max_size=2)
    async with borrowed(pool, 2) as held:
        pids = {conn.info.backend_pid for conn in held}
        waiting = await waiter(pool)

        assert sessions.count == 2

        await result(pool.putconn(held.pop()))
        served = await waiting

        assert served.info.backend_pid in pids

        held.append(served)
    del held, served
    gc.collect()
    await conserved(pool, server, sessions.name)
    await result(pool.close())
