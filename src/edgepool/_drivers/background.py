"""What an asyncio pool does in the background: tasks, and how they come to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .. import _flows
from .._core import Abort, Close, Command, Connect, Entry, ErrorClass, PoolCore
from .base import DriverBase

T = TypeVar("T")
R = TypeVar("R")

# How long I/O on a resource that was cut off may take to notice, in seconds, before its
# task is cancelled.
GRACE = 0.1

# How often what should have ended is told so, in seconds.
INSIST = 0.01

# How long nothing is started while the loop seems to end, in seconds. If it goes on
# after all, so does the pool.
LULL = 1.0

# How long `close` waits for what is ending, in seconds, before it cancels that too.
PATIENCE = 0.25


class Background(DriverBase[T]):
    """The part of the asyncio driver that runs commands as tasks."""

    def _begin(self, core: PoolCore[T]) -> None:
        super()._begin(core)
        self.loop: asyncio.AbstractEventLoop | None = None
        # What runs in the background, and for which command.
        self._tasks: dict[asyncio.Task[Any], Command[T] | None] = {}
        # I/O that was given up and has not ended yet.
        self._given_up: dict[Entry[T], asyncio.Task[Any]] = {}
        self._lull_until = 0.0

    # --- commands ---------------------------------------------------------------------

    @property
    def _running(self) -> asyncio.AbstractEventLoop:
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return self.loop

    def _start(self, command: Command[T]) -> None:
        self._report_fork()
        if isinstance(command, Abort):
            self._cut_off(command.entry)
            if self.cancel is None:
                return
        if isinstance(command, Close) and self._closes_now(command.entry):
            _flows.run(_flows.perform(self, command))
        elif self._notices_the_end():
            delay = self._lull_until - self.clock()
            self._running.call_later(delay, self._start, command)
        else:
            task = self._running.create_task(
                self._perform(command),
                name=f"edgepool-{type(command).__name__.lower()}",
            )
            self._tasks[task] = command
            task.add_done_callback(self._done)

    def _notices_the_end(self) -> bool:
        """Tell whether the loop seems to end: all tasks are cancelled, ours included.

        A task that begins then is destroyed, with a warning. A timer is not.
        """
        now = self.clock()
        if now < self._lull_until:
            return True
        task = asyncio.current_task()
        if task not in self._tasks or not self.core.open:  # `leave` cancels them too
            return False
        cancelling: Callable[[], int] = getattr(task, "cancelling", int)
        if not cancelling():  # Python 3.10 does not tell
            return False
        self._lull_until = now + LULL
        return True

    def _closes_now(self, entry: Entry[T]) -> bool:
        return entry not in self._given_up and self._closes_at_once(entry.resource)

    async def _perform(self, command: Command[T]) -> None:
        try:
            try:
                if isinstance(command, Close):
                    using = self._given_up.get(command.entry)
                    if using is not None:
                        await asyncio.wait({using})
            finally:
                await _flows.perform(self, command)
        except asyncio.CancelledError as error:
            # At an await, so nothing was torn: the place need not wait for the garbage
            # collector.
            if isinstance(command, Connect):
                ordinary = ErrorClass.ORDINARY
                self.tell(self.core.connect_failed, command.entry, error, ordinary)
            elif isinstance(command, Close):
                self.tell(self.core.was_closed, command.entry)
            raise

    def _done(self, task: asyncio.Task[Any]) -> None:
        command = self._tasks.pop(task, None)
        if command is not None and task.cancelled() and self.core.open:
            # Not by us. It may not have come to its first step, and told nobody.
            self._lull_until = self.clock() + LULL
        _take_note(task)

    def spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Run something as a task that does not outlive the pool."""
        task = self._running.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    # --- I/O with a deadline ----------------------------------------------------------

    async def bounded(
        self, work: Coroutine[Any, Any, R], entry: Entry[T], deadline: float
    ) -> R:
        """Await I/O on a resource; at the deadline cut it off and raise.

        The I/O runs in a task of its own: asyncio's own timeouts are missing on Python
        3.10, and swallow cancellations on 3.11 when both come at once. Cutting the
        resource off ends the I/O sooner than a cancellation, for which psycopg first
        asks a server that may be silent to cancel the query.
        """
        task = self.spawn(work)
        try:
            await asyncio.wait({task}, timeout=max(deadline - self.clock(), 0.0))
            if not task.done() and self._abort is not None:
                self._cut_off(entry)
                await asyncio.wait({task}, timeout=GRACE)
        except BaseException:
            self._give_up(task, entry)
            raise
        if not task.done():
            self._give_up(task, entry)
            await asyncio.wait({task}, timeout=GRACE)
            raise TimeoutError("not done in time")
        return task.result()

    def _give_up(self, task: asyncio.Task[Any], entry: Entry[T]) -> None:
        """End I/O that nobody waits for any more; until then nothing is closed."""
        if task.done():
            return
        self._given_up[entry] = task
        task.add_done_callback(lambda _: self._given_up.pop(entry, None))
        if self._abort is None:
            task.cancel()
            return
        self._cut_off(entry)
        self._running.call_later(INSIST, self._insist, task)

    def _insist(self, task: asyncio.Task[Any]) -> None:
        # When it is cancelled, psycopg asks the server to cancel the query, and waits
        # for 5 s if that is silent. A second cancellation ends that.
        if not task.done():
            task.cancel()
            self._running.call_later(INSIST, self._insist, task)

    # --- the end ----------------------------------------------------------------------

    def cancel_connects(self) -> None:
        """Stop the connects that are under way."""
        for task, command in self._tasks.items():
            if isinstance(command, Connect):
                self._cancel(task)

    async def _end_all(self) -> None:
        """Leave no task behind after the pool was closed."""
        for task in self._others():
            # The cut off end by themselves, and their queries are being cancelled.
            if not isinstance(self._tasks[task], (Abort, Close, type(None))):
                self._cancel(task)
        await self._ended(PATIENCE)
        for task in self._others():
            self._cancel(task)
        await self._ended(GRACE)

    def _others(self) -> list[asyncio.Task[Any]]:
        me = asyncio.current_task()
        return [task for task in self._tasks if task is not me]

    async def _ended(self, timeout: float) -> None:
        """Wait until no task is left; the end of one may be the begin of another."""
        until = self.clock() + timeout
        while (tasks := self._others()) and self.clock() < until:
            await asyncio.wait(tasks, timeout=until - self.clock())

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # Not before its first step: a flow that never began tells the core nothing.
        self._running.call_soon(task.cancel)


def _take_note(task: asyncio.Task[Any]) -> None:
    """Retrieve an exception, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()
