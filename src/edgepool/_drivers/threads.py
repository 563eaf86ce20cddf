"""The driver for threads: one lock around the core, and no decision of its own."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from threading import TIMEOUT_MAX, RLock, Thread, current_thread, main_thread
from time import sleep
from typing import (
    Any,
    Concatenate,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
)

from .. import _flows
from .._adapter import Adapter
from .._core import (
    Abort,
    Close,
    Command,
    Entry,
    PoolCore,
    PoolStatistics,
    Reason,
    Tether,
    Waiter,
)
from .._errors import refused
from . import fork
from .base import NAP, DriverBase, no_number
from .blocking import Blocking
from .deadlines import Deadline
from .fork import UNFORKED
from .housekeeper import WeakCallback, housekeeper
from .locks import let_go, owned
from .tracking import A_MOMENT, Tracker, tell_of_leaks
from .workers import workers

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class _Fact(NamedTuple):
    """What the core is to be told as soon as it can be."""

    event: Callable[..., object]
    args: tuple[Any, ...]
    named: dict[str, Any]


def _nothing() -> None:
    """Do nothing."""


def _has_ended(thread: Thread) -> bool:
    return not thread.is_alive()


class ThreadDriver(DriverBase[T]):
    """Waits, works and keeps time for a pool that is used by threads.

    Args:
        name: the pool's name, for log lines and errors.
        core: the decisions.
        adapter: how to handle the resources.
    """

    def __init__(self, name: str, core: PoolCore[T], adapter: Adapter[T]) -> None:
        # Two hooks of the facade: it opens a lazy pool, and knows `reconnect_failed`.
        self.before_waiting: Callable[[], None] = _nothing
        self.alarm: Callable[[], None] = _nothing
        super().__init__(name, core, adapter, Blocking(adapter))

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

    # --- borrow and return --------------------------------------------------------
    #
    # The leases call the core's hot pair themselves; it needs no lock.

    def settle(
        self, entry: Entry[T] | None, now: float, timeout: float | None, owner: object
    ) -> Entry[T]:
        """Finish a borrow: wait if there is no entry; make sure that it is alive."""
        if not UNFORKED[0]:  # a child, and nobody has said so
            fork.notice_late()
            entry = None
        core = self.core
        try:
            if timeout is None:
                timeout = core.settings.timeout
            elif timeout != timeout:
                raise no_number(timeout)
            patience = _flows.Patience(now, now + timeout, owner)
            if entry is None:
                if not core.open:
                    self.before_waiting()
                entry = _flows.run(self.wait(patience, again=False))
                now = self.clock()
                if now < entry.due_at:
                    return entry
            if now - entry.idle_since > NAP:
                self._look_at_the_wall()
            if core.is_overdue(now, entry) or core.examine(now, entry):
                entry.due_at = now  # for the flow to see to
            elif self.is_alive(entry.resource):
                return entry
            else:
                entry = _flows.run(_flows.instead_of_dead(self, entry, patience))
            return _flows.run(_flows.verified(self, entry, patience))
        except BaseException:
            _flows.given_up(self, entry)
            raise

    def put(self, entry: Entry[T]) -> None:
        """Return an entry. Never blocks on the network, never fails for its sake."""
        if entry.reason is Reason.FORKED:
            return  # the parent has lent it, and to the parent it comes back
        core = self.core
        if self.is_clean(entry.resource):
            if (event := core.give_back(self.clock(), entry)) is not None:
                self.tell(event, entry)
        elif self.is_alive(entry.resource):
            self.tell(core.give_back_dirty, entry)
        else:
            self.tell(core.give_back_dead, entry)

    def start(self) -> None:
        """Open the pool."""
        self.tell(self.core.start)

    def statistics(self) -> PoolStatistics:
        """Take a snapshot."""
        if owned(self._mutex):  # within an event of this very thread; see `tell`
            return self.core.statistics()
        return self.tell(self._snapshot)

    def _snapshot(self, now: float) -> PoolStatistics:
        return self.core.statistics()

    # --- what flows need ----------------------------------------------------------

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

    async def wait(self, patience: _flows.Patience, again: bool) -> Entry[T]:
        """Wait in the queue for an entry."""
        event = partial(self.core.enqueue, again=again)
        waiter = self.park(event, patience.until, patience.owner)
        if waiter.entry is None:
            waited = self.clock() - patience.since
            raise refused(waiter, self.name, self.statistics(), waited)
        return waiter.entry

    def timed_out(self, patience: _flows.Patience) -> Exception:
        """Make the error for a borrower who has no time left."""
        waiter: Waiter[T] = Waiter(None)
        self.tell(self.core.overrun, waiter)
        waited = self.clock() - patience.since
        return refused(waiter, self.name, self.statistics(), waited)

    def park(
        self,
        event: Callable[[float, Waiter[T]], None],
        deadline: float,
        owner: object = None,
    ) -> Waiter[T]:
        """Tell the core of a waiter, and block until it is resolved or times out."""
        if deadline != deadline:
            raise no_number(deadline)
        gate = allocate_lock()
        gate.acquire()
        waiter: Waiter[T] = Waiter(gate, owner)
        try:
            self.tell(event, waiter)
            if not waiter.resolved:
                self._look_for_the_lost()
                patience = min(max(deadline - self.clock(), 0.0), TIMEOUT_MAX)
                if not gate.acquire(timeout=patience):
                    self.tell(self.core.time_out, waiter)
            return waiter
        except BaseException:
            self.tell(self.core.abandon, waiter)
            raise

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

    async def sound(self) -> None:
        """Run the user's `reconnect_failed`."""
        self.alarm()

    # --- effects ------------------------------------------------------------------

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

    # --- what was never returned --------------------------------------------------

    def track_borrows(self) -> None:
        """Note from now on who borrows what, and where."""
        self.tracker = Tracker(current_thread, _has_ended)

    def _nudge(self) -> None:
        # The garbage collector may run while this very thread holds any lock, so the
        # rest is another thread's. At the end of the process there is none to be had.
        with suppress(RuntimeError):
            start_new_thread(self._collect, ())

    def _collect(self) -> None:
        self.tell(self.core.collect)
        sleep(A_MOMENT)
        # Else all there is was being dropped, since the program ends.
        if main_thread().is_alive():
            tell_of_leaks(self.name, self.core)

    def leave(self) -> None:
        """Leave no timer and no thread behind after the pool was closed."""
        self.tell(self._stop_timer)
        housekeeper.rest()
        workers.rest(id(self))


def _no_event(now: float) -> None:
    """Tell the core nothing new."""
