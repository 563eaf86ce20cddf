"""Any history, however unlikely: each promise holds after each event.

Hypothesis draws what happens and in which order; `support.core_watched` judges. At the
end of each history the world becomes fair, and everybody has to get their due.

`EDGEPOOL_THOROUGH=1` draws other and many more histories, for minutes.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edgepool._core import (
    NEVER,
    Check,
    Close,
    Connect,
    ErrorClass,
    Reason,
    Refusal,
    Reset,
    Sweep,
)
from edgepool._core.transitions import TRANSITIONS
from support.core import MUTANTS, THOROUGH
from support.core_watched import Watched

PROFILE = settings(
    max_examples=20_000 if THOROUGH else 800,
    stateful_step_count=80 if THOROUGH else 50,
    derandomize=not THOROUGH,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    # Mutants only need to be found.
    phases=[Phase.generate] if MUTANTS else tuple(Phase),
    suppress_health_check=list(HealthCheck),
)

which = st.integers(0, 5)
"""Picks one of several; modulo, so that it can be drawn before it is known of what."""

mostly = st.sampled_from([True, True, True, False])
kinds = st.sampled_from([*ErrorClass, *[ErrorClass.SUSPECT] * 3])
hows = st.sampled_from(["clean", "dirty", "dirty", "broken"])
seldom = st.sampled_from([False, False, False, True])

sheddings = st.sampled_from(
    [
        *[{"shed_target": None, "shed_interval": 1.0}] * 2,
        {"shed_target": 0.0, "shed_interval": 0.0},
        {"shed_target": 0.05, "shed_interval": 0.0},
        {"shed_target": 0.05, "shed_interval": 1.0},
        {"shed_target": 1.0, "shed_interval": 0.3},
    ]
)


@st.composite
def any_settings(draw):
    min_size = draw(st.integers(0, 3))
    keep_idle = draw(st.sampled_from([True] * 6 + [False]))
    return {
        "min_size": min_size if keep_idle else 0,
        "max_size": draw(st.integers(max(1, min_size), 4)),
        "max_waiting": draw(st.sampled_from([0, 0, 1, 3])),
        "max_lifetime": draw(st.sampled_from([NEVER, NEVER, 100.0, 3.0, 0.5])),
        "max_idle": draw(st.sampled_from([0.0, 1.0, 10.0, 25.0])),
        "max_connecting": draw(st.sampled_from([1, 2, 10])),
        "renewal": draw(st.sampled_from([0.0, 0.05, 0.5])),
        "stagger": draw(st.sampled_from([0.0, 0.001, 0.1])),
        "check_after": draw(st.sampled_from([0.0, 1.5, 20.0, NEVER])),
        "probe_after": draw(st.sampled_from([0.0, 0.001, NEVER])),
        "reconnect_timeout": draw(st.sampled_from([0.0, 1.0, 10.0])),
        "nested": draw(st.sampled_from(["error", "error", "wait"])),
        "keep_idle": keep_idle,
        **draw(sheddings),
    }


def if_any(name):
    """Allow a rule only when a list of the watched pool is not empty."""
    return precondition(lambda machine: getattr(machine.pool, name))


def one_of(items, which):
    return items[which % len(items)]


class Histories(RuleBasedStateMachine):
    """All that may happen to a pool."""

    reach: ClassVar[Counter] = Counter()

    @initialize(
        settings=any_settings(),
        warm=st.booleans(),
        prompt=st.booleans(),
        jitter=st.sampled_from([0, 0.5, 1]),
    )
    def begin(self, settings, warm, prompt, jitter):
        self.pool = Watched(jitter=jitter, **settings)
        # Half of the worlds do what is to be done before somebody comes.
        self.prompt = prompt
        self.pool.start()
        if warm:
            for _ in range(settings["max_size"]):
                self.pool.wait()
            self.pool.work()
            self.pool.wake_up()
            for entry in self.pool.held[1:]:
                self.pool.begin_return(entry)

    # Few rules, and no more of the always possible than of the others: Hypothesis picks
    # among those that are possible, and each history goes without some of them.

    # --- borrowers ----------------------------------------------------------------

    @rule(callers=st.integers(1, 4), hasty=seldom, owner=st.integers(0, 3))
    def borrow(self, callers, hasty, owner):
        self._be_prompt()
        pool = self.pool
        for number in range(callers):
            # Some are alone, some of the others have something already. Who returns
            # something cannot ask for another in the midst of it.
            who = (owner + number) % 3 if owner and not pool.returning else None
            if hasty or pool.borrow(who) is None:
                pool.wait(owner=who)

    @precondition(lambda machine: machine.pool.lent)
    @rule(which=which)
    def drop(self, which):
        self.pool.drop(self.pool.lent[which % len(self.pool.lent)])

    @rule(how=hows)
    def borrow_and_give_back(self, how):
        self._be_prompt()
        entry = self.pool.borrow()
        if entry is not None:
            self._give_back(entry, how)

    @if_any("held")
    @rule(which=which, how=hows)
    def give_back(self, which, how):
        self._give_back(one_of(self.pool.held, which), how)

    def _be_prompt(self):
        if self.prompt:
            self.pool.work()
            self.pool.wake_up()

    def _give_back(self, entry, how):
        ways = {
            "clean": self.pool.begin_return,
            "dirty": self.pool.give_back_dirty,
            "broken": self.pool.give_back_broken,
        }
        ways[how](entry)

    @if_any("held")
    @rule()
    def give_all_back(self):
        for entry in self.pool.held[:]:
            self.pool.begin_return(entry)

    @if_any("returning")
    @rule()
    def end_return(self):
        self.pool.end_return()

    @if_any("idle")
    @rule(which=which)
    def give_back_twice(self, which):
        with pytest.raises(ValueError, match="idle"):
            self.pool.core.give_back(self.pool.now, one_of(self.pool.idle, which))

    @if_any("queue")
    @rule(which=which, interrupted=st.booleans())
    def give_up(self, which, interrupted):
        leave = self.pool.abandon if interrupted else self.pool.time_out
        leave(one_of(self.pool.queue, which))

    @if_any("served")
    @rule(which=which, interrupted=seldom)
    def wake_up(self, which, interrupted):
        if interrupted:
            self.pool.abandon(one_of(self.pool.served, which))
        self.pool.wake_up()

    @if_any("held")
    @rule(which=which, alive=st.booleans(), passes=st.booleans())
    def examine(self, which, alive, passes):
        pool = self.pool
        entry = one_of(pool.held, which)
        if pool.core.is_overdue(pool.now, entry):
            pool.find_overdue(entry)
        elif not alive or (pool.core.examine(pool.now, entry) and not passes):
            pool.lose(entry)
        else:
            pool.core.proven(pool.now, entry)
            return
        if pool.borrow() is None:
            pool.wait(again=True)

    # --- what is done in the background -------------------------------------------

    @if_any("todo")
    @rule(which=which, well=mostly, clean=st.booleans())
    def do_something(self, which, well, clean):
        pool = self.pool
        kind = type(one_of(pool.todo, which))
        if kind is Connect and not well:
            if clean:
                pool.begin_configuring()
            pool.fail_one()
        elif kind is Connect:
            pool.connect_one()
        elif kind is Close:
            pool.close_one()
        elif kind is Reset:
            pool.reset_one(clean=clean)
        elif kind is Check:
            pool.check_one(alive=well)

    @if_any("todo")
    @rule()
    def do_all(self):
        self.pool.work()

    @if_any("todo")
    @rule(permanent=st.booleans(), kind=kinds, callers=st.integers(0, 1))
    def fail_to_connect(self, permanent, kind, callers):
        for _ in range(callers):
            self.pool.wait()
        for _ in self.pool.wanted(Connect):
            self.pool.fail_one(permanent=permanent, kind=kind)

    @if_any("held")
    @rule(kind=kinds)
    def tell_of_an_error(self, kind):
        self.pool.notice(kind)

    @rule(alive=mostly, proven=st.booleans(), callers=st.integers(0, 2))
    def suspect(self, alive, proven, callers):
        if self.pool.suspects:
            self.pool.clear_suspicion(alive, proven)
        else:
            self.pool.suspect()
            for _ in range(callers):
                self.pool.wait()

    # --- time ---------------------------------------------------------------------

    @rule(pause=st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.5, 10.0, 20.0]), late=seldom)
    def time_passes(self, pause, late):
        pool = self.pool
        until = pool.now + pause
        while pool.wake_at <= until and not late:
            pool.tick(at=max(pool.now, pool.wake_at))
        pool.now = until
        if not (late or pause):
            pool.tick()

    # --- the owner of the pool ----------------------------------------------------

    @rule(changes=any_settings(), what=which)
    def manage(self, changes, what):
        if what == 0:
            self.pool.drain()
        elif what == 1:
            self.pool.wait_until_ready()
        elif what == 2:
            self.pool.configure(**changes)
        elif what == 3:
            self.pool.configure(min_size=0, max_size=1)
        elif what == 4:
            self.pool.tell(self.pool.core.drain_over, changes["max_idle"])

    @rule(really=seldom, patient=st.booleans())
    def close_and_open(self, really, patient):
        pool = self.pool
        if pool.core.open and really:
            if pool.held and not patient:
                pool.give_back_dirty(pool.held[0])
            pool.close()
            pool.wait_until_empty()
        elif patient:
            pool.start()
        if pool.for_empty and not patient:
            pool.time_out(pool.for_empty[0])
            if not pool.core.open:
                pool.abort()

    # --- a fair end ---------------------------------------------------------------

    def teardown(self):
        pool = self.pool
        if pool.core.open:
            self._all_are_served()
            self._the_pool_shrinks()
        self._a_closed_pool_ends_empty()
        type(self).reach.update(pool.seen)

    def _all_do_their_part(self):
        """Let all I/O succeed, and everybody return what they have."""
        pool = self.pool
        while pool.todo or pool.suspects or pool.served or pool.returning or pool.held:
            pool.work()
            pool.wake_up()
            for entry in pool.held[:]:
                pool.begin_return(entry)
            while pool.returning:
                pool.end_return()
            while pool.suspects:
                pool.clear_suspicion(alive=True, proven=False)

    def _all_are_served(self):
        pool = self.pool
        pool.configure(shed_target=None)
        waiting = list(pool.queue)
        for _ in range(100):
            self._all_do_their_part()
            if not pool.queue:
                break
            pool.tick(at=max(pool.now, pool.wake_at))

        assert not pool.queue, "forgotten"
        assert all(waiter.entry is not None for waiter in waiting)

    def _the_pool_shrinks(self):
        pool, settings = self.pool, self.pool.core.settings
        while pool.stats.size < settings.min_size:
            stats = pool.stats
            brief = pool.now < pool.spare_from
            assert brief or stats.failing_since is not None or stats.ceiling is not None
            pool.tick(at=max(pool.now, pool.wake_at))
            pool.work()
        until = pool.now + settings.max_idle
        while pool.wake_at <= until:
            pool.tick(at=max(pool.now, pool.wake_at))
            pool.work()
        pool.now = until
        while pool.now < pool.spare_from and pool.stats.size < settings.min_size:
            pool.tick(at=pool.wake_at)
            pool.work()

        assert settings.min_size == pool.stats.size

    def _a_closed_pool_ends_empty(self):
        pool = self.pool
        pool.close()
        pool.wait_until_empty()
        self._all_do_their_part()

        assert 0 == pool.stats.size
        assert [] == pool.for_empty
        assert [] == pool.living


def test_every_history_keeps_every_promise():
    Histories.reach.clear()

    run_state_machine_as_test(Histories, settings=PROFILE)

    for step in TRANSITIONS:
        assert step in Histories.reach
    # A forked child is not told what happened: see test_forks.py.
    reasons = set(Reason) - {Reason.FORKED}
    for what in [*reasons, *Refusal, Connect, Close, Check, Reset, Sweep]:
        assert what in Histories.reach
