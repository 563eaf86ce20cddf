"""PoolCore: who owns which connection, and what happens next.

Rule 1: whatever changes who owns a connection is an event, a method of this class. The
steps themselves are in `ledger` (entries) and `queue` (waiters), which decide nothing.
Rule 2: record the fact, then plan. `borrow` and `give_back` are hot and O(1); every
other event records what happened and runs `_plan` (in `planner`), which is idempotent.
Nothing else starts a connect.
Rule 3: time comes in as an argument, and deadlines are absolute numbers, computed once.
Rule 4: the driver serialises the events (by a lock, or an event loop) and, after each,
takes what is in `wakes` and `commands`. Only the hot pair may run beside another event,
and beside itself. What makes that right:

- An idle entry belongs to who pops it off the stack, and until he pushes it back. Pops
  and pushes of a deque are atomic, and there is no other way to come by an idle entry.
- A return pushes, *then* looks whether the pool is still calm, and if not, has it look
  again. A waiter ends the calm, *then* looks at the stack. So one sees the other.
- What is counted at a borrow is counted on the entry, which the borrower owns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from .commands import Alarm
from .entry import ALWAYS, NEVER, Entry, Reason, Refusal, State, Tether, Waiter
from .planner import Planner
from .settings import Settings
from .statistics import PoolStatistics, snapshot

T = TypeVar("T")

# Module-level names keep the hot calls cheap.
IDLE, IN_USE = State.IDLE, State.IN_USE

# Up to this share of max_lifetime is taken off, drawn once for each connection, so that
# connections opened together do not expire together (psycopg_pool's figure).
LIFETIME_JITTER = 0.05

# Who returns a connection within this many seconds has used it: it counts as alive, and
# whoever takes it over from him at once need not probe it.
BRIEF = 0.005

ReturnEvent: TypeAlias = Callable[[float, Entry[T]], None]


def _is_lent(tether: Tether[T]) -> bool:
    entry = tether()
    return entry is not None and entry.state is IN_USE


class PoolCore(Planner[T]):
    """The decisions of one pool. See the module's docstring for the rules.

    Args:
        settings: what the user asked for.
        jitter: gives a random number from 0 to 1 at each call.
    """

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
        expires_at = entry.expires_at
        if not (self._calm and now < expires_at):
            return self.returned
        entry.tether.usage_time += now - entry.lent_at
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

    def checked(self, now: float, entry: Entry[T], alive: bool, proven: bool) -> None:
        """Take back an entry after an examination in the background.

        Args:
            now: the time.
            entry: the entry.
            alive: False: it is dead.
            proven: a check with a round trip has shown that it is alive; otherwise a
                check stays due.
        """
        if self._ledger.left(entry):
            return
        self._ledger.back(entry)
        if not alive:
            self._counters.lost += 1
            self._retire(entry, Reason.LOST)
        else:
            if proven:
                self.proven(now, entry)
            self._restore(entry)
        self._plan(now)

    def was_reset(self, now: float, entry: Entry[T], clean: bool) -> None:
        """Take back an entry after its reset."""
        if self._ledger.left(entry):
            return
        self._ledger.back(entry)
        if clean:
            entry.proven_at = now
            self._restore(entry)
        else:
            self._counters.bad_returns += 1
            self._retire(entry, Reason.SOILED)
        self._plan(now)

    def _restore(self, entry: Entry[T]) -> None:
        """Shelve an entry that was away, unless it was drained meanwhile."""
        if entry.expires_at > ALWAYS:
            self._shelve(entry)
        else:
            self._retire(entry, self._why_expired(entry))

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
            if held.owner == owner and _is_lent(held):
                break
        else:
            return None
        waiting = {other.owner for other in self._queue.waiting} - {None}
        ring = all(t.owner in waiting and _is_lent(t) for t in self._ledger.tethers)
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

    # --- connecting and closing ---------------------------------------------------

    def connected(self, now: float, entry: Entry[T], resource: T, took: float) -> None:
        """Take in a new connection: for the first waiter, or idle."""
        entry.resource = resource
        entry.connected = True
        self._counters.connect_time += took
        if self._ledger.left(entry):
            return
        self._ledger.back(entry)
        self._outage.over()
        if entry.expires_at > ALWAYS:  # else it was drained while it connected
            life = self.settings.max_lifetime
            entry.expires_at = now + life * (1.0 - LIFETIME_JITTER * self._jitter())
        self.proven(now, entry)
        self._restore(entry)
        coldest = self._ledger.coldest
        if coldest is not None:
            # One more than min_size may make the coldest one reapable.
            self._wake_by(self._idle_deadline(coldest))
        self._plan(now)

    def connect_failed(
        self, now: float, entry: Entry[T], error: BaseException, permanent: bool
    ) -> None:
        """Record a failed connect: back off, or tell those whom waiting cannot help."""
        self._counters.connect_errors += 1
        if self._ledger.left(entry):
            return
        self._ledger.forget(entry)
        if self.open:
            if entry.inherited:
                self._vacancies.append(entry.idle_since)
            waited = bool(self._queue.waiting)
            patience = self.settings.reconnect_timeout
            if self._outage.failed(now, entry.asked_at, error, waited, patience):
                self.commands.append(Alarm())
            if permanent and not self._ledger.established:
                # No connection is out that could come back and serve them. Who came
                # after this attempt had begun gets another: things may be mended.
                self._queue.refuse_all(now, Refusal.FAILED, error, entry.asked_at)
        self._plan(now)

    def was_closed(self, now: float, entry: Entry[T]) -> None:
        """Free the place of a closed entry."""
        if entry.tether in self._ledger.tethers:  # else `abort` has freed it already
            self._ledger.forget(entry)
            self._plan(now)

    def collect(self, now: float) -> None:
        """Look for entries that were garbage-collected."""
        self._find_lost(now)
        self._plan(now)

    # --- the pool as a whole ------------------------------------------------------

    def start(self, now: float) -> None:
        """Open the pool, for the first time or again."""
        if not self.open:
            self.open, self.fresh = True, False
            self._outage.over()
            # Who waits for it to be empty has waited for long enough.
            self._queue.announce(self._queue.for_empty)
            self._plan(now)

    def close(self, now: float) -> None:
        """Refuse whoever waits or comes, retire the idle; the rest leave on return."""
        self.fresh = False
        if self.open:
            self.open = False
            self._vacancies.clear()
            self._queue.refuse_all(now, Refusal.CLOSED, None, now)
            self.drain(now)
            self.wake_at = NEVER

    def drain(self, now: float) -> None:
        """Replace every connection: idle ones now, the others when they come back."""
        for entry in self._ledger.entries():
            entry.expires_at = entry.due_at = ALWAYS
        self._calm = False
        for entry in self._ledger.take_idle():
            self._retire(entry, self._why_expired(entry))
        self._plan(now)

    def abort_connects(self, now: float) -> None:
        """Wait no longer for what a closed pool has been opening: it may hang."""
        if not self.open:
            self._ledger.abort_connects()
            self._plan(now)

    def abort(self, now: float) -> None:
        """Cut off what is left of a closed pool: its borrowers had their time.

        Not if it was opened again meanwhile; they leave when they come back.
        """
        if not self.open:
            self._ledger.abort()
            self._plan(now)

    def configure(self, now: float, settings: Settings) -> None:
        """Take new settings; connections beyond a smaller max_size leave on return."""
        self.settings = settings
        self._trust = settings.trust
        self._overload.configure(now, settings)
        if self.open:
            self._calm = False
            self._wake_by(now)
            self._plan(now)

    def when_ready(self, now: float, waiter: Waiter[T]) -> None:
        """Resolve the waiter when min_size connections are established."""
        waiter.since = now
        if self.open:
            self._queue.for_ready[waiter] = None
            self._plan(now)
        else:
            self._queue.remove(now, waiter, Refusal.CLOSED, None)

    def when_empty(self, now: float, waiter: Waiter[T]) -> None:
        """Resolve the waiter when a closed pool holds nothing any more."""
        self._queue.for_empty[waiter] = None
        self._plan(now)

    # --- forks --------------------------------------------------------------------

    def disown(self) -> list[T]:
        """Give up everything, in a forked child: it belongs to the parent process.

        Whoever returns an entry that was lent before the fork is not complained of. The
        core may be in the midst of any event, of a thread that does not exist here, so
        it is of no further use; `successor` is.

        Returns:
            The resources of all entries.
        """
        return self._ledger.disown()

    def successor(self) -> PoolCore[T]:
        """Make a core with these settings that has nothing yet, and is as open.

        It plans at the first event.
        """
        core: PoolCore[T] = PoolCore(self.settings, self._jitter)
        core.open, core.fresh = self.open, self.fresh
        return core

    # --- interruptions ------------------------------------------------------------

    def mend(self, now: float) -> None:
        """Make whole what an interruption has torn in the midst of an event.

        Who is half answered gets the answer, the counts are taken anew, and what is due
        is looked for: the interrupted event may have been the one to see it.
        """
        self._ledger.mend()
        self._queue.mend(now)
        self.tick(now)

    # --- for people ---------------------------------------------------------------

    @property
    def failing_since(self) -> float | None:
        """Since when connecting fails; None while it works."""
        return self._outage.since

    @property
    def last_error(self) -> BaseException | None:
        """The error of the latest connect, while connecting fails."""
        return self._outage.error

    def lent(self) -> list[Tether[T]]:
        """Return the tethers of what is lent."""
        return [t for t in self._ledger.tethers if _is_lent(t)]

    def idle_entries(self) -> list[Entry[T]]:
        """Return the idle entries, coldest first."""
        return list(self._ledger.idle)

    def waiters(self) -> list[Waiter[T]]:
        """Return those who wait, longest first."""
        return list(self._queue.waiting)

    def statistics(self) -> PoolStatistics:
        """Take a snapshot."""
        return snapshot(
            self.settings, self._ledger, self._queue, self._outage, self._counters
        )
