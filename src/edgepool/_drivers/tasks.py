"""The driver for asyncio: the event loop is the lock, and no decision of its own.

Nothing here awaits between telling the core a fact and seeing to what it wants done, so
no cancellation can come in between. Returning is not even a coroutine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from .. import _flows
from .._adapter import AsyncAdapter
from .._core import (
    Entry,
    PoolCore,
    PoolStatistics,
    Reason,
    Waiter,
    must_be_seconds,
)
from .._errors import refused
from . import fork
from .background import Background
from .base import NAP
from .deadlines import Deadline, Deadlines
from .fork import UNFORKED
from .tracking import A_MOMENT, Tracker, tell_of_leaks

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

if sys.version_info >= (3, 12):
    task_of: Callable[[Any], Any] = asyncio.current_task
else:
    # asyncio.current_task is slow before it is written in C, for this: the task that
    # runs now in an event loop.
    task_of = getattr(asyncio.tasks, "_current_tasks").get  # noqa: B009

# The identity of what runs outside of any task.
NOBODY = id(None)


class TaskDriver(Background[T]):
    """Waits, works and keeps time for a pool that is used by tasks of one event loop.

    Args:
        name: the pool's name, for log lines and errors.
        core: the decisions.
        adapter: how to handle the resources.
    """

    def __init__(self, name: str, core: PoolCore[T], adapter: AsyncAdapter[T]) -> None:
        # Two hooks of the facade: it opens a lazy pool, and knows `reconnect_failed`.
        self.before_waiting: Callable[[], None]
        self.alarm: Callable[[], Awaitable[None]]
        super().__init__(name, core, adapter, adapter)

    def _begin(self, core: PoolCore[T]) -> None:
        super()._begin(core)
        self._deadlines = Deadlines[Waiter[T]]()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    def start_over(self, parent: int) -> None:
        """Leave all that there is to the parent process: this is a forked child.

        The event loop too, with the tasks on it: they go on in the parent.
        """
        if self.loop is not None:
            fork.keep((self.loop, self._tasks, self._given_up, self._deadlines))
            fork.part_from(self.loop)
        super().start_over(parent)

    # --- borrow and return --------------------------------------------------------
    #
    # The leases call the core's hot pair themselves: one call less each.

    async def settle(
        self, entry: Entry[T] | None, now: float, timeout: float | None, owner: object
    ) -> Entry[T]:
        """Finish a borrow: wait if there is no entry; make sure that it is alive."""
        if not UNFORKED[0]:  # a child, and nobody has said so
            fork.notice_late()
            entry = None
        if timeout is None:
            timeout = self.core.settings.timeout
        else:
            try:
                must_be_seconds(timeout)
            except BaseException:
                _flows.given_up(self, entry)
                raise
        if owner == NOBODY:
            owner = None
        patience = _flows.Patience(now, now + timeout, owner)
        if entry is not None and not self._in_own_loop():
            self._change_loop(entry)
            entry = None
        if entry is None:
            # `wait` once more, but for a crowd: with as few frames, calls and objects
            # for each who waits as it goes.
            if not self.core.open:
                self.before_waiting()
            waiter, deadline = self._line_up(patience.until, owner)
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
        if now - entry.idle_since > NAP:
            self._look_at_the_wall()
        if not (core.is_overdue(now, entry) or core.examine(now, entry)):
            if self.is_alive(entry.resource):
                return entry
            entry = await _flows.instead_of_dead(self, entry, patience)
        else:
            entry.due_at = now  # for the flow to see to
        return await _flows.verified(self, entry, patience)

    def put(self, entry: Entry[T]) -> None:
        """Return an entry. Never suspends, never fails for the pool's own reasons."""
        if entry.reason is Reason.FORKED:
            return  # the parent has lent it, and to the parent it comes back
        core = self.core
        if self.is_clean(entry.resource):
            now = self.clock()
            if (event := core.give_back(now, entry)) is not None:
                event(now, entry)
                self.see_to_it()
        elif self.is_alive(entry.resource):
            self.tell(core.give_back_dirty, entry)
        else:
            self.tell(core.give_back_dead, entry)

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
        waiter = await self.park(event, patience.until, patience.owner)
        return self._served(waiter, patience)

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
        self,
        event: Callable[[float, Waiter[T]], None],
        until: float,
        owner: object = None,
    ) -> Waiter[T]:
        """Wait for an event of the pool; see whether the waiter was refused."""
        waiter, deadline = self._line_up(until, owner)
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

    def _line_up(self, until: float, owner: object) -> tuple[Waiter[T], Deadline]:
        loop = self.use_running_loop()
        self._look_for_the_lost()
        # Not Waiter[T](...): a subscript costs as much as all the rest of this.
        waiter: Waiter[T] = Waiter(loop.create_future(), owner)
        deadline = self._deadlines.add(until, waiter)
        if until < self._timer_at:
            self._set_timer()
        return waiter, deadline

    def _interrupted(self, waiter: Waiter[T]) -> None:
        if not self._running.is_closed():  # else the pool forgets it all
            self.tell(self.core.abandon, waiter)

    async def sound(self) -> None:
        """Run the user's `reconnect_failed`."""
        await self.alarm()

    # --- effects ------------------------------------------------------------------

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
        if self.loop is loop:
            return loop
        if self.loop is not None:
            if not self.loop.is_closed():
                raise RuntimeError(
                    f"the pool {self.name!r} belongs to another event loop:"
                    " make a pool for each"
                )
            self._forget_loop()
        self.loop = loop
        return loop

    def _in_own_loop(self) -> bool:
        try:
            return self.loop is asyncio.get_running_loop()
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
        self._given_up.clear()
        self._lull_until = 0.0
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
            self._notices_the_end()  # or the timer starts what is not to begin
            self._set_timer()

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
        self._look_for_the_lost()

    def track_borrows(self) -> None:
        """Note from now on who borrows what, and where."""
        self.tracker = Tracker(asyncio.current_task, _has_ended)

    def _nudge(self) -> None:
        # The garbage collector may run in any thread, and in the midst of anything. And
        # it may run because the loop ends, which is no time to begin something.
        if (loop := self.loop) is not None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(loop.call_later, A_MOMENT, self._collect)

    def _collect(self) -> None:
        self.tell(self.core.collect)
        tell_of_leaks(self.name, self.core)

    async def leave(self) -> None:
        """Leave no timer and no task behind after the pool was closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, float("inf")
        await self._end_all()


def _has_ended(task: asyncio.Task[Any]) -> bool:
    return task.done()
