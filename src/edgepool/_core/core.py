"""PoolCore: who owns which connection, and what happens next.

Rule 1: whatever changes who owns a connection is an event, a method of this class;
those of a borrow, a wait and a return are in `lending`. The steps themselves are in
`ledger` (entries) and `queue` (waiters), which decide nothing.
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

from typing import TypeVar

from .commands import Alarm
from .entry import ALWAYS, NEVER, Entry, Reason, Refusal, Tether, Waiter
from .error_class import PERMANENT, ErrorClass
from .lending import Lending, is_lent
from .settings import Settings
from .statistics import PoolStatistics, snapshot

T = TypeVar("T")

# Up to this share of max_lifetime is taken off, drawn once for each connection, so that
# connections opened together do not expire together (psycopg_pool's figure).
LIFETIME_JITTER = 0.05


class PoolCore(Lending[T]):
    """The decisions of one pool. See the module's docstring for the rules.

    Args:
        settings: what the user asked for.
        jitter: gives a random number from 0 to 1 at each call.
    """

    # --- what was done in the background ------------------------------------------

    def connected(
        self,
        now: float,
        entry: Entry[T],
        resource: T,
        took: float,
        lasts: float = NEVER,
    ) -> None:
        """Take in a new connection: for the first waiter, or idle.

        Args:
            now: the time.
            entry: its place.
            resource: the connection.
            took: how long it took to open it.
            lasts: how long it may be used, if that is not for the pool to say.
        """
        entry.resource = resource
        entry.connected = True
        self._counters.connect_time += took
        if self._ledger.left(entry):
            return
        self._ledger.back(entry)
        self._outage.over()
        self._ceiling.connected(now, self._ledger.established)
        if entry.expires_at > ALWAYS:  # else it was drained while it connected
            life = min(self.settings.max_lifetime, lasts)
            end = now + life * (1.0 - LIFETIME_JITTER * self._jitter())
            entry.expires_at = min(entry.expires_at, end)
            if (ahead := self.settings.renew_ahead(life)) > 0:
                entry.renew_at = min(entry.renew_at, entry.expires_at - ahead)
            self._renew_by(entry.renew_at)
        # For a check. A probe is due: this may be told late, by an event loop that was
        # busy, or in a process that was frozen.
        entry.proven_at = now
        self._restore(entry)
        if entry.predecessor is not None:
            self._make_way(now, entry.predecessor)
        coldest = self._ledger.coldest
        if coldest is not None:
            # One more than min_size may make the coldest one reapable.
            self._wake_by(self._idle_deadline(coldest))
        self._plan(now)

    def connect_failed(
        self, now: float, entry: Entry[T], error: BaseException, kind: ErrorClass
    ) -> None:
        """Record a failed connect: back off, or tell those whom waiting cannot help.

        What is connected, but could not be configured, is closed.
        """
        self._counters.connects_refused += kind is ErrorClass.BACK_OFF
        self._counters.connect_errors += 1
        if self._ledger.left(entry):
            return
        if entry.connected:
            self._ledger.retire(entry, Reason.UNCONFIGURED)
        else:
            self._ledger.forget(entry)
        before = entry.predecessor() if entry.predecessor else None
        if before is not None:
            before.succeeded = False
            self._renew_by(now + before.patience)
        if self.open:
            if entry.inherited:
                self._vacancies.append(entry.idle_since)
            waited = bool(self._queue.waiting)
            patience = self.settings.reconnect_timeout
            if self._outage.failed(now, entry.asked_at, error, waited, patience):
                self.commands.append(Alarm())
            self._heed(now, kind, entry.asked_at)
            if kind in PERMANENT and not self._ledger.established:
                # No connection is out that could come back and serve them. Who came
                # after this attempt had begun gets another: things may be mended.
                self._queue.refuse_all(now, Refusal.FAILED, error, entry.asked_at)
        self._plan(now)

    def noticed(self, now: float, kind: ErrorClass) -> None:
        """Record what an error of a borrower's says about more than his connection."""
        self._counters.read_only_errors += kind is ErrorClass.READ_ONLY
        if self.open:
            self._heed(now, kind, now)

    def _heed(self, now: float, kind: ErrorClass, asked_at: float) -> None:
        if kind is ErrorClass.BACK_OFF:
            self._ceiling.refused(now, asked_at, self._ledger.established)
        elif kind is ErrorClass.SUSPECT:
            self._sweep()

    def was_closed(self, now: float, entry: Entry[T]) -> None:
        """Free the place of a closed entry."""
        if entry.tether in self._ledger.tethers:  # else `abort` has freed it already
            self._ledger.forget(entry)
            self._plan(now)

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
                entry.proven_at = now
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
            self._ceiling.lifted()
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

    def drain_over(self, now: float, over: float) -> None:
        """Replace every connection, one after the other, within so many seconds."""
        entries = list(self._ledger.entries())
        for number, entry in enumerate(entries):
            begin, end = (now + over * (number + i) / len(entries) for i in (0, 1))
            entry.renew_at = min(entry.renew_at, begin)
            entry.expires_at = min(entry.expires_at, end)
            entry.due_at = min(entry.due_at, end)
            self._wake_by(end)
        self._renew_at = now
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

    def lent(self) -> list[Tether[T]]:
        """Return the tethers of what is lent."""
        return [t for t in self._ledger.tethers if is_lent(t)]

    def idle_entries(self) -> list[Entry[T]]:
        """Return the idle entries, coldest first."""
        return list(self._ledger.idle)

    def waiters(self) -> list[Waiter[T]]:
        """Return those who wait, longest first."""
        return list(self._queue.waiting)

    def statistics(self) -> PoolStatistics:
        """Take a snapshot."""
        return snapshot(
            self.settings,
            self._ledger,
            self._queue,
            self._outage,
            self._ceiling,
            self._counters,
        )
