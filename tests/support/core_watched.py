"""A driven core that is watched: each command must be legal, each promise hold.

The watcher keeps its own books, from what it tells the core and what the core wants
done, and compares them with the core's statistics after each event.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgepool._core import (
    Abort,
    Alarm,
    Check,
    Close,
    Connect,
    Entry,
    ErrorClass,
    Reason,
    Refusal,
    Reset,
    State,
    Sweep,
    Waiter,
)
from edgepool._core.backoff import EAGER, retry_delay
from edgepool._core.ceiling import JITTER, LATEST, SOONEST
from edgepool._core.entry import ALWAYS, NEVER
from edgepool._core.overload import GRAIN, TARGETS
from edgepool._core.planner import BRIEFEST, HANGS_AFTER
from edgepool._core.transitions import TRANSITIONS

from .core import REFUSED, Driven, Resource, nobody_sleeps

FORGOTTEN: Any = object()
"""Stands for what a waiter was served, and has lost."""

STATES = {
    Connect: State.CONNECTING,
    Check: State.CHECKING,
    Reset: State.RESETTING,
    Close: State.CLOSING,
}

SHEDDING = ("shed_target", "shed_interval")


class Watched(Driven):
    """A core with a driver, borrowers and waiters, and somebody who watches them."""

    def __init__(self, **settings: Any) -> None:
        # Who waits for a connection, in the order in which they are to be served.
        self.queue: list[Waiter[Resource]] = []
        # Who was served and has not woken up yet.
        self.served: list[Waiter[Resource]] = []
        # What is lent, and what was given back to a pool that was not calm: the thread
        # that returns it waits for its turn to tell the core.
        self.held: list[Entry[Resource]] = []
        self.returning: list[Entry[Resource]] = []
        # What a borrower probes because he found something dead.
        self.suspects: list[Entry[Resource]] = []
        # Who waits until the pool is ready, or empty.
        self.for_ready: list[Waiter[Resource]] = []
        self.for_empty: list[Waiter[Resource]] = []
        # Who has what is lent, or had it last.
        self.owners: dict[Entry[Resource], object] = {}
        # Those that must not be idle any more.
        self.drained: set[Entry[Resource]] = set()

        # Between these two moments the next connect may start, while connecting fails.
        self.retry_from = self.retry_by = ALWAYS
        self.failing_since: float | None = None
        self.failed_at = ALWAYS
        self.alarm_at = ALWAYS
        # When somebody last came while connecting failed.
        self.hurried_at = ALWAYS
        # Between these two moments the next connect beyond the ceiling may start.
        self.beyond_from = self.beyond_by = ALWAYS
        # When the next connect may start beside another one.
        self.next_lane_at = ALWAYS
        # From when on one may start for which nobody waits.
        self.spare_from = ALWAYS
        # From when on one may start although there is no lane, or no need.
        self.beside_from = ALWAYS

        # An overload has begun by the first of these moments, unless somebody is served
        # in time before; and lasts until the second at least.
        self.overload_from = NEVER
        self.overload_until = ALWAYS
        self.ticked_at = self.came_again_at = ALWAYS

        # What the statistics have to say.
        self.requests = self.queued = self.in_vain = self.shed = 0
        self.lost = self.bad_returns = self.connects = self.connect_errors = 0
        self.leaked = self.connects_refused = self.read_only_errors = 0

        # What has happened so far, for a report on the reach of a test.
        self.seen: Counter[Any] = Counter()
        super().__init__(opened=False, **settings)
        now = vars(self.core.settings)
        self.shedding: dict[str, Any] = {name: now[name] for name in SHEDDING}

    # --- what the outside world does ----------------------------------------------

    def tell(self, event: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().tell(event, *args, **kwargs)
        self.check()
        return result

    def start(self) -> None:
        if not self.core.open:
            self._no_outage()
        self.tell(self.core.start)

    def close(self) -> None:
        if self.core.open:
            self.drained.update(self.states)
        self.tell(self.core.close)

    def drain(self) -> None:
        self.drained.update(self.states)
        self.tell(self.core.drain)

    def abort(self) -> None:
        self.tell(self.core.abort)

    def borrow(self, owner: object = None) -> Entry[Resource] | None:
        """Borrow, but do not wait."""
        settings, stats = self.core.settings, self.stats
        entry = super().borrow(owner)
        if entry is None:
            kept = self.core.open and settings.keep_idle and settings.max_idle
            fits = stats.size - stats.closing <= stats.max_size
            assert not (kept and fits and stats.idle), "idle, and not lent"
        else:
            assert not self.queue, "a newcomer overtakes"
            self.held.append(entry)
            self.owners[entry] = owner
            self.requests += 1
        self.check()
        return entry

    def wait(self, again: bool = False, owner: object = None) -> Waiter[Resource]:
        waiter = Waiter[Resource](nobody_sleeps, owner)
        for_himself = self._closes_a_ring(owner)
        if not self.queue:
            self._in_time()
        if again:
            self.came_again_at = self.now
        self.queue.insert(0 if again else len(self.queue), waiter)
        before = len(self.queue)
        if self.failing_since is not None and self.core.open:
            self.hurried_at = self.now
            self.retry_from = min(self.retry_from, self.failed_at + EAGER)
            self.retry_by = min(self.retry_by, self.failed_at + EAGER)
        self.tell(self.core.enqueue, waiter, again)

        assert for_himself == (waiter.refusal is Refusal.NESTED)

        limit = self.core.settings.max_waiting
        if waiter.refusal is Refusal.FULL:
            assert not again
            assert 0 < limit < before
        elif not again and limit and not waiter.resolved:
            assert len(self.queue) <= limit, "more than max_waiting"
        if not (waiter.resolved or again):
            self.queued += 1
        return waiter

    def configure(self, **changes: Any) -> None:
        shedding = tuple(changes.get(name, self.shedding[name]) for name in SHEDDING)
        if shedding != tuple(self.shedding.values()):
            self.shedding = dict(zip(SHEDDING, shedding, strict=True))
            self.overload_until = ALWAYS
            self._in_time()
        super().configure(**changes)

    def _in_time(self) -> None:
        """Note that somebody is served in time, or nobody waits."""
        target, interval = self.shedding.values()
        if target is not None and self.now >= self.overload_until:
            self.overload_from = self.now + target + interval

    def _closes_a_ring(self, owner: object) -> bool:
        """Tell whether everything is lent to those who wait, and to this newcomer."""
        settings, stats = self.core.settings, self.stats
        lent = self.held + [waiter.entry for waiter in self.served]
        owners = [self.owners[e] for e in lent if e.state is State.IN_USE]
        waiting = {waiter.owner for waiter in self.queue} | {owner}
        return (
            self.core.open
            and settings.nested == "error"
            and owner is not None
            and owner in owners
            and len(owners) == stats.size >= settings.max_size
            and waiting.issuperset(owners)
            and None not in owners
        )

    def time_out(self, waiter: Waiter[Resource]) -> None:
        self._leave(waiter)
        self.tell(self.core.time_out, waiter)
        assert waiter.refusal is Refusal.TIMEOUT
        assert waiter.cause is self.core._outage.error

    def abandon(self, waiter: Waiter[Resource]) -> None:
        if waiter in self.served:
            self.served.remove(waiter)
        else:
            self._leave(waiter)
        self.tell(self.core.abandon, waiter)
        assert waiter.entry is None

    def _leave(self, waiter: Waiter[Resource]) -> None:
        for crowd in (self.queue, self.for_ready, self.for_empty):
            if waiter in crowd:
                crowd.remove(waiter)
                self.in_vain += crowd is self.queue

    def wait_until_ready(self) -> None:
        waiter = Waiter[Resource](nobody_sleeps)
        self.for_ready.append(waiter)
        self.tell(self.core.when_ready, waiter)

    def wait_until_empty(self) -> None:
        waiter = Waiter[Resource](nobody_sleeps)
        self.for_empty.append(waiter)
        self.tell(self.core.when_empty, waiter)

    def wake_up(self) -> None:
        """Let all who were served take what they were served."""
        for waiter in self.served:
            self.held.append(waiter.entry)
        self.served.clear()

    def begin_return(self, entry: Entry[Resource]) -> None:
        """Give back a clean entry, up to where the lock is needed."""
        self.held.remove(entry)
        follow_up = self.core.give_back(self.now, entry)
        if follow_up is not None:
            assert follow_up == self.core.returned
            self.returning.append(entry)
        self.note_steps()
        self.check()

    def end_return(self) -> None:
        """Get the lock for the return that has waited longest."""
        self.tell(self.core.returned, self.returning.pop(0))

    def give_back_dirty(self, entry: Entry[Resource]) -> None:
        self.held.remove(entry)
        self.tell(self.core.give_back_dirty, entry)

    def give_back_broken(self, entry: Entry[Resource]) -> None:
        self.held.remove(entry)
        self.bad_returns += 1
        self.tell(self.core.give_back_broken, entry)

    @property
    def lent(self) -> list[int]:
        """Which of those that are held have not been cut off."""
        return [i for i, e in enumerate(self.held) if e.state is State.IN_USE]

    def drop(self, which: int) -> None:
        """Have a borrower lose what he has: nobody has it any more."""
        entry = self.held.pop(which)
        # It is gone with its resource; these only remember.
        entry.resource.closed = True
        for waiter in self.woken:
            if waiter.entry is entry:
                waiter.entry = FORGOTTEN
        self.drained.discard(entry)
        del self.owners[entry]
        self.leaked += entry.state is State.IN_USE
        del self.states[entry], entry

        self.tell(self.core.collect)

    def lose(self, entry: Entry[Resource]) -> None:
        """Find a borrowed entry dead."""
        self.held.remove(entry)
        self.lost += 1
        self.requests -= entry.state is State.IN_USE
        result = self.core.lost(self.now, entry)
        self._suspect(result)

    def find_overdue(self, entry: Entry[Resource]) -> None:
        self.held.remove(entry)
        self.requests -= entry.state is State.IN_USE
        self.tell(self.core.overdue, entry)

    def notice(self, kind: ErrorClass) -> None:
        """Have a borrower tell of his error."""
        self.read_only_errors += kind is ErrorClass.READ_ONLY
        if kind is ErrorClass.BACK_OFF and self.core.open:
            self.beyond_from = self.now + SOONEST * (1.0 - JITTER * self.jitter)
            self.beyond_by = self.now + LATEST
        sweeps = self.sweeps + (kind is ErrorClass.SUSPECT and bool(self.idle))
        self.tell(self.core.noticed, kind)
        assert sweeps == self.sweeps

    def suspect(self) -> None:
        self._suspect(self.core.suspect(self.now))

    def _suspect(self, suspects: list[Entry[Resource]]) -> None:
        assert all(entry.state is State.CHECKING for entry in suspects)
        self.suspects += suspects
        self.take_outboxes()
        self.check()

    def clear_suspicion(self, alive: bool, proven: bool) -> None:
        entry = self.suspects.pop(0)
        self.lost += entry.state is not State.ABORTED and not alive
        self.tell(self.core.checked, entry, alive, proven)

    def tick(self, at: float | None = None) -> None:
        if at is not None:
            self.now = at
        self.ticked_at = self.now
        super().tick()
        for entry in self.idle:
            assert self.now < self.deadline(entry), "overdue after a tick"
        assert self.now < self.wake_at, "the timer spins"

    # --- how commands end ---------------------------------------------------------

    def connect_one(self, took: float = 0.0) -> Entry[Resource]:
        if self.wanted(Connect)[0].state is not State.ABORTED:
            self._no_outage()
        self.beyond_by = self.now + LATEST
        return super().connect_one(took)

    def fail_one(
        self,
        error: BaseException = REFUSED,
        permanent: bool = False,
        kind: ErrorClass = ErrorClass.ORDINARY,
    ) -> Entry[Resource]:
        entry = self.wanted(Connect)[0]
        self.connect_errors += 1
        refused_more = kind is ErrorClass.BACK_OFF and not permanent
        self.connects_refused += refused_more
        if refused_more:
            self.beyond_by = self.now + LATEST
        alarmed = self.alarms
        if entry.state is State.ABORTED or not self.core.open:
            super().fail_one(error, permanent, kind)
            assert alarmed == self.alarms
            return entry

        if refused_more:
            self.beyond_from = self.now + SOONEST * (1.0 - JITTER * self.jitter)

        if self.failing_since is None:
            self.failing_since = self.now
            self.alarm_at = self.now + self.core.settings.reconnect_timeout
        age = self.now - self.failing_since
        self.failed_at = self.now
        # Both, for those who wait may be refused by this very event.
        self.retry_from = self.now + retry_delay(age, bool(self.queue), self.jitter)
        self.retry_by = self.now + retry_delay(age, False, self.jitter)
        if self.hurried_at > entry.asked_at:
            self.retry_from = min(self.retry_from, self.now + EAGER)
            self.retry_by = min(self.retry_by, self.now + EAGER)
        established = self.established
        # Who came later gets another try: things may be mended.
        refused = [w for w in self.queue if w.since <= entry.asked_at]
        super().fail_one(error, permanent, kind)

        if self.now >= self.alarm_at:
            self.alarm_at = self.now + self.core.settings.reconnect_timeout
            alarmed += 1
        assert alarmed == self.alarms
        if self.queue:
            self.retry_by = self.retry_from
        for waiter in refused if permanent and not established else ():
            assert waiter.refusal is Refusal.FAILED
            assert waiter.cause is error
        return entry

    def check_one(self, alive: bool = True, proven: bool = True) -> Entry[Resource]:
        aborted = self.wanted(Check)[0].state is State.ABORTED
        self.lost += not (alive or aborted)
        return super().check_one(alive, proven)

    def reset_one(self, clean: bool = True) -> Entry[Resource]:
        aborted = self.wanted(Reset)[0].state is State.ABORTED
        self.bad_returns += not (clean or aborted)
        return super().reset_one(clean)

    def _no_outage(self) -> None:
        self.failing_since = None
        self.retry_from = self.retry_by = self.failed_at = self.alarm_at = ALWAYS
        self.hurried_at = ALWAYS

    # --- what the core wants done -------------------------------------------------

    def receive(self, command: Any) -> None:
        self.seen[type(command)] += 1
        if isinstance(command, Abort):
            assert not self.core.open
            assert command.entry.state is State.ABORTED
            assert command.entry.resource
        elif not isinstance(command, (Alarm, Sweep)):
            assert command.entry not in [other.entry for other in self.todo]
            self._check_legal(command)
        super().receive(command)

    def receive_wake(self, waiter: Waiter[Resource]) -> None:
        self._has_an_answer(waiter)
        super().receive_wake(waiter)

    def _has_an_answer(self, waiter: Waiter[Resource]) -> None:
        assert waiter.resolved
        assert waiter not in self.woken, "woken twice"
        if waiter in self.for_ready or waiter in self.for_empty:
            crowd = self.for_ready if waiter in self.for_ready else self.for_empty
            crowd.remove(waiter)
            assert waiter.entry is None
        elif waiter in self.queue:
            if waiter.entry is not None:
                assert waiter is self.queue[0], "not first come, first served"
                assert waiter.refusal is None
                assert waiter.entry.state is State.IN_USE
                self.served.append(waiter)
                self.owners[waiter.entry] = waiter.owner
                self.requests += 1
                if self.now - waiter.since <= (self.shedding["shed_target"] or 0.0):
                    self._in_time()
            else:
                self.in_vain += 1
                if waiter.refusal is Refusal.SHED:
                    self._check_shed(waiter)
            self.queue.remove(waiter)
        else:
            assert waiter.refusal is Refusal.TIMEOUT, "answered twice"
        self.seen[waiter.refusal] += 1

    def _check_shed(self, waiter: Waiter[Resource]) -> None:
        """Whoever is shed has waited for long, in an overload, with others behind."""
        target, interval = self.shedding.values()
        assert target is not None, "shed, though that is off"
        assert waiter is self.queue[0], "not the first is shed"
        assert len(self.queue) > 1, "the last is shed"
        assert self.now >= self.overload_from, "shed, though there is no overload"
        assert self.now >= waiter.since + TARGETS * target, "shed too early"
        assert waiter.cause is self.core._outage.error
        self.overload_until = self.now + interval
        self.shed += 1

    def _check_legal(self, command: Any) -> None:
        entry, kind = command.entry, type(command)
        assert entry.state is STATES[kind] or entry.state is State.GONE
        settings, stats = self.core.settings, self.stats
        if kind is Connect:
            self.connects += 1
            self.beyond_by = self.now + LATEST
            assert self.core.open
            assert stats.size <= settings.max_size, "more than max_size"
            assert self.now >= self.retry_from, "a connect during the backoff"
            if not (self.queue or self.for_ready):
                assert self.now >= self.spare_from, "nobody needs it so soon"
            if self._is_at_ceiling(stats.size - 1):
                assert self.now >= self.beyond_from, "more than the server gave"
            lanes = 1 if self.failing_since is not None else settings.max_connecting
            under_way = [e for e in self.wanted(Connect) if e.state is entry.state]
            if self.queue and self.now >= self.beside_from:
                lanes = settings.max_connecting
            assert len(under_way) < lanes, "more connects at a time than lanes"
            assert not under_way or self.now >= self.next_lane_at, "not staggered"
            self.next_lane_at = self.now + settings.stagger
            self.beside_from = self.now + HANGS_AFTER
        elif kind is Check:
            assert 0 < settings.check_after < NEVER
            assert self.now >= entry.proven_at + settings.check_after
        elif kind is Close and entry.state is State.CLOSING:
            self.seen[entry.reason] += 1
            if entry.reason is Reason.EXPIRED and settings.max_lifetime < BRIEFEST:
                self.spare_from = max(self.spare_from, entry.asked_at + BRIEFEST)
            assert self._may_retire(entry), f"closed: {entry.reason}"

    def _is_at_ceiling(self, size: int) -> bool:
        ceiling = self.stats.ceiling
        return ceiling is not None and size >= ceiling

    def _may_retire(self, entry: Entry[Resource]) -> bool:
        settings, stats = self.core.settings, self.stats
        if entry.reason is Reason.UNUSED:
            unused = self.now >= entry.idle_since + settings.max_idle
            # What is replaced ahead of time is missed for a moment.
            renewed = sum(
                e.reason is Reason.EXPIRED
                and e.state is State.CLOSING
                and not e.succeeded
                and self.now < e.expires_at
                for e in self.states
            )
            return unused and self.established + renewed >= settings.min_size
        if entry.reason is Reason.EXPIRED:
            late = self.now >= entry.expires_at > ALWAYS
            return late or self._may_renew(entry)
        if entry.reason is Reason.SURPLUS:
            live = stats.size - stats.closing
            return live >= stats.max_size or not settings.keep_idle
        if entry.reason is Reason.UNPOOLED:
            return not settings.keep_idle
        if entry.reason is Reason.DRAINED:
            return entry in self.drained and self.core.open
        if entry.reason is Reason.CLOSED:
            return not self.core.open
        if entry.reason is Reason.UNCONFIGURED:
            return entry.connected
        return entry.reason in (Reason.BROKEN, Reason.LOST, Reason.SOILED)

    def _may_renew(self, entry: Entry[Resource]) -> bool:
        """Tell whether an entry may go ahead of time: nobody must feel it."""
        if entry.succeeded:
            successors = [e for e in self.states if e.predecessor is entry.tether]
            return any(e.state is not State.CONNECTING for e in successors)
        in_time = self.now >= entry.renew_at and self.failing_since is None
        return in_time and self.stats.idle > 0 and not self.queue

    def note_steps(self) -> None:
        noted = len(self.steps)
        super().note_steps()
        for step in self.steps[noted:]:
            assert step in TRANSITIONS, step
            self.seen[step] += 1

    # --- what holds after each event ----------------------------------------------

    def check(self) -> None:
        self._check_places()
        self._check_queue()
        self._check_plan()
        self._check_counters()

    def _check_places(self) -> None:
        """Every entry is in one place, and the books agree."""
        lent = self.held + self.returning + [waiter.entry for waiter in self.served]
        checking = self.wanted(Check) + self.suspects
        places = {
            State.IDLE: self.idle,
            State.IN_USE: lent,
            State.CONNECTING: self.wanted(Connect),
            State.CHECKING: checking,
            State.RESETTING: self.wanted(Reset),
            State.CLOSING: self.wanted(Close),
        }
        stats = self.stats
        gauges = {
            State.IDLE: stats.idle,
            State.IN_USE: stats.in_use,
            State.CONNECTING: stats.opening,
            State.CHECKING: stats.checking,
            State.RESETTING: stats.resetting,
            State.CLOSING: stats.closing,
        }
        everywhere = [entry for place in places.values() for entry in place]
        assert len(everywhere) == len(set(everywhere)), "in two places"
        for state, place in places.items():
            count = sum(entry.state is state for entry in place)
            assert count == gauges[state], (state, count, gauges[state])
            others = {entry.state for entry in place} - {state}
            assert others <= {State.ABORTED, State.GONE}, (state, others)
        assert sum(gauges.values()) == stats.size
        assert not self.drained.intersection(self.idle), "drained, and idle"

    def _check_queue(self) -> None:
        """Nobody is forgotten."""
        stats = self.stats
        assert self.queue == self.core.waiters()
        assert len(self.queue) == stats.waiting
        assert not any(waiter.resolved for waiter in self.queue)
        assert not (self.queue and stats.idle), "somebody waits, something is idle"
        if not self.core.open:
            assert not self.queue
            assert not self.for_ready
            assert not stats.idle
            assert not (self.for_empty and stats.size == 0)
        elif self.established >= stats.min_size:
            assert not self.for_ready
        target, _ = self.shedding.values()
        if target is not None and len(self.queue) > 1:
            # The timer is set for who is first. Who came again went before older ones.
            since = max(self.queue[0].since, self.came_again_at)
            due_at = max(self.overload_from, since + TARGETS * target)
            # From a tick that shed somebody, or might have.
            by = max(due_at, self.ticked_at + GRAIN * target)
            assert self.wake_at <= by, "to be shed, and no timer is set"

    def _check_plan(self) -> None:
        """What is wanted is under way, or a timer is set for it."""
        settings, stats = self.core.settings, self.stats
        for entry in self.idle:
            deadline = max(self.deadline(entry), self.now)
            assert self.wake_at <= deadline, "no timer is set"
        if not self.core.open:
            return
        failing = self.failing_since is not None
        assert failing == (self.core.failing_since is not None)
        live = stats.size - stats.closing
        wanted = max(stats.min_size - live, len(self.queue) - stats.opening)
        lanes = 1 if failing else settings.max_connecting
        startable = min(wanted, stats.max_size - stats.size, lanes - stats.opening)
        if startable > 0:
            needless = not (self.queue or self.for_ready)
            waits = failing or self._is_at_ceiling(stats.size)
            waits = waits or (needless and self.now < self.spare_from)
            assert waits or stats.opening, "wanted, and not under way"
            by = self.retry_by if failing else self.next_lane_at
            if stats.ceiling is not None:
                by = max(by, self.beyond_by)
            if needless:
                by = max(by, self.spare_from)
            assert self.wake_at <= by, "wanted, and no timer is set"
            return
        may_hang = 0 < stats.opening < settings.max_connecting
        if may_hang and self.queue and stats.size < stats.max_size:
            by = max(self.beside_from, self.retry_by, self.next_lane_at)
            if stats.ceiling is not None:
                by = max(by, self.beyond_by)
            assert self.wake_at <= by, "it may hang, and no timer is set"

    def _check_counters(self) -> None:
        stats = self.stats
        assert self.requests + self.in_vain == stats.requests
        assert self.in_vain == stats.requests_errors
        assert self.shed == stats.requests_shed
        assert self.lost == stats.lost
        assert self.bad_returns == stats.bad_returns
        assert self.connects == stats.connects
        assert self.connect_errors == stats.connect_errors
        assert self.leaked == stats.leaked
        assert self.connects_refused == stats.connects_refused
        assert self.read_only_errors == stats.read_only_errors
