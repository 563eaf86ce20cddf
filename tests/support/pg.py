"""What tests against a real server say: who is connected, what went wrong, under load.

Tests are written once, as coroutine functions, for threads and for asyncio; see
`support.parity` for how. Only edgepool is tested here, so a `colour` says which.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from edgepool._core import PROBE_AFTER
from support.parity import (
    Flavour,
    entered,
    eventually,
    execute,
    fetch,
    in_event_loop,
    pause,
    poll_until,
    result,
    spawn,
)

THREADS = Flavour("edgepool", asynchronous=False)
TASKS = Flavour("edgepool", asynchronous=True)
COLOURS = {"threads": THREADS, "tasks": TASKS}


# --- the server's view ----------------------------------------------------------------


def application_name(conninfo):
    return str(conninfo_to_dict(conninfo)["application_name"])


class Sessions:
    """The sessions of one application_name, as the server sees them."""

    def __init__(self, admin, name):
        self._admin = admin
        self.name = name

    def _column(self, expression):
        query = (
            f"select {expression} from pg_stat_activity"
            " where application_name = %s and pid <> pg_backend_pid()"
            " order by backend_start, pid"
        )
        return [value for (value,) in self._admin.execute(query, [self.name])]

    @property
    def pids(self):
        return self._column("pid")

    @property
    def count(self):
        return len(self.pids)

    @property
    def states(self):
        return Counter(self._column("state"))

    @property
    def queries(self):
        """The latest statement of each."""
        return self._column("query")

    def terminate(self, *pids):
        """End some sessions, or all, and wait until they have hung up."""
        ending = pids or tuple(self.pids)
        for pid in ending:
            self.end(pid)
        hung_up(*ending)

    def end(self, pid):
        """Tell a session to end; do not wait for it."""
        self._admin.execute("select pg_terminate_backend(%s)", [pid])


def hung_up(*pids):
    """Wait until server processes are gone, with their ends of the connections.

    A session leaves pg_stat_activity before that. The servers run on this machine.
    """
    for pid in pids:
        poll_until(
            lambda pid=pid: not _exists(pid), otherwise=f"process {pid} does not end"
        )


def _exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def sessions_of(server, name):
    """Ask a server by a connection of its own each time: it may go down in between."""
    query = "select count(*) from pg_stat_activity where application_name = %s"
    with psycopg.connect(server.conninfo_for(application_name="counter")) as conn:
        return conn.execute(query, [name]).fetchone()[0]


# --- doing things ---------------------------------------------------------------------


async def beside(function, *arguments, **keywords):
    """Run a function that blocks, without blocking an event loop."""
    if in_event_loop():
        return await asyncio.to_thread(function, *arguments, **keywords)
    return function(*arguments, **keywords)


async def error_of(awaitable):
    """Give the error that something raises; fail if it raises none."""
    try:
        value = await result(awaitable)
    except Exception as error:
        return error
    raise AssertionError(f"no error, but {value!r}")


async def borrow_error(pool, *arguments, **keywords):
    """Give the error of a `getconn`, and how long it took."""
    started = time.monotonic()
    try:
        conn = await result(pool.getconn(*arguments, **keywords))
    except Exception as error:
        return error, time.monotonic() - started
    await result(pool.putconn(conn))
    raise AssertionError(f"no error, but {conn}")


async def past_grace():
    """Wait until the next borrow probes again, whenever the latest one did."""
    await pause(2 * PROBE_AFTER)


def is_async(conn):
    return isinstance(conn, psycopg.AsyncConnection)


def class_beside(conn, kind):
    """Give psycopg's class of a kind, as "ClientCursor" is, for such a connection."""
    return getattr(psycopg, f"Async{kind}" if is_async(conn) else kind)


async def set_autocommit(conn, value):
    if is_async(conn):
        await conn.set_autocommit(value)
    else:
        conn.autocommit = value


def idle(pool):
    return pool.get_stats()["pool_available"]


def in_use(pool):
    return pool.statistics().in_use


def size(pool):
    return pool.get_stats()["pool_size"]


async def at_rest(pool, number):
    """Wait until the pool has so many connections, all of them idle."""

    def resting():
        return (idle(pool), size(pool)) == (number, number)

    await eventually(resting, otherwise=lambda: f"no rest: {pool.statistics()}")


class Load:
    """Workers, threads or tasks, that borrow and use connections until told to stop."""

    def __init__(self, pool, query, hold):
        self.pool = pool
        self.query = query
        self.hold = hold
        self.done = 0
        self.errors = []
        self.stopped = False
        # Moments at which a borrow was served.
        self.latest = 0.0
        self._lock = threading.Lock()

    async def work(self):
        while not self.stopped:
            try:
                async with entered(self.pool.connection()) as conn:
                    served = time.monotonic()
                    if self.hold:
                        await pause(self.hold)
                    await execute(conn, self.query)
            except Exception as error:
                self.errors.append(error)
            else:
                with self._lock:
                    self.done += 1
                    self.latest = max(self.latest, served)

    def kinds(self):
        """Tell which errors there were, and how often."""
        return Counter(type(error).__name__ for error in self.errors)


@asynccontextmanager
async def load(pool, workers, query="select 1", hold=0.0):
    """Keep a pool busy during the block; at its end all workers have ended."""
    busy = Load(pool, query, hold)
    spawned = [spawn(busy.work) for _ in range(workers)]
    try:
        yield busy
    finally:
        busy.stopped = True
        for worker in spawned:
            await worker


async def one(conn):
    """Run a statement, and leave nothing open."""
    value = await fetch(conn, "select 1")
    await result(conn.commit())
    return value


async def more(busy, number):
    """Wait until the load has had so many more successes."""
    goal = busy.done + number
    await eventually(lambda: busy.done >= goal)
