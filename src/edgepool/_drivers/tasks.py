"""The driver for asyncio: the event loop is the lock, and no decision of its own.

Nothing here awaits between telling the core a fact and seeing to what it wants done, so
no cancellation can come in between. Returning is not even a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from .. import _flows
from .._adapter import AsyncAdapter
from .._core import (
    Abort,
    Close,
    Command,
    Connect,
    Entry,
    PoolCore,
    PoolStatistics,
    Waiter,
)
from .._errors import refused
from .deadlines import Deadline, Deadlines
from .threads import always_alive

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

# How long I/O on a resource that was cut off may take to notice, in seconds, before its
# task is cancelled.
GRACE = 0.1


class TaskDriver(Generic[T]):
    """Waits, works and keeps time for a pool that is used by tasks of one event loop.

    Args:
        name: the pool's name, for log lines and errors.
        core: the decisions.
        adapter: how to handle the resources.
    """

    def __init__(self, name: str, core: PoolCore[T], adapter: AsyncAdapter[T]) -> None:
        self.name = name
        self.faces: set[str] = set()
        self.core = core
        self.adapter = adapter
        self.clock: Callable[[], float] = monotonic
        self.is_clean = adapter.is_clean
        self.is_alive: Callable[[T], bool]
        self.is_alive = getattr(adapter, "is_alive", always_alive)
        # Two hooks of the facade: it opens a lazy pool, and knows `reconnect_failed`.
        self.before_waiting: Callable[[], None]
        self.alarm: Callable[[], Awaitable[None]]
        self._abort: Callable[[T], None] | None = getattr(adapter, "abort", None)
        # Closing a psycopg connection suspends for nothing: not worth a task.
        self._close_inline: bool = getattr(adapter, "close_is_instant", False)
        self._loop: asyncio.AbstractEventLoop | None = None
        # What runs in the background, and for which command.
        self._tasks: dict[asyncio.Task[Any], Command[T] | None] = {}
        self._deadlines = Deadlines[Waiter[T]]()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    # --- borrow and return --------------------------------------------------------
    #
    # The leases call the core's hot pair themselves: one call less each.

    async def settle(
        self, entry: Entry[T] | None, now: float, timeout: float | None
    ) -> Entry[T]:
        """Finish a borrow: wait if there is no entry; make sure that it is alive."""
        if timeout is None:
            timeout = self.core.settings.timeout
        patience = _flows.Patience(now, now + timeout)
        if entry is not None and not self._in_own_loop():
            self._change_loop(entry)
            entry = None
        if entry is None:
            # `wait` once more, but for a crowd: with as few frames, calls and objects
            # for each who waits as it goes.
            if not self.core.open:
                self.before_waiting()
            waiter, deadline = self._line_up(patience.until)
            try:
                self.core.enqueue(now, waiter, again=False)
                self.see_to_it()
                if not waiter.resolved and timeout <= 0:
                    self.tell(self.core.time_out, waiter)
                if not waiter.resolved:
                    await waiter.wake
            except BaseException:
                self._interrupted(waiter)
                raise
            finally:
                self._deadlines.remove(deadline)
            entry = self._served(waiter, patience)
            now = self.clock()
            if now < entry.due_at:
                return entry
        core = self.core
        if not (core.is_overdue(now, entry) or core.examine(now, entry)):
            if self.is_alive(entry.resource):
                return entry
            entry = await _flows.instead_of_dead(self, entry, patience)
        else:
            entry.due_at = now  # for the flow to see to
        return await _flows.verified(self, entry, patience)

    def put(self, entry: Entry[T]) -> None:
        """Return an entry. Never suspends, never fails for the pool's own reasons."""
        core = self.core
        if self.is_clean(entry.resource):
            now = self.clock()
            if (event := core.give_back(now, entry)) is not None:
                event(now, entry)
                self.see_to_it()
        elif self.is_alive(entry.resource):
            self.tell(core.give_back_dirty, entry)
        else:
            self.tell(core.give_back_broken, entry)

    def start(self) -> None:
        """Open the pool, on the running event loop."""
        self.use_running_loop()
        self.tell(self.core.start)

    def statistics(self) -> PoolStatistics:
        """Take a snapshot."""
        return self.core.statistics()

    # --- what flows need ----------------------------------------------------------

    def tell(
        self, event: Callable[Concatenate[float, P], R], *args: P.args, **kw: P.kwargs
    ) -> R:
        """Tell the core a fact, with the time; then see to what it wants done."""
        result = event(self.clock(), *args, **kw)
        self.see_to_it()
        return result

    async def wait(self, patience: _flows.Patience, again: bool) -> Entry[T]:
        """Wait in the queue for an entry."""
        event = partial(self.core.enqueue, again=again)
        return self._served(await self.park(event, patience.until), patience)

    def timed_out(self, patience: _flows.Patience) -> Exception:
        """Make the error for a borrower who has no time left."""
        waiter: Waiter[T] = Waiter(None)
        self.core.overrun(self.clock(), waiter)
        return refused(
            waiter, self.name, self.statistics(), self.clock() - patience.since
        )

    def _served(self, waiter: Waiter[T], patience: _flows.Patience) -> Entry[T]:
        if waiter.entry is None:
            waited = self.clock() - patience.since
            raise refused(waiter, self.name, self.statistics(), waited)
        return waiter.entry

    async def park(
        self, event: Callable[[float, Waiter[T]], None], until: float
    ) -> Waiter[T]:
        """Wait for an event of the pool; see whether the waiter was refused."""
        waiter, deadline = self._line_up(until)
        try:
            self.tell(event, waiter)
            if not waiter.resolved and until <= self.clock():
                self.tell(self.core.time_out, waiter)
            if not waiter.resolved:
                await waiter.wake
        except BaseException:
            self._interrupted(waiter)
            raise
        finally:
            self._deadlines.remove(deadline)
        return waiter

    def _line_up(self, until: float) -> tuple[Waiter[T], Deadline]:
        loop = self.use_running_loop()
        # Not Waiter[T](...): a subscript costs as much as all the rest of this.
        waiter: Waiter[T] = Waiter(loop.create_future())
        deadline = self._deadlines.add(until, waiter)
        if until < self._timer_at:
            self._set_timer()
        return waiter, deadline

    def _interrupted(self, waiter: Waiter[T]) -> None:
        if not self._running.is_closed():  # else the pool forgets it all
            self.tell(self.core.abandon, waiter)

    async def bounded(
        self, work: Coroutine[Any, Any, R], resource: T, deadline: float
    ) -> R:
        """Await I/O on a resource; at the deadline cut it off and raise.

        The I/O runs in a task of its own: asyncio's own timeouts are missing on Python
        3.10, and swallow cancellations on 3.11 when both come at once. Cutting the
        resource off ends the I/O sooner than a cancellation, for which psycopg first
        asks a server that may be silent to cancel the query.
        """
        task = self._running.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        try:
            await asyncio.wait({task}, timeout=max(deadline - self.clock(), 0.0))
            if not task.done() and self._abort is not None:
                self._abort(resource)
                await asyncio.wait({task}, timeout=GRACE)
        finally:
            late = not task.done()
            if late:
                task.cancel()
        if late:
            raise TimeoutError("not done in time")
        return task.result()

    async def sound(self) -> None:
        """Run the user's `reconnect_failed`."""
        await self.alarm()

    # --- effects ------------------------------------------------------------------

    @property
    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def use_running_loop(self) -> asyncio.AbstractEventLoop:
        """Bind the pool to the running event loop, at its first use.

        Raises:
            RuntimeError: there is none, or the pool belongs to another one that is not
                closed.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            message = f"the pool {self.name!r} cannot open: no event loop is running"
            raise RuntimeError(message) from None
        if self._loop is loop:
            return loop
        if self._loop is not None:
            if not self._loop.is_closed():
                raise RuntimeError(
                    f"the pool {self.name!r} belongs to another event loop:"
                    " make a pool for each"
                )
            self._forget_loop()
        self._loop = loop
        return loop

    def _in_own_loop(self) -> bool:
        try:
            return self._loop is asyncio.get_running_loop()
        except RuntimeError:  # a thread without any
            return False

    def _change_loop(self, entry: Entry[T]) -> None:
        """Put away an entry that was borrowed on another event loop than it was made.

        Raises:
            RuntimeError: that loop is not closed: the pool is not for this one.
        """
        try:
            self.use_running_loop()
        except RuntimeError:
            self.put(entry)
            raise
        self.tell(self.core.overdue, entry)

    def _forget_loop(self) -> None:
        """Drop what belongs to a closed event loop, whose waiters and tasks are dead.

        Its connections are closed on the new loop; that takes no waiting.
        """
        core, now = self.core, self.clock()
        was_open = core.open
        core.close(now)
        core.abort(now)
        core.wakes.clear()
        self._tasks.clear()
        self._timer, self._timer_at = None, float("inf")
        if was_open:
            core.start(now)

    def see_to_it(self) -> None:
        """Wake who has an answer, start what is to be done, set the timer."""
        core = self.core
        wakes, commands = core.wakes, core.commands
        if wakes:
            core.wakes = []
            for waiter in wakes:
                if not waiter.wake.done():  # else it is cancelled, or timed out
                    waiter.wake.set_result(None)
        if commands:
            core.commands = []
            for command in commands:
                self._start(command)
        if core.wake_at < self._timer_at:
            self._set_timer()

    def _start(self, command: Command[T]) -> None:
        if isinstance(command, Abort):
            if self._abort is not None:
                self._abort(command.entry.resource)
            return
        if self._close_inline and isinstance(command, Close):
            _flows.run(_flows.perform(self, command))
            return
        task = self._running.create_task(
            _flows.perform(self, command),
            name=f"edgepool-{type(command).__name__.lower()}",
        )
        self._tasks[task] = command
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        _take_note(task)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = min(self.core.wake_at, self._deadlines.next)
        if self._timer_at < float("inf"):
            delay = max(self._timer_at - self.clock(), 0.0)
            self._timer = self._running.call_later(delay, self._on_time)

    def _on_time(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        now = self.clock()
        for waiter in self._deadlines.due(now):
            self.core.time_out(now, waiter)
        if now >= self.core.wake_at:
            self.core.tick(now)
        self.see_to_it()
        if self._timer is None:
            self._set_timer()

    def cancel_connects(self) -> None:
        """Stop the connects that are under way."""
        for task, command in self._tasks.items():
            if isinstance(command, Connect):
                self._cancel(task)

    async def leave(self) -> None:
        """Leave no timer and no task behind after the pool was closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, float("inf")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            self._cancel(task)
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        # Not before its first step: a flow that never began tells the core nothing.
        self._running.call_soon(task.cancel)


def _take_note(task: asyncio.Task[Any]) -> None:
    """Retrieve an exception, so that asyncio does not complain that nobody did."""
    if not task.cancelled():
        task.exception()
