"""Which entries there are, in which state; every step from one state to another.

Conservation lives here: an entry is in exactly one place, the counts add up, and an
entry holds its place until it is really closed, so that the server never sees more than
there are places. *Whether* a step is taken is decided in `core`.

Only the pops and pushes on `idle` may happen beside the methods (see `core`). So a
method takes idle entries out one by one, and expects the stack to change at any time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .commands import Abort, Check, Close, Command, Connect, Reset
from .entry import Entry, Reason, State
from .statistics import Counters

T = TypeVar("T")


class Ledger(Generic[T]):
    """The places of a pool.

    Args:
        emit: takes the commands that go with the steps.
        counters: takes over what was counted on an entry that leaves.
    """

    def __init__(self, emit: Callable[[Command[T]], None], counters: Counters) -> None:
        # Every entry that holds a place, so also those being opened and closed. Dicts,
        # not sets: they are walked, and a replay is to be the same.
        self.entries: dict[Entry[T], None] = {}
        # Right end warm (borrowed next), left end cold (reaped next).
        self.idle: deque[Entry[T]] = deque()
        self.connecting = self.checking = self.resetting = self.closing = 0
        self._emit = emit
        self._counters = counters

    # --- counts -------------------------------------------------------------------

    @property
    def live(self) -> int:
        """How many places are taken, and not about to be free."""
        return len(self.entries) - self.closing

    @property
    def established(self) -> int:
        """How many hold a connection that can be, or come to be, used."""
        return self.live - self.connecting

    def mend(self) -> None:
        """Count anew what an interruption in the midst of a step has left miscounted.

        An entry that was in nobody's hands but the step's is gone with it.
        """
        states = Counter(entry.state for entry in self.entries)
        for entry in list(self.entries):
            if entry.state is State.GONE:
                del self.entries[entry]
        self.connecting = states[State.CONNECTING]
        self.checking = states[State.CHECKING]
        self.resetting = states[State.RESETTING]
        self.closing = states[State.CLOSING]

    # --- in and out ---------------------------------------------------------------

    def connect(self, now: float, idle_since: float, inherited: bool) -> None:
        """Take a place and have a connection opened for it."""
        entry: Entry[T] = Entry(now, idle_since, inherited)
        self.entries[entry] = None
        self.connecting += 1
        self._counters.connects += 1
        self._emit(Connect(entry))

    def retire(self, entry: Entry[T], reason: Reason) -> bool:
        """Have an entry closed; False if it has left the pool before."""
        if self.left(entry):  # it was pushed on the stack just when it was cut off
            return False
        entry.state = State.CLOSING
        entry.reason = reason
        self.closing += 1
        self._emit(Close(entry))
        return True

    def forget(self, entry: Entry[T]) -> None:
        """Free the place of an entry that is closed, or never was open."""
        entry.state = State.GONE
        del self.entries[entry]
        self._counters.take_over(entry)

    def abort(self) -> None:
        """Free all places at once; cut off what is still used."""
        for entry in self.entries:
            self._counters.take_over(entry)
            if entry.state is State.CLOSING:
                entry.state = State.GONE
                continue
            entry.state = State.ABORTED
            entry.reason = Reason.CLOSED
            if hasattr(entry, "resource"):
                self._emit(Abort(entry))
        self.entries.clear()
        self.connecting = self.checking = self.resetting = self.closing = 0

    def left(self, entry: Entry[T]) -> bool:
        """Tell whether `abort` took this entry out meanwhile; end it if so."""
        if entry in self.entries:
            return False
        if entry.state is not State.GONE and hasattr(entry, "resource"):
            self._emit(Close(entry))
        entry.state = State.GONE
        return True

    # --- away and back ------------------------------------------------------------

    def check(self, entry: Entry[T]) -> None:
        """Have an entry checked that was taken off the stack."""
        self.suspect(entry)
        self._emit(Check(entry))

    def suspect(self, entry: Entry[T]) -> None:
        """Note that an entry taken off the stack is being examined."""
        entry.state = State.CHECKING
        self.checking += 1

    def reset(self, entry: Entry[T]) -> None:
        """Have a returned entry reset."""
        entry.state = State.RESETTING
        self.resetting += 1
        self._emit(Reset(entry))

    def lend(self, now: float, entry: Entry[T]) -> None:
        """Hand an entry to a waiter."""
        entry.state = State.IN_USE
        entry.lent_at = now
        entry.borrows += 1

    # --- the idle stack -----------------------------------------------------------

    def shelve(self, entry: Entry[T]) -> None:
        """Put an entry on the idle stack: at the cold end if it is the coldest."""
        entry.state = State.IDLE
        coldest = self.coldest
        if coldest is not None and entry.idle_since <= coldest.idle_since:
            self.idle.appendleft(entry)
        else:
            self.idle.append(entry)

    @property
    def coldest(self) -> Entry[T] | None:
        """The entry that has been idle for the longest time."""
        try:
            return self.idle[0]
        except IndexError:  # a borrower may have been faster than any test of length
            return None

    def pop_coldest(self) -> Entry[T] | None:
        """Take the coldest idle entry."""
        try:
            return self.idle.popleft()
        except IndexError:
            return None

    def pop_warmest(self) -> Entry[T] | None:
        """Take the warmest idle entry."""
        try:
            return self.idle.pop()
        except IndexError:
            return None

    def take_idle(self) -> list[Entry[T]]:
        """Take all idle entries, coldest first."""
        taken: list[Entry[T]] = []
        while (entry := self.pop_coldest()) is not None:
            taken.append(entry)
        return taken
