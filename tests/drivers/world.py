"""One world for threads and one for tasks: the same test runs in both.

A test is a coroutine function that is given a world. With tasks it runs in a
`JumpingLoop`. With threads there is no loop: everything that it awaits blocks instead
of suspending, so the coroutine runs from one end to the other in one step, as
edgepool's own flows do; and threads take turns. In both worlds time is virtual.

What a world asks at the end of each test, whatever that was about: all sessions are
closed, there were never more of them than the pools may have, no thread or task is
left, and the pool made no mistake in the use of its adapter.
"""

from __future__ import annotations

import asyncio
import inspect

from drivers.turns import Turns

from edgepool import AsyncPool, Pool
from edgepool._drivers import base, events, housekeeper, threads, workers
from edgepool.testing import (
    AsyncFakeAdapter,
    FakeAdapter,
    FakeServer,
    _fake_adapters,
    _fake_server,
    run_jumping,
)

DEAD = ConnectionResetError("it is dead")

# Connects that run side by side start a millisecond apart.
STAGGERED = 0.01


async def call(method, *arguments, **named):
    """Call a method of a pool; with tasks, await it."""
    value = method(*arguments, **named)
    return await value if inspect.isawaitable(value) else value


async def enter(manager):
    name = "__aenter__" if hasattr(manager, "__aenter__") else "__enter__"
    return await call(getattr(manager, name))


async def leave(manager, *exc_info):
    name = "__aexit__" if hasattr(manager, "__aexit__") else "__exit__"
    return await call(getattr(manager, name), *(exc_info or (None, None, None)))


def run_blocking(coroutine):
    """Run a coroutine of which every awaitable blocks."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coroutine.close()
    raise RuntimeError("a test of threads tried to suspend")


async def hold_all(world, pool):
    """Borrow as many as there may be."""
    return [await world.borrow(pool) for _ in range(pool.max_size)]


class Held:
    """What a borrower has, until it gives it back."""

    def __init__(self, lease, session):
        self._lease = lease
        self.session = session

    @property
    def number(self):
        return self.session.number

    async def give_back(self):
        await leave(self._lease)


class Running:
    """Something that was started and goes on beside the test."""

    def __init__(self, coroutine):
        self._coroutine = coroutine
        self._outcome = None
        self.done = False

    async def run(self):
        try:
            outcome = await self._coroutine
        except BaseException as error:
            self._outcome = None, error
        else:
            self._outcome = outcome, None
        self.done = True

    async def outcome(self):
        """Wait for its end; give what it returned, or raise what it raised."""
        await self.end()
        value, error = self._outcome
        if error is not None:
            raise error
        return value

    async def error(self):
        """Wait for its end; give what it raised."""
        await self.end()
        _, error = self._outcome
        assert error is not None, f"it succeeded: {self._outcome}"
        return error


class World:
    """What a test may do; `ThreadWorld` and `TaskWorld` say how."""

    def __init__(self):
        self.server = None
        self.pools = []
        # So many sessions the pools of this test may have at the same time.
        self.allowed = 0
        # What the wall clock has gained on the monotonic one.
        self._gained = 0.0

    def pool(self, **settings):
        """Make a pool of the fake server's sessions; not open yet."""
        # Who tests is one thread, or one task, and borrows again and again.
        settings = {"min_size": 1, "open": False, "nested": "wait"} | settings
        pool = self.Pool(self.Adapter(self.server), **settings)
        pool._engine.wall = self.wall
        self.pools.append(pool)
        self.allowed += pool.max_size
        return pool

    def suspend(self, seconds):
        """Have the machine sleep: the monotonic clock stands still."""
        self._gained += seconds

    def wall(self):
        return self.now + self._gained

    async def open_pool(self, **settings):
        """Make a pool and open it: `min_size` sessions are there, and idle."""
        pool = self.pool(**settings)
        await call(pool.open, wait=True)
        await self.quiet()
        return pool

    async def borrow(self, pool, timeout=None):
        lease = pool.borrow(timeout)
        return Held(lease, await enter(lease))

    async def waiting(self, pool, timeout=None):
        """Start to borrow, and go on when whoever borrows waits, or has got one."""
        borrower = self.start(self.borrow(pool, timeout))
        await self.quiet()
        return borrower

    async def lend(self, pool, timeout=None):
        """Borrow and give back; tell which session it was."""
        held = await self.borrow(pool, timeout)
        await held.give_back()
        return held.number

    async def finish(self):
        for operation in ("connect", "check", "reset", "close"):
            self.server.release(operation)
            self.server.fail_always(operation, None)
        for pool in self.pools:
            await call(pool.close)
        await self.sleep(workers.LINGER * 2)

        assert [] == self.server.mistakes
        assert () == self.server.sessions
        assert self.server.peak <= self.allowed
        assert [] == self.left_over()


class RunningThread(Running):
    async def end(self):
        self.thread.join()


class RunningTask(Running):
    async def end(self):
        await asyncio.wait([self.task])


class ThreadWorld(World):
    """Threads that take turns."""

    Pool, Adapter = Pool, FakeAdapter
    Interruption = KeyboardInterrupt

    def __init__(self, monkeypatch, dice=None):
        super().__init__()
        self._turns = turns = Turns(dice)
        modules = (
            base,
            events,
            threads,
            workers,
            housekeeper,
            _fake_adapters,
            _fake_server,
        )
        for module in modules:
            for name, value in turns.primitives.items():
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(events, "workers", workers.Workers())
        monkeypatch.setattr(events, "housekeeper", housekeeper.Housekeeper())

    def run(self, test):
        self.server = FakeServer(clock=self._turns.time)
        try:
            self._turns.trace()
            run_blocking(test)
            run_blocking(self.finish())
        finally:
            self._turns.end()

    @property
    def now(self):
        return self._turns.time()

    async def sleep(self, seconds):
        self._turns.sleep(seconds)

    async def quiet(self):
        self._turns.quiet()

    def start(self, coroutine):
        running = RunningThread(coroutine)
        running.thread = self._turns.thread(
            target=lambda: run_blocking(running.run()), daemon=True
        )
        running.thread.start()
        return running

    def started(self, name):
        """Count the threads of a name that were ever started."""
        return sum(thread.name == name for thread in self._turns.threads)

    def interrupt(self, running):
        self._turns.interrupt(running.thread, self.Interruption())

    def left_over(self):
        return self._turns.running


class TaskWorld(World):
    """Tasks in a loop whose clock jumps."""

    Pool, Adapter = AsyncPool, AsyncFakeAdapter
    Interruption = asyncio.CancelledError

    def __init__(self, monkeypatch):
        super().__init__()
        self._monkeypatch = monkeypatch

    def run(self, test):
        run_jumping(self._run(test))

    async def _run(self, test):
        self._loop = asyncio.get_running_loop()
        self._monkeypatch.setattr(base, "monotonic", self._loop.time)
        self.server = FakeServer(clock=self._loop.time)
        try:
            await test
            await self.finish()
        finally:
            test.close()

    @property
    def now(self):
        return self._loop.time()

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def quiet(self):
        await self._loop.quiet()

    def start(self, coroutine):
        running = RunningTask(coroutine)
        running.task = self._loop.create_task(running.run())
        return running

    def interrupt(self, running):
        running.task.cancel()

    def left_over(self):
        return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
