"""What the pool wants: the one place where anything is started or ended.

`plan` looks at what there is and brings it towards what the settings and the queue ask
for. It is idempotent, so a fact that nobody acted upon is acted upon at the next one:
forgetting to hand a returned connection to the queue would not be a bug.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .ceiling import Ceiling
from .commands import Command
from .entry import ALWAYS, NEVER, Entry, Reason, State, Tether, Waiter
from .ledger import Ledger
from .outage import Outage
from .overload import Overload
from .queue import WaitQueue
from .settings import Settings
from .statistics import Counters

T = TypeVar("T")

# After these the pool has as many connections as it wants; after the others the place
# is filled again, though nobody may be asking for it just now.
SHRINKING = (Reason.UNUSED, Reason.SURPLUS, Reason.UNPOOLED, Reason.CLOSED)

# How often to look whether what is lent beyond its age has come back, in seconds. A
# return sees it as a rule, but for one that began before the age was reached.
OVERDUE = 60.0

# With a max_lifetime next to nothing, what nobody borrows would be replaced all the
# time. So what has become too old is not replaced sooner than this after it was asked
# for, in seconds, unless somebody waits.
BRIEFEST = 1.0

# A connect that takes longer than this, in seconds, may be lost in the network for
# good. Then another one is tried beside it, if somebody waits, so that a network that
# is back serves whoever comes although an attempt from before still hangs. So much
# apart they are no load, also where connects take long for other reasons.
HANGS_AFTER = 1.0


class Planner(Generic[T]):
    """The plan of one pool, and everything it is made from.

    `PoolCore` adds what may happen; a subclass, for its hot pair reads `_calm`.

    Args:
        settings: what the user asked for.
        jitter: gives a random number from 0 to 1 at each call.
    """

    def __init__(self, settings: Settings, jitter: Callable[[], float]) -> None:
        self.settings = settings
        self._trust = settings.trust
        self.open = False
        # Neither opened nor closed so far.
        self.fresh = True
        # The two outboxes. The driver empties them after each event.
        self.wakes: list[Waiter[T]] = []
        self.commands: list[Command[T]] = []
        # What was lent when it was lost, for the driver to tell of.
        self.leaked: list[Tether[T]] = []
        # No later than the next moment at which `tick` has something to do.
        self.wake_at = NEVER
        self._jitter = jitter
        self._counters = counters = Counters()
        self._ledger = ledger = Ledger[T](self._emit, self._drop, counters)
        self._queue = WaitQueue[T](self._wake, counters)
        self._outage = Outage(jitter)
        self._ceiling = Ceiling(jitter)
        self._overload = Overload(settings)
        self._pop_idle = ledger.idle.pop
        self._push_idle = ledger.idle.append
        # Idle clocks of retired connections whose places are to be filled again. A
        # replacement inherits the clock, else max_idle would never see it unused.
        self._vacancies: deque[float] = deque()
        self._next_lane_at = ALWAYS
        # From when on one may be opened that nobody waits for.
        self._spare_at = ALWAYS
        # No later than the next moment at which `_renew` has something to do.
        self._renew_at = NEVER
        # From when on one may start beside those that are under way and may hang.
        self._beside_at = ALWAYS
        # True while a clean connection that comes back can only go on the idle stack,
        # and whoever comes can only take one from there.
        self._calm = False

    def _emit(self, command: Command[T]) -> None:
        self.commands.append(command)

    def _wake(self, waiter: Waiter[T]) -> None:
        self.wakes.append(waiter)

    def nudge(self) -> None:
        """Have `collect` told soon: the driver's, which puts its own in this place.

        Called by the garbage collector: in any thread, in the midst of anything.
        """

    def _drop(self, tether: Tether[T]) -> None:
        tether.lost = True
        if tether in self._ledger.tethers:  # else it has left in order
            self.nudge()

    def _plan(self, now: float) -> None:
        """Bring the pool towards what the settings and the queue ask for."""
        ledger, queue = self._ledger, self._queue
        while not self._fits and (entry := ledger.pop_coldest()) is not None:
            self._retire(entry, Reason.SURPLUS)
        # Whoever pushes an entry after this look at `idle` has the pool look again.
        while queue.waiting and ledger.idle:
            if (entry := ledger.pop_warmest()) is not None:
                self._serve(now, entry)
        if not (self.open and self.settings.keep_idle):
            reason = Reason.UNPOOLED if self.open else Reason.CLOSED
            for entry in ledger.take_idle():
                self._retire(entry, reason)
        if queue.for_ready and ledger.established >= self.settings.min_size:
            queue.announce(queue.for_ready)
        if self.open:
            self._grow(now)
            if now >= self._renew_at:
                self._renew(now)
        if queue.for_empty and not (self.open or ledger.tethers):
            queue.announce(queue.for_empty)
        self._calm = self._is_calm()

    def _grow(self, now: float) -> None:
        settings, ledger, ceiling = self.settings, self._ledger, self._ceiling
        ceiling.look(now)
        self._wake_by(ceiling.forgotten_at)
        room = settings.max_size - ledger.size
        if room <= 0:
            return
        vacancies = self._vacancies
        while vacancies and ledger.live + len(vacancies) > settings.max_size:
            vacancies.popleft()
        wanted = max(
            settings.min_size - ledger.live,
            len(self._queue.waiting) - ledger.connecting,
            len(vacancies),
        )
        lanes = settings.max_connecting if self._outage.since is None else 1
        starting = min(wanted, room, lanes - ledger.connecting)
        if starting <= 0 and self._may_try_beside and now >= self._beside_at:
            starting = 1
        for _ in range(starting):
            may_at = max(self._outage.retry_at, ceiling.opens_at(ledger.size))
            if ledger.connecting:
                may_at = max(may_at, self._next_lane_at)
            if not (self._queue.waiting or self._queue.for_ready):
                may_at = max(may_at, self._spare_at)
            if now < may_at:
                self._wake_by(may_at)
                return
            inherited = bool(vacancies)
            idle_since = vacancies.pop() if inherited else now
            self._connect(now, idle_since, inherited)
        if self._may_try_beside:
            self._wake_by(self._beside_at)

    def _connect(
        self,
        now: float,
        idle_since: float,
        inherited: bool,
        predecessor: Tether[T] | None = None,
    ) -> None:
        self._ceiling.asked(now, self._ledger.size)
        self._beside_at = now + HANGS_AFTER
        self._next_lane_at = now + self.settings.stagger
        self._ledger.connect(now, idle_since, inherited, predecessor)

    def _renew(self, now: float) -> None:
        """Replace what will soon be too old, one at a time, while nobody feels it.

        Its successor is connected before it goes, where there is room. Where there is
        none, it goes first, if it is idle and not the last one that is. What is left of
        it all goes when it has to.
        """
        ledger, outage = self._ledger, self._outage
        may = self.settings.keep_idle and now >= max(outage.retry_at, self._spare_at)
        may = may and not (ledger.connecting or self._queue.waiting)
        self._renew_at = NEVER
        for entry in list(ledger.entries()):
            leaves = now >= entry.expires_at or entry.state is State.CLOSING
            if leaves or entry.succeeded:
                continue
            if now < entry.renew_at:
                self._renew_by(entry.renew_at)
            elif not may:
                self._renew_by(now + entry.patience)
            elif self._has_room(now):
                entry.succeeded, may = True, False
                self._connect(now, entry.idle_since, False, entry.tether)
            elif (
                outage.since is None and len(ledger.idle) > 1 and ledger.withdraw(entry)
            ):
                may = False
                self._retire(entry, self._why_expired(entry))
                self._grow(now)
            else:
                self._renew_by(now + entry.patience)

    def _has_room(self, now: float) -> bool:
        """Tell whether there may be one connection more, as far as is known."""
        size = self._ledger.size
        return size < self.settings.max_size and now >= self._ceiling.opens_at(size)

    def _renew_by(self, moment: float) -> None:
        if self.settings.keep_idle:  # else nothing is to be seen to by the clock
            self._renew_at = min(self._renew_at, moment)
            self._wake_by(self._renew_at)

    def _make_way(self, now: float, tether: Tether[T]) -> None:
        """Retire an entry, now or when it comes back, whose successor is connected."""
        self._renew_at = now  # to see to the next one
        entry = tether()
        if entry is None:
            return
        if self._ledger.withdraw(entry):
            self._retire(entry, self._why_expired(entry))
        else:
            entry.expires_at = min(entry.expires_at, now)

    @property
    def _may_try_beside(self) -> bool:
        connecting = self._ledger.connecting
        if not self._queue.waiting:
            return False
        return 0 < connecting < self.settings.max_connecting

    def _is_calm(self) -> bool:
        return (
            not self._queue.waiting
            and self.open
            and self.settings.keep_idle
            and self.settings.max_idle > 0
            and self._fits
        )

    @property
    def _fits(self) -> bool:
        return self._ledger.live <= self.settings.max_size

    # --- time ---------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due by the clock: expire, reap, keep alive, retry."""
        settings, ledger = self.settings, self._ledger
        self._find_lost(now)
        idle: list[Entry[T]] = []
        for entry in ledger.take_idle():
            if now < entry.expires_at:
                idle.append(entry)
            else:
                self._retire(entry, self._why_expired(entry))
        # Only what is established may be reaped on the grounds that enough remain:
        # a connect that is under way may fail.
        spare = ledger.established - settings.min_size
        after = settings.check_after
        for entry in idle:
            if spare > 0 and now >= entry.idle_since + settings.max_idle:
                self._retire(entry, Reason.UNUSED)
                spare -= 1
            elif 0 < after < NEVER and now >= entry.proven_at + after:
                ledger.check(entry)
            else:
                self._push_idle(entry)
        self._vacancies = deque(
            clock for clock in self._vacancies if now < clock + settings.max_idle
        )
        self.wake_at = NEVER
        self._plan(now)
        self._wake_by(self._renew_at)
        for entry in ledger.entries():
            if entry.state is State.IDLE:
                # What is due has been seen to; this one was just popped, or it is lost
                # with the thread that had it, and no tick will ever see it again.
                deadline = self._idle_deadline(entry)
                self._wake_by(deadline if now < deadline else now + OVERDUE)
            elif settings.max_idle > 0:
                # It may come back at any time, and that hot path sets no timer: look
                # again before the earliest deadline that it can have then. (With
                # max_idle=0 no return is hot.)
                late = now >= entry.expires_at
                expires_at = now + OVERDUE if late else entry.expires_at
                self._wake_by(self._deadline(expires_at, now, now))
        overload = self._overload
        if overload.on:
            if now >= overload.look_at:
                overload.looked(now, due_at=self._shed(now))
            self._wake_by(overload.look_at)

    def _idle_deadline(self, entry: Entry[T]) -> float:
        """The first moment at which `tick` may have something to do with this entry."""
        return self._deadline(entry.expires_at, entry.idle_since, entry.proven_at)

    def _deadline(self, expires_at: float, idle_since: float, proven: float) -> float:
        settings = self.settings
        deadline = expires_at
        if self._ledger.established > settings.min_size:
            deadline = min(deadline, idle_since + settings.max_idle)
        if 0 < settings.check_after < NEVER:
            deadline = min(deadline, proven + settings.check_after)
        return deadline

    def _wake_by(self, moment: float) -> None:
        if moment < self.wake_at and self.open:
            self.wake_at = moment

    def _find_lost(self, now: float) -> bool:
        """Free the places of entries that are no more: nobody can return them.

        Returns:
            Whether there are any.
        """
        lost = [tether for tether in self._ledger.tethers if tether() is None]
        for tether in lost:
            if tether.away is None:
                self.leaked.append(tether)
                self._counters.leaked += 1
            self._ledger.free(tether)
            if self.open and self.settings.keep_idle:
                self._vacancies.append(now)
        return bool(lost)

    # --- steps, with what they entail ---------------------------------------------

    def _serve(self, now: float, entry: Entry[T]) -> None:
        if self._overload.on:
            self._shed(now)
            self._overload.serve(now, self._queue.first.since)
        self._ledger.lend(now, entry, self._queue.first.owner)
        self._queue.serve(now, entry)

    def _shed(self, now: float) -> float:
        """In an overload, send away those who have waited for too long.

        Never the last one: a connection that comes back must find somebody.

        Returns:
            When the next one is due.
        """
        queue, overload = self._queue, self._overload
        while len(queue.waiting) > 1:
            due_at = overload.due_at(queue.first.since)
            if now < due_at:
                return due_at
            queue.shed(now, self._outage.error)
            overload.shed(now)
        return NEVER

    def _shelve(self, entry: Entry[T]) -> None:
        self._ledger.shelve(entry)
        self._wake_by(self._idle_deadline(entry))

    def _retire(self, entry: Entry[T], reason: Reason) -> None:
        if not self._ledger.retire(entry, reason):
            return
        if reason is Reason.EXPIRED and self.settings.max_lifetime < BRIEFEST:
            self._spare_at = max(self._spare_at, entry.asked_at + BRIEFEST)
        leaves_a_gap = reason not in SHRINKING and not entry.succeeded
        if self.open and self.settings.keep_idle and leaves_a_gap:
            self._vacancies.append(entry.idle_since)

    def _why_expired(self, entry: Entry[T]) -> Reason:
        if entry.expires_at > ALWAYS:
            return Reason.EXPIRED
        return Reason.DRAINED if self.open else Reason.CLOSED
