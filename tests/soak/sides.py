"""The two sides of a soak: a pool of threads, and a pool of tasks in a loop of its own.

Owns the pools and those who borrow from them; what happens to them is `acts`' affair.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import time
from contextlib import suppress

import psycopg
from soak.borrowers import Borrower, Interrupted

from support.conservation import conserved
from support.parity import result, run_blocking
from support.pg import TASKS, THREADS

MOST = 8
BORROWERS = 12

# For how long a borrow in progress may go on when there is to be calm, in seconds.
PATIENCE = 20.0


def telling(base, told):
    """Make a connection class that notes whom it tells to end."""

    class Telling(base):
        def close(self):
            with suppress(psycopg.Error):
                told.add(self.pgconn.backend_pid)
            return super().close()

    return Telling


class Side:
    """A pool and its borrowers.

    Attributes:
        calm: whether the borrowers are to rest.
        stopped: whether they are to end.
    """

    def __init__(self, colour, kind, server, told, report, seed):
        self.kind = kind
        self.server = server
        self.report = report
        self.calm = True
        self.stopped = False
        self.pool = colour.Pool(
            self._conninfo,
            connection_class=telling(colour.Connection, told),
            min_size=2,
            max_size=MOST,
            open=False,
            name=f"soak-{kind}",
            timeout=5.0,
            max_lifetime=0.7,
            max_idle=0.1,
            check_after=0.2,
        )
        self.borrowers = [Borrower(self, number, seed) for number in range(BORROWERS)]

    @property
    def name(self):
        """The application_name: that of the process, for there are forks."""
        return f"soak-{self.kind}-{os.getpid()}"

    def _conninfo(self):
        return self.server.conninfo_for(application_name=self.name)

    async def watch(self):
        """See that the gauges add up, all the time."""
        while not self.stopped:
            s = self.pool.statistics()
            away = s.opening + s.closing + s.checking + s.resetting
            if not (0 <= s.in_use and s.size == s.in_use + s.idle + away <= MOST):
                self.report(f"gauges of {self.name} do not add up", s)
            await self._pause()

    async def be_conserved(self):
        """Be calm, and then assert that nothing is lost."""
        self.calm = True
        deadline = time.monotonic() + PATIENCE
        while not all(borrower.resting for borrower in self.borrowers):
            if time.monotonic() > deadline:
                late = [b.name for b in self.borrowers if not b.resting]
                raise AssertionError(f"still borrowing: {late}")
            await self._pause()
        gc.collect()  # what an interruption has made somebody lose comes back
        await conserved(self.pool, self.server, self.name)

    def served(self):
        """Tell how many borrows went well."""
        return sum(borrower.counts["served"] for borrower in self.borrowers)

    async def _pause(self):
        raise NotImplementedError


class ThreadSide(Side):
    """Threads."""

    run_in_child = staticmethod(run_blocking)

    def __init__(self, *arguments):
        super().__init__(THREADS, "threads", *arguments)
        self.pool.open()
        self._threads = {}
        for borrower in self.borrowers:
            self._start(borrower)
        self._watcher = threading.Thread(target=run_blocking, args=(self.watch(),))
        self._watcher.start()

    def _start(self, borrower):
        def run():
            while not self.stopped:
                with suppress(Interrupted):  # outside of any borrow
                    run_blocking(borrower.run())

        self._threads[borrower] = threading.Thread(target=run, daemon=True)
        self._threads[borrower].start()

    def do(self, act):
        """Run something with the pool, from outside."""
        return run_blocking(act)

    def interrupt(self, number):
        """Raise an exception in a borrower, wherever it is."""
        borrower = self.borrowers[number]
        thread = self._threads[borrower]
        if not thread.is_alive():  # the last one hit it between all handlers
            self._start(borrower)
        elif not borrower.resting:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted)
            )

    def stop(self):
        self.stopped = True
        for thread in [*self._threads.values(), self._watcher]:
            thread.join(PATIENCE)
        self.pool.close()

    async def _pause(self):
        time.sleep(0.005)  # noqa: ASYNC251, there is no loop that it could block


class TaskSide(Side):
    """Tasks, in an event loop that runs in a thread."""

    run_in_child = staticmethod(asyncio.run)

    def __init__(self, *arguments):
        super().__init__(TASKS, "tasks", *arguments)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.do(self._begin())

    async def _begin(self):
        await self.pool.open()
        create = self._loop.create_task
        self._tasks = [create(borrower.run()) for borrower in self.borrowers]
        self._watcher = create(self.watch())

    def do(self, act):
        """Run something with the pool, from outside."""
        return asyncio.run_coroutine_threadsafe(act, self._loop).result()

    def interrupt(self, number):
        """Cancel a borrower, whatever it awaits."""
        task = self._tasks[number]
        if not self.borrowers[number].resting:
            self._loop.call_soon_threadsafe(task.cancel)

    def stop(self):
        self.stopped = True
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self):
        await asyncio.wait([*self._tasks, self._watcher], timeout=PATIENCE)
        await result(self.pool.close())

    async def _pause(self):
        await asyncio.sleep(0.005)
