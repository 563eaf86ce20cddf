"""Events of a pool for threads: the core is told one at a time, and heeded then.

The lock is here, and all that has to bear an interruption between any two lines: what
has struck one thread is mended by the next who comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from threading import RLock
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast

from .. import _flows
from .._core import Abort, Close, Command, Entry, PoolCore, Tether
from .base import DriverBase
from .deadlines import Deadline
from .housekeeper import WeakCallback, housekeeper
from .locks import let_go, owned
from .workers import workers

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class _Fact(NamedTuple):
    """What the core is to be told as soon as it can be."""

    event: Callable[..., object]
    args: tuple[Any, ...]
    named: dict[str, Any]


class Events(DriverBase[T]):
    """The part of the driver for threads that tells the core and does what it wants."""

    def _begin(self, core: PoolCore[T]) -> None:
        super()._begin(core)
        self._mutex = RLock()
        # An event has begun and has not ended.
        self._torn = False
        # Facts that came in the midst of an event of their own thread.
        self._later: deque[_Fact] = deque()
        # What a worker has been called for, or is about to be.
        self._backlog: deque[Command[T]] = deque()
        self._timer: Deadline | None = None
        self._timer_at = float("inf")

    def tell(
        self, event: Callable[Concatenate[float, P], R], *args: P.args, **kw: P.kwargs
    ) -> R:
        """Tell the core a fact, with the time; then see to what it wants done.

        Whoever is interrupted in here leaves the core whole and nothing undone, and if
        that was before the core was told (gevent's timeouts strike while one waits for
        the lock) it is told nevertheless.

        A signal handler, or a finaliser, that runs in the midst of an event of its own
        thread cannot be heard before that is over: then its fact is told, and the
        result is lost.
        """
        core, mutex = self.core, self._mutex
        if owned(mutex):
            self._later.append(_Fact(event, args, kw))
            return cast("R", None)
        begun = False
        try:
            with mutex:
                if self._torn:
                    self._mend()
                self._torn = begun = True
                result = event(self.clock(), *args, **kw)
                self._torn = False
                if core.wakes or self._later:
                    self._wake()
                if core.wake_at < self._timer_at:
                    self._set_timer(core.wake_at)
            if core.commands or self._later:
                self._see_to_it()
        except BaseException:
            if not begun:
                self._later.append(_Fact(event, args, kw))
            self._recover()
            raise
        return result

    def _wake(self) -> None:
        """Wake who has an answer, then tell what could not be told. With the lock.

        Under the lock, so that nobody is woken twice; it takes no time.
        """
        core = self.core
        while core.wakes or self._later:
            while core.wakes:
                gate = core.wakes[0].wake
                if gate is not None and gate.locked():
                    gate.release()
                del core.wakes[0]
            if self._later:
                self._torn = True
                event, args, kw = self._later.popleft()
                event(self.clock(), *args, **kw)
                self._torn = False

    def _see_to_it(self) -> None:
        """Start what is to be done; whoever comes first, whoever asked for it."""
        while self._later:  # it came too late for `tell`
            self.tell(_no_event)
        while (command := self._next_command()) is not None:
            self._report_fork()
            if isinstance(command, Abort):
                self._cut_off(command.entry)
                if self.cancel is None:
                    continue
            if isinstance(command, Close) and self._closes_at_once(
                command.entry.resource
            ):
                self._perform(command)
            else:
                self._backlog.append(command)
                self._submit()

    def _next_command(self) -> Command[T] | None:
        try:
            return self.core.commands.pop(0)
        except IndexError:
            return None

    def _submit(self) -> None:
        try:
            workers.submit(self._work, id(self))
        except RuntimeError:  # no thread to be had: better here than never
            self._work()

    def _work(self) -> None:
        """Do the next of what waits for a worker, unless another has been faster."""
        try:
            command = self._backlog.popleft()
        except IndexError:
            return
        self._perform(command)

    def _perform(self, command: Command[T]) -> None:
        _flows.run(_flows.perform(self, command))

    def _recover(self) -> None:
        """Go on where an interruption has struck, so that others need not notice."""
        let_go(self._mutex)
        with self._mutex:
            if self._torn:
                self._mend()
            self._wake()
            self._set_timer(self.core.wake_at)
        for _ in range(len(self._backlog)):  # one too many does no harm
            self._submit()
        self._see_to_it()

    def _mend(self) -> None:
        self._timer_at = float("inf")  # it may not have come to be set
        self.core.mend(self.clock())
        self._torn = False

    def _set_timer(self, wake_at: float) -> None:
        """Have the housekeeper call by `wake_at`. Called with the lock held."""
        if wake_at >= self._timer_at:
            return
        before = self._timer
        self._timer = housekeeper.call_at(wake_at, WeakCallback(self._on_time))
        self._timer_at = wake_at
        if before is not None:
            housekeeper.cancel(before)

    def _on_time(self) -> None:
        self.tell(self._tick)
        self._look_for_the_lost()

    def _tick(self, now: float) -> None:
        self._timer, self._timer_at = None, float("inf")
        self.core.tick(now)

    def _stop_timer(self, now: float) -> None:
        if self._timer is not None:
            housekeeper.cancel(self._timer)
            self._timer, self._timer_at = None, float("inf")

    # --- I/O with a deadline ------------------------------------------------------

    async def bounded(
        self, work: Coroutine[Any, Any, R], entry: Entry[T], deadline: float
    ) -> R:
        """Await blocking I/O; at the deadline cut the resource off, so that it ends.

        Without `abort` in the adapter the I/O has to bound itself.
        """
        if self._abort is None:
            return await work
        cut = housekeeper.call_at(deadline, partial(self._too_late, entry.tether))
        try:
            result = await work
        except BaseException as error:
            in_time = housekeeper.cancel(cut)
            if in_time or not isinstance(error, Exception):
                raise
            raise TimeoutError("not done in time") from error
        if not housekeeper.cancel(cut):
            raise TimeoutError("not done in time")
        return result

    def _too_late(self, tether: Tether[T]) -> None:
        # What an interruption has lost is not to live until the deadline.
        if (entry := tether()) is not None:
            self._cut_off(entry)

    # --- the end ------------------------------------------------------------------

    def leave(self, hangs: bool) -> None:
        """Leave no timer and no thread behind after the pool was closed.

        Args:
            hangs: there may be threads whose work does not end: they go when it does.
        """
        self.tell(self._stop_timer)
        housekeeper.rest()
        workers.rest(id(self), hangs)


def _no_event(now: float) -> None:
    """Tell the core nothing new."""
