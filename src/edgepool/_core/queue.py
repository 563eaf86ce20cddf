"""Who waits for an entry: first come, first served, and gone in O(1).

An OrderedDict, as in trio's ParkingLot: a waiter that gives up leaves at once, wherever
it stands. (Queues that leave the dead in place count them, and serve them.)

A waiter is answered first and taken out afterwards, so that an interruption in between
leaves somebody in the queue who has an answer, for `mend` to see, and forgets nobody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from .entry import Entry, Refusal, Waiter
from .statistics import Counters

T = TypeVar("T")


class WaitQueue(Generic[T]):
    """The waiters of a pool, and how each is resolved exactly once.

    Args:
        wake: takes those who have an answer.
        counters: counts them.
    """

    def __init__(self, wake: Callable[[Waiter[T]], None], counters: Counters) -> None:
        self.waiting: OrderedDict[Waiter[T], None] = OrderedDict()
        # Those who wait for the pool to be ready, or to be empty.
        self.for_ready: dict[Waiter[T], None] = {}
        self.for_empty: dict[Waiter[T], None] = {}
        self._wake = wake
        self._counters = counters

    def add(self, waiter: Waiter[T], first: bool) -> None:
        """Let somebody wait, at the end of the queue or at its head."""
        self.waiting[waiter] = None
        if first:
            self.waiting.move_to_end(waiter, last=False)

    @property
    def first(self) -> Waiter[T]:
        """Who is served next; there must be somebody."""
        return next(iter(self.waiting))

    def serve(self, now: float, entry: Entry[T]) -> None:
        """Give an entry, which is lent already, to the first waiter."""
        waiter = self.first
        waiter.entry = entry
        waiter.resolved = True
        self._wake(waiter)
        del self.waiting[waiter]
        self._counters.wait_time += now - waiter.since

    def remove(
        self, now: float, waiter: Waiter[T], why: Refusal, cause: BaseException | None
    ) -> None:
        """Send away somebody who has waited for too long, or may not wait."""
        self._refuse(waiter, why, cause)
        self.leave(now, waiter)

    def shed(self, now: float, cause: BaseException | None) -> None:
        """Send away the first, for the sake of those behind."""
        self._counters.shed += 1
        self.remove(now, self.first, Refusal.SHED, cause)

    def leave(self, now: float, waiter: Waiter[T]) -> None:
        """Forget somebody who waits no longer."""
        waiter.resolved = True
        if waiter in self.waiting:
            del self.waiting[waiter]
            self._counters.wait_time += now - waiter.since
            self._counters.refused += 1
        else:
            self.for_ready.pop(waiter, None)
            self.for_empty.pop(waiter, None)

    def refuse_all(
        self, now: float, why: Refusal, cause: BaseException | None, until: float
    ) -> None:
        """Tell all who came until then that there will be no connection for them."""
        for waiter in list(self.waiting) + list(self.for_ready):
            if waiter.since <= until:
                self.remove(now, waiter, why, cause)

    def refuse(
        self, waiter: Waiter[T], why: Refusal, cause: BaseException | None
    ) -> None:
        """Send somebody away who was not let in."""
        self._counters.refused += 1
        self._refuse(waiter, why, cause)

    def announce(self, waiters: dict[Waiter[T], None]) -> None:
        """Tell those who wait for an event of the pool that it has come."""
        for waiter in waiters:
            waiter.resolved = True
            self._wake(waiter)
        waiters.clear()

    def mend(self, now: float) -> None:
        """Complete what an interruption has torn: who has an answer is told."""
        for waiter in list(self.waiting):
            if waiter.entry is not None:
                waiter.resolved = True
                self._wake(waiter)
                del self.waiting[waiter]
            elif waiter.refusal is not None:
                self.remove(now, waiter, waiter.refusal, waiter.cause)
            elif waiter.resolved:  # it was about to leave by itself
                self.leave(now, waiter)

    def _refuse(
        self, waiter: Waiter[T], why: Refusal, cause: BaseException | None
    ) -> None:
        waiter.refusal = why
        waiter.cause = cause
        waiter.resolved = True
        self._wake(waiter)
