"""The driver for threads: how to borrow, to wait and to return; it decides nothing."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import TIMEOUT_MAX, Thread, current_thread, main_thread
from time import sleep
from typing import TypeVar

from .. import _flows
from .._adapter import Adapter
from .._core import Entry, PoolCore, PoolStatistics, Reason, Waiter, must_be_seconds
from .._errors import refused
from . import fork
from .base import NAP
from .blocking import Blocking
from .events import Events
from .fork import UNFORKED
from .locks import owned
from .tracking import A_MOMENT, Tracker, tell_of_leaks

T = TypeVar("T")


def _nothing() -> None:
    """Do nothing."""


def _has_ended(thread: Thread) -> bool:
    return not thread.is_alive()


class ThreadDriver(Events[T]):
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
            else:
                must_be_seconds(timeout)
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

    async def sound(self) -> None:
        """Run the user's `reconnect_failed`."""
        self.alarm()

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
