"""Any history, however unlikely: each promise holds after each event.

Hypothesis draws what happens and in which order; `support.core_watched` judges. At the
end of each history the world becomes fair, and everybody has to get their due.

`EDGEPOOL_THOROUGH=1` draws other and many more histories, for minutes.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.core_watched import Watched

from edgepool._core import NEVER, Check, Close, Connect, Reason, Refusal, Reset
from edgepool._core.transitions import TRANSITIONS

THOROUGH = bool(os.environ.get("EDGEPOOL_THOROUGH"))

PROFILE = settings(
    max_examples=20_000 if THOROUGH else 150,
    stateful_step_count=80 if THOROUGH else 50,
    derandomize=not THOROUGH,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

which = st.integers(0, 5)
"""Picks one of several; modulo, so that it can be drawn before it is known of what."""

mostly = st.sampled_from([True, True, True, False])
seldom = st.sampled_from([False, False, False, True])


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
        "check_after": draw(st.sampled_from([0.0, 1.5, 20.0, NEVER])),
        "probe_after": draw(st.sampled_from([0.0, 0.001, NEVER])),
        "reconnect_timeout": draw(st.sampled_from([0.0, 1.0, 10.0])),
        "keep_idle": keep_idle,
    }


def if_any(name):
    """Allow a rule only when a list of the watched pool is not empty."""
    return precondition(lambda machine: getattr(machine.pool, name))


if_open = precondition(lambda machine: machine.pool.core.open)
if_closed = precondition(lambda machine: not machine.pool.core.open)


def one_of(items, which):
    return items[which % len(items)]


class Histories(RuleBasedStateMachine):
    """All that may happen to a pool."""

    reach: Counter = Counter()

    @initialize(
        settings=any_settings(), warm=st.booleans(), jitter=st.sampled_from([0, 0.5, 1])
    )
    def begin(self, settings, warm, jitter):
        self.pool = Watched(jitter=jitter, **settings)
        self.pool.start()
        if warm:
            for _ in range(settings["max_size"]):
                self.pool.wait()
            self.pool.work()
            self.pool.wake_up()
            for entry in self.pool.held[1:]:
                self.pool.begin_return(entry)

    # --- borrowers ----------------------------------------------------------------

    @rule()
    def borrow(self):
        self.pool.borrow()

    @rule(callers=st.integers(1, 4))
    def borrow_or_wait(self, callers):
        for _ in range(callers):
            if self.pool.borrow() is None:
                self.pool.wait()

    @rule()
    def wait_though_something_may_be_idle(self):
        self.pool.wait()

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
    @rule(which=which, state=st.sampled_from(["clean", "clean", "dirty", "broken"]))
    def give_back(self, which, state):
        ways = {
            "clean": self.pool.begin_return,
            "dirty": self.pool.give_back_dirty,
            "broken": self.pool.give_back_broken,
        }
        ways[state](one_of(self.pool.held, which))

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

    @if_any("held")
    @rule(which=which, alive=st.booleans(), passes=st.booleans())
    def examine(self, which, alive, passes):
        pool = self.pool
        entry = one_of(pool.held, which)
        if pool.now >= entry.expires_at:
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
    @rule(which=which, well=mostly)
    def do_something(self, which, well):
        pool = self.pool
        kind = type(one_of(pool.todo, which))
        if kind is Connect and not well:
            pool.fail_one()
        elif kind is Connect:
            pool.connect_one()
        elif kind is Close:
            pool.close_one()
        elif kind is Reset:
            pool.reset_one(clean=well)
        elif kind is Check:
            pool.check_one(alive=well)

    @if_any("todo")
    @rule()
    def do_all(self):
        self.pool.work()

    @rule(permanent=st.booleans())
    def fail_to_connect(self, permanent):
        if self.pool.wanted(Connect):
            self.pool.fail_one(permanent=permanent)

    @if_any("idle")
    @rule()
    def suspect_all(self):
        self.pool.suspect()

    @if_any("suspects")
    @rule(alive=mostly, proven=st.booleans())
    def clear_suspicion(self, alive, proven):
        self.pool.clear_suspicion(alive, proven)

    # --- time ---------------------------------------------------------------------

    @rule(pause=st.sampled_from([0.01, 0.05, 0.3, 1.0, 1.5, 10.0, 20.0]), late=seldom)
    def time_passes(self, pause, late):
        pool = self.pool
        until = pool.now + pause
        while pool.wake_at <= until and not late:
            pool.tick(at=max(pool.now, pool.wake_at))
        pool.now = until

    @rule()
    def tick(self):
        self.pool.tick()

    # --- the owner of the pool ----------------------------------------------------

    @rule(changes=any_settings(), really=seldom)
    def configure(self, changes, really):
        if really:
            self.pool.configure(**changes)

    @rule(really=seldom)
    def drain(self, really):
        if really:
            self.pool.drain()

    @rule()
    def wait_until_ready(self):
        self.pool.wait_until_ready()

    @if_open
    @rule(really=seldom, patient=mostly)
    def close(self, really, patient):
        if really:
            self.pool.close()
            self.pool.wait_until_empty()
            if self.pool.for_empty and not patient:
                self.lose_patience()

    @if_any("for_empty")
    @rule()
    def lose_patience(self):
        self.pool.time_out(self.pool.for_empty[0])
        if not self.pool.core.open:
            self.pool.abort()

    @if_closed
    @rule()
    def start(self):
        self.pool.start()

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
        waiting = list(pool.queue)
        for _ in range(100):
            self._all_do_their_part()
            if not pool.queue:
                break
            pool.tick(at=max(pool.now, pool.wake_at))

        assert not pool.queue, "forgotten"
        assert all(waiter.entry is not None for waiter in waiting)

    def _the_pool_shrinks(self):
        pool = self.pool
        until = pool.now + pool.core.settings.max_idle
        while pool.wake_at <= until:
            pool.tick(at=max(pool.now, pool.wake_at))
            pool.work()
        pool.now = until

        assert pool.core.settings.min_size == pool.stats.size

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
    for what in [*Reason, *Refusal, Connect, Close, Check, Reset]:
        assert what in Histories.reach
