"""The driver for threads: one lock around the core, and no decision of its own."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from threading import TIMEOUT_MAX, Thread, current_thread
from time import monotonic
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

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
    Waiter,
)
from .._errors import refused
from . import fork
from .deadlines import Deadline
from .fork import UNFORKED
from .housekeeper import WeakCallback, housekeeper
from .tracking import Tracker, tell_of_leaks
from .workers import workers

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


class _Blocking(Generic[T]):
    """A blocking adapter in the shape that flows await. It never suspends."""

    def __init__(self, adapter: Adapter[T]) -> None:
        self._adapter = adapter
        self.is_clean = adapter.is_clean

    async def connect(self) -> T:
        return self._adapter.connect()

    async def check(self, resource: T, /) -> None:
        self._adapter.check(resource)

    async def reset(self, resource: T, /) -> bool:
        return self._adapter.reset(resource)

    async def close(self, resource: T, /) -> None:
        self._adapter.close(resource)

    def optional(self, name: str) -> Callable[[T], Coroutine[Any, Any, None]] | None:
        """Give a method that only some adapters have, in the shape of the others."""
        method: Callable[[T], None] | None = getattr(self._adapter, name, None)
        if method is None:
            return None

        async def blocking(resource: T, /) -> None:
            method(resource)

        return blocking


def _nothing() -> None:
    """Do nothing."""


def left_alone(resource: object) -> None:
    """Stand in for `disown` of an adapter that has none."""


def always_alive(resource: object) -> bool:
    """Stand in for `is_alive` of an adapter that has none."""
    return True


def strangers(entry: object, resource: object) -> None:
    """Stand in for `introduce` of an adapter that has none."""


def may_wait(resource: object) -> bool:
    """Stand in for `closes_at_once` of an adapter that has none."""
    return False


def _has_ended(thread: Thread) -> bool:
    return not thread.is_alive()


class ThreadDriver(Generic[T]):
    """Waits, works and keeps time for a pool that is used by threads.

    Args:
        name: the pool's name, for log lines and errors.
        core: the decisions.
        adapter: how to handle the resources.
    """

    def __init__(self, name: str, core: PoolCore[T], adapter: Adapter[T]) -> None:
        self.name = name
        self.adapter = _Blocking(adapter)
        self.clock = monotonic
        self.is_clean = adapter.is_clean
        self.is_alive: Callable[[T], bool]
        self.is_alive = getattr(adapter, "is_alive", always_alive)
        self.introduce: Callable[[Entry[T], T], None]
        self.introduce = getattr(adapter, "introduce", strangers)
        # Notes who borrows, if the user wants that.
        self.tracker: Tracker | None = None
        # Two hooks of the facade: it opens a lazy pool, and knows `reconnect_failed`.
        self.before_waiting: Callable[[], None] = _nothing
        self.alarm: Callable[[], None] = _nothing
        self._abort: Callable[[T], None] | None = getattr(adapter, "abort", None)
        # Two steps that take a round trip, and that only psycopg's connections know.
        self.configure = self.adapter.optional("configure")
        self.cancel = self.adapter.optional("cancel")
        # Closing a psycopg connection mostly waits for nobody: not worth a thread.
        self._closes_at_once: Callable[[T], bool]
        self._closes_at_once = getattr(adapter, "closes_at_once", may_wait)
        self._disown: Callable[[T], object] = getattr(adapter, "disown", left_alone)
        self._begin(core)
        fork.enrol(self)

    def _begin(self, core: PoolCore[T]) -> None:
        self.core = core
        core.nudge = WeakCallback(self._nudge)  # type: ignore[method-assign]
        self.faces: set[str] = set()
        self._mutex = allocate_lock()
        self._timer: Deadline | None = None
        self._timer_at = float("inf")
        # In a forked child, until there is something to do: who forked it.
        self._parent = 0

    def start_over(self, parent: int) -> None:
        """Leave all that there is to the parent process: this is a forked child."""
        inherited = self.core
        self._begin(inherited.successor())
        self._parent = parent
        fork.each(self._disown, inherited.disown())

    # --- borrow and return --------------------------------------------------------
    #
    # The leases call the core's hot pair themselves; it needs no lock.

    def settle(
        self, entry: Entry[T] | None, now: float, timeout: float | None, owner: object
    ) -> Entry[T]:
        """Finish a borrow: wait if there is no entry; make sure that it is alive."""
        if not UNFORKED[0]:  # a child, and nobody has said so
            fork.notice()
            entry = None
        if timeout is None:
            timeout = self.core.settings.timeout
        patience = _flows.Patience(now, now + timeout, owner)
        if entry is None:
            if not self.core.open:
                self.before_waiting()
            entry = _flows.run(self.wait(patience, again=False))
            now = self.clock()
            if now < entry.due_at:
                return entry
        core = self.core
        if not (core.is_overdue(now, entry) or core.examine(now, entry)):
            if self.is_alive(entry.resource):
                return entry
            entry = _flows.run(_flows.instead_of_dead(self, entry, patience))
        else:
            entry.due_at = now  # for the flow to see to
        return _flows.run(_flows.verified(self, entry, patience))

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
            self.tell(core.give_back_broken, entry)

    def start(self) -> None:
        """Open the pool."""
        self.tell(self.core.start)

    def statistics(self) -> PoolStatistics:
        """Take a snapshot."""
        with self._mutex:
            return self.core.statistics()

    # --- what flows need ----------------------------------------------------------

    def tell(
        self, event: Callable[Concatenate[float, P], R], *args: P.args, **kw: P.kwargs
    ) -> R:
        """Tell the core a fact, with the time; then see to what it wants done."""
        core = self.core
        with self._mutex:
            result = event(self.clock(), *args, **kw)
            wakes, core.wakes = core.wakes, []
            commands, core.commands = core.commands, []
            self._set_timer(core.wake_at)
        for waiter in wakes:
            waiter.wake.release()
        for command in commands:
            self._start(command)
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
        with self._mutex:
            self.core.overrun(self.clock(), waiter)
        waited = self.clock() - patience.since
        return refused(waiter, self.name, self.statistics(), waited)

    def park(
        self,
        event: Callable[[float, Waiter[T]], None],
        deadline: float,
        owner: object = None,
    ) -> Waiter[T]:
        """Tell the core of a waiter, and block until it is resolved or times out."""
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
        except BaseException:
            self.tell(self.core.abandon, waiter)
            raise
        return waiter

    async def bounded(
        self, work: Coroutine[Any, Any, R], entry: Entry[T], deadline: float
    ) -> R:
        """Await blocking I/O; at the deadline cut the resource off, so that it ends.

        Without `abort` in the adapter the I/O has to bound itself.
        """
        if self._abort is None:
            return await work
        cut = housekeeper.call_at(deadline, partial(self._cut_off, entry))
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

    def _cut_off(self, entry: Entry[T]) -> None:
        resource = entry.reach()
        if self._abort is not None and resource is not None:
            self._abort(resource)

    async def sound(self) -> None:
        """Run the user's `reconnect_failed`."""
        self.alarm()

    # --- effects ------------------------------------------------------------------

    def _start(self, command: Command[T]) -> None:
        if self._parent:
            fork.report(self.name, self._parent)
            self._parent = 0
        if isinstance(command, Abort):
            self._cut_off(command.entry)
            if self.cancel is None:
                return
        elif isinstance(command, Close) and self._closes_at_once(
            command.entry.resource
        ):
            self._perform(command)
            return
        self._submit(partial(self._perform, command))

    def _submit(self, job: Callable[[], None]) -> None:
        try:
            workers.submit(job, id(self))
        except RuntimeError:  # no thread to be had: better here than never
            job()

    def _perform(self, command: Command[T]) -> None:
        _flows.run(_flows.perform(self, command))

    def _set_timer(self, wake_at: float) -> None:
        """Have the housekeeper call by `wake_at`. Called with the lock held."""
        if wake_at >= self._timer_at:
            return
        if self._timer is not None:
            housekeeper.cancel(self._timer)
        self._timer_at = wake_at
        self._timer = housekeeper.call_at(wake_at, WeakCallback(self._on_time))

    def _on_time(self) -> None:
        with self._mutex:
            self._timer, self._timer_at = None, float("inf")
        self.tell(self.core.tick)
        self._look_for_the_lost()

    # --- what was never returned --------------------------------------------------

    def track_borrows(self) -> None:
        """Note from now on who borrows what, and where."""
        self.tracker = Tracker(current_thread, _has_ended)

    def _look_for_the_lost(self) -> None:
        if self.tracker is not None:
            self.tracker.look(self.name, self.core.lent())

    def _nudge(self) -> None:
        # The garbage collector may run while this very thread holds any lock, so the
        # rest is another thread's. At the end of the process there is none to be had.
        with suppress(RuntimeError):
            start_new_thread(self._collect, ())

    def _collect(self) -> None:
        tell_of_leaks(self.name, self.tell(self.core.collect))

    def leave(self) -> None:
        """Leave no timer and no thread behind after the pool was closed."""
        with self._mutex:
            if self._timer is not None:
                housekeeper.cancel(self._timer)
                self._timer, self._timer_at = None, float("inf")
        housekeeper.rest()
        workers.rest(id(self))
