"""Borrowing, waiting and returning: what happens between the pool and its borrowers.

The hot pair is here, `borrow` and `give_back`; the rest is what comes when it cannot
go that way. What makes it right that the two may run beside any other event is in
`core`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import CO_GENERATOR
from typing import TypeAlias, TypeVar

from .commands import Sweep
from .entry import ALWAYS, Entry, Reason, Refusal, State, Tether, Waiter
from .planner import Planner

T = TypeVar("T")

# Module-level names keep the hot calls cheap.
IDLE, IN_USE = State.IDLE, State.IN_USE

# Who returns a connection within this many seconds has used it: it counts as alive, and
# whoever takes it over from him at once need not probe it.
BRIEF = 0.005

ReturnEvent: TypeAlias = Callable[[float, Entry[T]], None]


def is_lent(tether: Tether[T]) -> bool:
    """Tell whether somebody has what is tied to the pool by this tether."""
    entry = tether()
    return entry is not None and entry.state is IN_USE


def _may_move(tether: Tether[T]) -> bool:
    """Tell whether another thread may come to return it: if a generator has borrowed.

    Web frameworks begin one in a thread, as a dependency, and end it in another. (An
    asynchronous generator ends in the task in which it has begun.)
    """
    code = tether.note.code
    return code is not None and bool(code.co_flags & CO_GENERATOR)


class Lending(Planner[T]):
    """The part of the core that lends entries, takes them back, and keeps the queue."""

    # --- borrow and return: the hot pair ------------------------------------------

    def borrow(self, now: float, owner: object) -> Entry[T] | None:
        """Take the warmest idle entry, or None: then the driver calls `enqueue`.

        Nothing is taken while anybody waits, so a newcomer overtakes nobody. The caller
        examines the entry if `now >= entry.due_at`. May run at any time.

        Args:
            now: the time.
            owner: which thread or task holds it from now on; None if it may be any.
        """
        if not self._calm:
            return None
        try:
            entry = self._pop_idle()
        except IndexError:
            return None
        tether = entry.tether
        tether.owner = owner  # first: what is in use must not seem to be the last one's
        entry.state = IN_USE
        entry.lent_at = now
        tether.borrows += 1
        return entry

    def give_back(self, now: float, entry: Entry[T]) -> ReturnEvent[T] | None:
        """Take back a clean entry: on the idle stack, if the pool is calm.

        May run at any time.

        Returns:
            None if that is all; else the event that the driver has to tell next.

        Raises:
            ValueError: the entry is not in use: it was returned before.
        """
        if entry.state is not IN_USE:
            self._must_be_out(entry)
        tether, expires_at = entry.tether, entry.expires_at
        if tether.lost or not (self._calm and now < expires_at):
            return self.returned
        tether.usage_time += now - entry.lent_at
        entry.idle_since = entry.proven_at = now
        entry.state = IDLE
        self._push_idle(entry)
        # From here on the entry may be somebody else's. A drain shows in its deadline.
        if self._calm and entry.expires_at == expires_at:
            return None
        return self.look_again

    def returned(self, now: float, entry: Entry[T]) -> None:
        """Go on with a clean entry that came back while the pool was not calm."""
        if self._keep(now, entry):
            entry.proven_at = now
            if now < entry.lent_at + BRIEF:
                entry.due_at = self._trusted_until(now, entry)
            self._pass_on(now, entry)

    def _pass_on(self, now: float, entry: Entry[T]) -> None:
        """Give a clean entry to the first waiter, or shelve it."""
        if self._queue.waiting and self._fits:
            self._serve(now, entry)
            if not self._queue.waiting:
                self._calm = self._is_calm()
        else:
            self._shelve(entry)
            self._plan(now)

    def look_again(self, now: float, entry: Entry[T]) -> None:
        """See to an entry that was pushed on the stack just when the calm ended."""
        for idle in self._ledger.take_idle():
            if now < idle.expires_at:
                self._push_idle(idle)
                self._wake_by(self._idle_deadline(idle))
            else:
                self._retire(idle, self._why_expired(idle))
        self._plan(now)

    def give_back_dirty(self, now: float, entry: Entry[T]) -> None:
        """Take back an entry that needs a reset before the next borrower."""
        self._must_be_out(entry)
        if not self._keep(now, entry):
            return
        if self.settings.keep_idle or self._queue.waiting:
            self._ledger.reset(entry)
        else:
            self._retire(entry, Reason.UNPOOLED)
        self._plan(now)

    def give_back_broken(self, now: float, entry: Entry[T]) -> None:
        """Take back an entry whose resource is closed or beyond repair."""
        self._must_be_out(entry)
        self._counters.bad_returns += 1
        if self._keep(now, entry):
            self._retire(entry, Reason.BROKEN)
            self._plan(now)

    def give_back_dead(self, now: float, entry: Entry[T]) -> None:
        """Take back an entry that has died while it was lent; have its siblings probed.

        What has ended it mostly ended them, too (see `lost`). If its borrower closed
        it, they are alive, and a probe costs next to nothing.
        """
        self.give_back_broken(now, entry)
        self._sweep()

    def _sweep(self) -> None:
        if self._ledger.idle:
            self.commands.append(Sweep())

    def _must_be_out(self, entry: Entry[T]) -> None:
        out = entry.state is IN_USE or entry.state is State.ABORTED
        if not out and entry.reason is not Reason.FORKED:
            raise ValueError(f"returned a connection that is {entry.state.value}")

    def _keep(self, now: float, entry: Entry[T]) -> bool:
        """Tell whether a returned entry may stay; send away the one that may not."""
        entry.tether.usage_time += now - entry.lent_at
        entry.idle_since = now
        if self._ledger.left(entry):
            return False
        if now < entry.expires_at:
            return True
        self._retire(entry, self._why_expired(entry))
        self._plan(now)
        return False

    # --- liveness -----------------------------------------------------------------

    def examine(self, now: float, entry: Entry[T]) -> bool:
        """Tell whether a check is due on a borrowed entry, not just a probe.

        The caller is about to probe the entry; the next probe is due later. Needs no
        lock: the entry is the caller's.
        """
        entry.due_at = self._trusted_until(now, entry)
        return now >= entry.proven_at + self.settings.check_after

    def proven(self, now: float, entry: Entry[T]) -> None:
        """Record that a borrowed entry passed its check. Needs no lock either."""
        entry.proven_at = now
        entry.due_at = self._trusted_until(now, entry)

    def _trusted_until(self, now: float, entry: Entry[T]) -> float:
        until = now + self._trust
        return until if until < entry.expires_at else entry.expires_at

    def is_overdue(self, now: float, entry: Entry[T]) -> bool:
        """Tell whether a borrowed entry is too old to be used.

        What comes straight from its connect, or from a borrower, is not: else nobody
        would be served where max_lifetime is next to nothing.
        """
        return now >= entry.expires_at and entry.proven_at < entry.lent_at

    def overdue(self, now: float, entry: Entry[T]) -> None:
        """Retire a borrowed entry that is over its age before anybody used it."""
        entry.tether.borrows -= 1
        if self._ledger.left(entry):
            return
        self._retire(entry, self._why_expired(entry))
        self._plan(now)

    def lost(self, now: float, entry: Entry[T]) -> list[Entry[T]]:
        """Retire a borrowed entry that was found dead; suspect its idle siblings.

        What ended one session (a restart, a failover, an administrator) mostly ended
        its siblings too. The caller probes those returned, at once and without a round
        trip, and reports each through `checked`.
        """
        entry.tether.borrows -= 1
        self._counters.lost += 1
        if self._ledger.left(entry):
            return []
        self._retire(entry, Reason.LOST)
        suspects = self.suspect(now)
        self._plan(now)
        return suspects

    def suspect(self, now: float) -> list[Entry[T]]:
        """Take all idle entries for an examination by the caller, warmest first."""
        suspects = self._ledger.take_idle()[::-1]
        for entry in suspects:
            self._ledger.suspect(entry)
            entry.proven_at = entry.due_at = ALWAYS
        return suspects

    # --- the queue ----------------------------------------------------------------

    def enqueue(self, now: float, waiter: Waiter[T], again: bool) -> None:
        """Put a waiter into the queue. It may be resolved on return.

        Args:
            now: the time.
            waiter: who waits.
            again: the caller was served something dead and goes to the head of the
                queue: it lost its place through no fault of its own.
        """
        waiter.since = now
        limit = self.settings.max_waiting
        self._calm = False
        if not self.open:
            self._queue.refuse(waiter, Refusal.CLOSED, None)
            return
        overload = self._overload
        if overload.on and not self._queue.waiting:
            overload.fine(now)
        self._queue.add(waiter, first=again)
        if self._outage.since is not None:
            self._outage.hurry(now)
        ledger = self._ledger
        full = ledger.size >= self.settings.max_size
        if ledger.idle or not full or self._find_lost(now):
            self._plan(now)
            if waiter.resolved:
                return
        elif (held := self._deadlock(waiter)) is not None:
            waiter.held = held
            self._queue.remove(now, waiter, Refusal.NESTED, None)
            self._calm = self._is_calm()
            return
        if overload.on:
            due_at = self._shed(now)
            if len(self._queue.waiting) == 2:  # nobody was to be shed until now
                overload.look_at = min(overload.look_at, due_at)
                self._wake_by(overload.look_at)
        if not again and limit and len(self._queue.waiting) > limit:
            self._queue.remove(now, waiter, Refusal.FULL, self._outage.error)
            self._calm = self._is_calm()
        elif not again:
            self._counters.queued += 1

    def _deadlock(self, waiter: Waiter[T]) -> Tether[T] | None:
        """Return what a newcomer holds if he would have to wait for himself.

        So it is if every place is lent to somebody who waits, and he closes the ring.
        """
        owner = waiter.owner
        if owner is None or self.settings.nested != "error":
            return None
        for held in self._ledger.tethers:
            if held.owner == owner and is_lent(held):
                break
        else:
            return None
        waiting = {other.owner for other in self._queue.waiting} - {None}
        ring = all(
            t.owner in waiting and is_lent(t) and not _may_move(t)
            for t in self._ledger.tethers
        )
        return held if ring else None

    def time_out(self, now: float, waiter: Waiter[T]) -> None:
        """Take a waiter out of the queue, in O(1), unless it was just served."""
        if not waiter.resolved:
            self._queue.remove(now, waiter, Refusal.TIMEOUT, self._outage.error)
            self._calm = self._is_calm()

    def overrun(self, now: float, waiter: Waiter[T]) -> None:
        """Refuse a borrower whose time is up, in the midst of a borrow."""
        self._queue.refuse(waiter, Refusal.TIMEOUT, self._outage.error)
        self.wakes.remove(waiter)

    def abandon(self, now: float, waiter: Waiter[T]) -> None:
        """Forget a waiter that was interrupted.

        If it was served in the same moment, the entry goes to the next in the queue;
        nobody has used it, so nothing is proven.
        """
        if not waiter.resolved:
            self._queue.leave(now, waiter)
            self._calm = self._is_calm()
        elif waiter.entry is not None:
            entry, waiter.entry = waiter.entry, None
            if self._keep(now, entry):
                self._pass_on(now, entry)
