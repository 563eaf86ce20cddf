"""Say a test once; run it against two libraries, with threads and with asyncio.

A parity test is a coroutine function. For the asyncio pools it runs in an event loop.
For the thread pools there is no loop at all: everything that it awaits blocks instead
of suspending, so the coroutine runs from one end to the other in one step.
What is awaited is the same in both: `await result(pool.getconn())`.

Errors are named by psycopg_pool's classes throughout, for both libraries: whoever
changes one import line keeps all their `except` clauses.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
import time
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

LIBRARIES = ("psycopg_pool", "edgepool")
CLASSES = (
    "ConnectionPool",
    "AsyncConnectionPool",
    "NullConnectionPool",
    "AsyncNullConnectionPool",
)

PATIENCE = 20.0
"""Seconds after which a test stops waiting for what must have happened long ago."""


@dataclass(frozen=True)
class Flavour:
    """One library, with threads or with asyncio."""

    library: str
    asynchronous: bool

    def __str__(self):
        return f"{self.library}-{'async' if self.asynchronous else 'sync'}"

    @property
    def is_edgepool(self):
        return self.library == "edgepool"

    @property
    def Pool(self):
        return self._named("ConnectionPool")

    @property
    def NullPool(self):
        return self._named("NullConnectionPool")

    @property
    def Connection(self):
        return psycopg.AsyncConnection if self.asynchronous else psycopg.Connection

    def _named(self, name):
        prefix = "Async" if self.asynchronous else ""
        return getattr(importlib.import_module(self.library), prefix + name)

    def pool(self, conninfo, **arguments):
        """Make a pool and enter it: a context manager that gives the open pool."""
        return entered(self.Pool(conninfo, open=False, **arguments))

    def null_pool(self, conninfo, **arguments):
        return entered(self.NullPool(conninfo, open=False, **arguments))

    def callback(self, function):
        """Make of a coroutine function a callback that these pools accept."""
        if self.asynchronous:
            return function
        return lambda *arguments: run_blocking(function(*arguments))

    def run(self, coroutine):
        """Run a whole test."""
        return (asyncio.run if self.asynchronous else run_blocking)(coroutine)


FLAVOURS = tuple(
    Flavour(library, asynchronous)
    for library in LIBRARIES
    for asynchronous in (False, True)
)

threads_only = pytest.mark.parametrize(
    "flavour", [f for f in FLAVOURS if not f.asynchronous], ids=str
)
asyncio_only = pytest.mark.parametrize(
    "flavour", [f for f in FLAVOURS if f.asynchronous], ids=str
)
edgepool_only = pytest.mark.parametrize(
    "flavour", [f for f in FLAVOURS if f.is_edgepool], ids=str
)


def run_blocking(coroutine):
    """Run a coroutine of which every awaitable blocks."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coroutine.close()
    raise RuntimeError("a test of the thread pools tried to suspend")


async def result(value):
    """Give the value, awaited if it comes from an asyncio pool or connection."""
    return await value if inspect.isawaitable(value) else value


@asynccontextmanager
async def entered(manager):
    """Enter a context manager of either colour."""
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


async def in_and_out(manager):
    """Enter a context manager of either colour, and leave it at once."""
    async with entered(manager):
        pass


@asynccontextmanager
async def borrowed(pool, count):
    """Hold so many connections of a pool, in the order in which they were lent."""
    held = [await result(pool.getconn()) for _ in range(count)]
    try:
        yield held
    finally:
        for conn in held:
            await result(pool.putconn(conn))


async def lend(pool):
    """Borrow a connection, use it, and tell which one it was."""
    async with entered(pool.connection()) as conn:
        return await fetch(conn, "select pg_backend_pid()")


async def execute(conn, query, parameters=None):
    return await result(conn.execute(query, parameters))


async def fetch(conn, query, parameters=None):
    """Run a query and give the one value that it yields."""
    cursor = await execute(conn, query, parameters)
    (value,) = await result(cursor.fetchone())
    return value


def pid(conn):
    """Tell which of the server's processes is behind a connection that is open."""
    return conn.info.backend_pid


def in_event_loop():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def pause(seconds):
    if in_event_loop():
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251, there is no loop that it could block


async def eventually(predicate, within=PATIENCE, otherwise="it never comes"):
    """Poll until the predicate holds, and give what it gave.

    If it does not, fail with what `otherwise` says, or gives if it is a function.
    """
    deadline = time.monotonic() + within
    while not (value := predicate()):
        _be_in_time(deadline, otherwise)
        await pause(0.005)
    return value


def poll_until(predicate, within=PATIENCE, otherwise="it never comes"):
    """Do the same, and block: also in an event loop."""
    deadline = time.monotonic() + within
    while not (value := predicate()):
        _be_in_time(deadline, otherwise)
        time.sleep(0.001)
    return value


def _be_in_time(deadline, otherwise):
    if time.monotonic() > deadline:
        raise AssertionError(otherwise() if callable(otherwise) else otherwise)


async def stat(pool, name, value, within=PATIENCE):
    """Wait until a statistic of the pool has the value; one that is absent is 0."""

    def now():
        return pool.get_stats().get(name, 0)

    def otherwise():
        return f"{name} is {now()}, not {value}, for {within} seconds"

    await eventually(lambda: now() == value, within, otherwise)


class _Thread:
    """A call under way in a thread, that can be awaited like a task."""

    def __init__(self, function, arguments, keywords):
        self._future = Future()
        self._call = (function, arguments, keywords)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        function, arguments, keywords = self._call
        try:
            value = function(*arguments, **keywords)
            if inspect.iscoroutine(value):
                value = run_blocking(value)
            self._future.set_result(value)
        except BaseException as error:
            self._future.set_exception(error)

    def done(self):
        return self._future.done()

    def __await__(self):
        return self._future.result(PATIENCE)
        yield  # makes it a generator, which ends without having suspended


def spawn(function, *arguments, **keywords):
    """Start a call beside the test, in a thread or as a task, to await later."""
    if in_event_loop():
        return asyncio.ensure_future(result(function(*arguments, **keywords)))
    return _Thread(function, arguments, keywords)


async def waiter(pool, *arguments, **keywords):
    """Start a `getconn` that has to wait, and see it wait."""
    ahead = pool.get_stats()["requests_waiting"]
    waiting = spawn(pool.getconn, *arguments, **keywords)
    await stat(pool, "requests_waiting", ahead + 1)
    return waiting


def overlapping(flavour):
    """Make a connection class that takes 50 ms more to connect.

    Gives a function that tells how many connected at the same time at most, and the
    class.
    """
    lock = threading.Lock()
    now = peak = 0

    def count(step):
        nonlocal now, peak
        with lock:
            now += step
            peak = max(peak, now)

    if flavour.asynchronous:

        async def connect(cls, conninfo="", **kwargs):
            count(+1)
            try:
                await asyncio.sleep(0.05)
                return await super(Slow, cls).connect(conninfo, **kwargs)
            finally:
                count(-1)

    else:

        def connect(cls, conninfo="", **kwargs):
            count(+1)
            try:
                time.sleep(0.05)
                return super(Slow, cls).connect(conninfo, **kwargs)
            finally:
                count(-1)

    Slow = type("Slow", (flavour.Connection,), {"connect": classmethod(connect)})
    return (lambda: peak), Slow
