"""Which entries there are, in which state; every step from one state to another.

Conservation lives here: an entry is in exactly one place, the counts add up, and an
entry holds its place until it is really closed, so that the server never sees more than
there are places. *Whether* a step is taken is decided in `core`.

The ledger does not own the entries. Whoever has one owns it: the idle stack, a
borrower, a command. What they all lose is garbage-collected, which is told to `lost`.

Only the pops and pushes on `idle` may happen beside the methods (see `core`). So a
method takes idle entries out one by one, and expects the stack to change at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from .commands import Abort, Check, Close, Command, Connect, Reset
from .entry import ALWAYS, Away, Entry, Reason, State, Tether
from .statistics import Counters

T = TypeVar("T")

# What entries are away for, by their states.
AWAY: dict[State, Away] = {
    State.CONNECTING: "connecting",
    State.CHECKING: "checking",
    State.RESETTING: "resetting",
    State.CLOSING: "closing",
}


class Ledger(Generic[T]):
    """The places of a pool.

    Args:
        emit: takes the commands that go with the steps.
        lost: takes the tethers of entries that are no more; called by the garbage
            collector, so at any time, in any thread.
        counters: takes over what was counted on an entry that leaves.
    """

    def __init__(
        self,
        emit: Callable[[Command[T]], None],
        lost: Callable[[Tether[T]], None],
        counters: Counters,
    ) -> None:
        # One for every place that is taken, so also while a connection is being opened
        # or closed. Dicts, not sets: they are walked, and a replay is to be the same.
        self.tethers: dict[Tether[T], None] = {}
        # Right end warm (borrowed next), left end cold (reaped next).
        self.idle: deque[Entry[T]] = deque()
        # How many are neither idle nor lent.
        self.away: dict[Away, int]
        self.away = {"connecting": 0, "checking": 0, "resetting": 0, "closing": 0}
        self._emit = emit
        self._lost = lost
        self._counters = counters

    # --- counts -------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many places are taken."""
        return len(self.tethers)

    @property
    def connecting(self) -> int:
        """How many connections are being opened."""
        return self.away["connecting"]

    @property
    def live(self) -> int:
        """How many places are taken, and not about to be free."""
        return len(self.tethers) - self.away["closing"]

    @property
    def established(self) -> int:
        """How many hold a connection that can be, or come to be, used."""
        return self.live - self.connecting

    def entries(self) -> Iterator[Entry[T]]:
        """Give the entries that hold a place."""
        for tether in self.tethers:
            if (entry := tether()) is not None:
                yield entry

    def _count_as(self, tether: Tether[T], away: Away | None) -> None:
        if tether.away is not None:
            self.away[tether.away] -= 1
        tether.away = away
        if away is not None:
            self.away[away] += 1

    def mend(self) -> None:
        """Count anew what an interruption in the midst of a step has left miscounted.

        An entry that was in nobody's hands but the step's is gone with it.
        """
        self.away = dict.fromkeys(self.away, 0)
        for tether in list(self.tethers):
            entry = tether()
            tether.away = None if entry is None else AWAY.get(entry.state)
            if tether.away is not None:
                self.away[tether.away] += 1
            if entry is not None and entry.state is State.GONE:
                self.free(tether)

    # --- in and out ---------------------------------------------------------------

    def connect(
        self,
        now: float,
        idle_since: float,
        inherited: bool,
        predecessor: Tether[T] | None = None,
    ) -> None:
        """Take a place and have a connection opened for it."""
        entry: Entry[T] = Entry(now, idle_since, inherited)
        entry.predecessor = predecessor
        entry.tether = tether = Tether(entry, self._lost)
        self.tethers[tether] = None
        self._count_as(tether, "connecting")
        self._counters.connects += 1
        self._emit(Connect(entry))

    def retire(self, entry: Entry[T], reason: Reason) -> bool:
        """Have an entry closed; False if it has left the pool before."""
        if self.left(entry):  # it was pushed on the stack just when it was cut off
            return False
        entry.state = State.CLOSING
        entry.reason = reason
        self._count_as(entry.tether, "closing")
        self._emit(Close(entry))
        return True

    def forget(self, entry: Entry[T]) -> None:
        """Free the place of an entry that is closed, or never was open."""
        entry.state = State.GONE
        self.free(entry.tether)

    def free(self, tether: Tether[T]) -> bool:
        """Free a place; False if it is free already."""
        if tether not in self.tethers:
            return False
        del self.tethers[tether]
        self._count_as(tether, None)
        self._counters.take_over(tether)
        return True

    def abort(self) -> None:
        """Free all places at once; cut off what is still used."""
        for tether in list(self.tethers):
            self._cut_off(tether)

    def disown(self) -> list[T]:
        """Give up all entries, in whatever state, and return their resources."""
        resources: list[T] = []
        for entry in self.entries():
            entry.state, entry.reason = State.GONE, Reason.FORKED
            entry.expires_at = entry.due_at = ALWAYS
            if entry.connected and (resource := entry.reach()) is not None:
                resources.append(resource)
        self.tethers.clear()
        self.idle.clear()
        return resources

    def abort_connects(self) -> None:
        """Free the places of what is being opened."""
        for tether in list(self.tethers):
            if tether.away == "connecting":
                self._cut_off(tether)

    def _cut_off(self, tether: Tether[T]) -> None:
        entry = tether()
        self.free(tether)
        if entry is None:
            return
        if entry.state is State.CLOSING:
            entry.state = State.GONE
            return
        entry.state = State.ABORTED
        entry.reason = Reason.CLOSED
        if entry.connected:
            self._emit(Abort(entry))

    def left(self, entry: Entry[T]) -> bool:
        """Tell whether this entry was taken out meanwhile, or lost; end it if so."""
        if entry.tether in self.tethers and not entry.tether.lost:
            return False
        if entry.state is not State.GONE and entry.connected:
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
        self._count_as(entry.tether, "checking")

    def reset(self, entry: Entry[T]) -> None:
        """Have a returned entry reset."""
        entry.state = State.RESETTING
        self._count_as(entry.tether, "resetting")
        self._emit(Reset(entry))

    def back(self, entry: Entry[T]) -> None:
        """Note that whatever an entry was away for is done."""
        self._count_as(entry.tether, None)

    def lend(self, now: float, entry: Entry[T], owner: object) -> None:
        """Hand an entry to a waiter."""
        tether = entry.tether
        tether.owner = owner
        entry.state = State.IN_USE
        entry.lent_at = now
        tether.borrows += 1

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

    def withdraw(self, entry: Entry[T]) -> bool:
        """Take this entry, if it is idle."""
        try:
            self.idle.remove(entry)
        except ValueError:
            return False
        return True

    def take_idle(self) -> list[Entry[T]]:
        """Take all idle entries, coldest first."""
        taken: list[Entry[T]] = []
        while (entry := self.pop_coldest()) is not None:
            taken.append(entry)
        return taken
