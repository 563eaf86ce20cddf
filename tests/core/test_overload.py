"""Overload: when it begins and ends, who is shed, and who is not.

The target is 1 s and the interval 10 s, so with a queue that begins at 0 an overload
begins at 11, and whoever has waited for 2 s is shed.
"""

from __future__ import annotations

import gc
import sys

import pytest

from edgepool._core import NEVER, Refusal
from support.core import REFUSED, Driven, served

BEGINS = 11.0


LIMITS = {"shed_target": 1.0, "shed_interval": 10.0}
NO_OTHER_TIMER = {"max_lifetime": NEVER, "max_idle": NEVER}


def exhausted(**settings):
    """Make a pool of one connection, which is lent."""
    pool = Driven(max_size=1, **{**LIMITS, **NO_OTHER_TIMER, **settings})
    (entry,) = pool.lend(1)
    return pool, entry


def waiting_since(pool, *moments):
    """Let somebody come at each of these moments."""
    waiters = []
    for moment in moments:
        pool.now = moment
        waiters.append(pool.wait())
    return waiters


def overloaded(**settings):
    """Make a pool in which an overload is about to shed the first of three."""
    pool, entry = exhausted(**settings)
    waiters = waiting_since(pool, 0.0, 5.0, 10.0)
    pool.now = BEGINS
    return pool, entry, waiters


def just_before(pool, moment):
    """Let the timer fire when it is to, up to a moment."""
    while pool.wake_at < moment:
        pool.tick(at=pool.wake_at)


def shed(waiters):
    return [waiter for waiter in waiters if waiter.refusal is Refusal.SHED]


# --- off ------------------------------------------------------------------------------


def test_without_a_target_nobody_is_shed():
    pool, entry = exhausted(shed_target=None)
    waiters = waiting_since(pool, *range(1000))

    pool.tick(at=1e6)
    pool.wait()
    pool.give_back(entry)

    assert entry is served(waiters[0])
    assert [] == shed(waiters)


def test_without_a_target_no_timer_is_set_for_those_who_wait():
    pool, _ = exhausted(shed_target=None)
    waiting_since(pool, 0.0, 1.0, 2.0)
    pool.tick()  # it may have been set for something else

    assert NEVER == pool.wake_at


def test_an_infinite_target_sheds_nobody():
    pool, _ = exhausted(shed_target=NEVER)
    waiters = waiting_since(pool, 0.0, 1.0, 2.0)

    pool.tick(at=1e9)

    assert [] == shed(waiters)


def test_an_infinite_interval_sheds_nobody():
    pool, _ = exhausted(shed_interval=NEVER)
    waiters = waiting_since(pool, 0.0, 1.0, 2.0)

    pool.tick(at=1e9)

    assert [] == shed(waiters)


# --- when an overload begins ----------------------------------------------------------


def test_a_queue_that_is_slow_for_less_than_the_interval_is_a_burst():
    pool, _, waiters = overloaded()

    pool.tick(at=BEGINS - 0.001)

    assert [] == shed(waiters)


def test_a_queue_that_is_slow_for_the_interval_is_an_overload():
    pool, _, waiters = overloaded()

    pool.tick()

    assert waiters[:2] == shed(waiters)


def test_who_is_served_within_the_target_shows_that_it_is_no_overload():
    pool, entry = exhausted()
    (first,) = waiting_since(pool, 5.0)
    waiters = waiting_since(pool, 5.5, 5.6)

    pool.now = 6.0
    pool.give_back(entry)
    just_before(pool, 17.0)

    assert entry is served(first)
    assert [] == shed(waiters)

    pool.tick(at=17.0)

    assert waiters[:1] == shed(waiters)


def test_who_is_served_later_than_that_shows_nothing():
    pool, entry, waiters = overloaded()
    pool.now = 1.001
    pool.give_back(entry)

    pool.tick(at=BEGINS)

    assert entry is served(waiters[0])
    assert [waiters[1]] == shed(waiters)


def test_a_queue_that_was_empty_begins_anew():
    pool, entry = exhausted()
    waiting_since(pool, 0.0)
    pool.now = 9.0
    pool.give_back(entry)
    waiters = waiting_since(pool, 10.0, 11.0)

    pool.tick(at=20.999)

    assert [] == shed(waiters)

    pool.tick(at=21.0)

    assert waiters[:1] == shed(waiters)


def test_a_queue_that_all_have_left_begins_anew():
    pool, _ = exhausted()
    (impatient,) = waiting_since(pool, 0.0)
    pool.now = 9.0
    pool.tell(pool.core.time_out, impatient)
    waiters = waiting_since(pool, 10.0, 11.0)

    pool.tick(at=20.999)

    assert [] == shed(waiters)


def test_who_waits_for_the_first_connections_of_a_cold_pool_is_in_no_overload():
    pool = Driven(max_size=2, **LIMITS)
    waiters = waiting_since(pool, 0.0, 0.0, 0.0, 0.0)

    pool.tick(at=10.0)
    first, second = pool.connect_all()

    assert [first, second] == [served(waiter) for waiter in waiters[:2]]
    assert [] == shed(waiters)


# --- who is shed ----------------------------------------------------------------------


def test_who_has_waited_for_less_than_twice_the_target_stays():
    pool, _ = exhausted()
    waiters = waiting_since(pool, 0.0, 9.0, 9.001, 10.0)

    pool.tick(at=BEGINS)

    assert waiters[:2] == shed(waiters)
    assert waiters[2:] == pool.core.waiters()


def test_the_last_is_never_shed():
    pool, _ = exhausted()
    (alone,) = waiting_since(pool, 0.0)

    pool.tick(at=1e6)

    assert not alone.resolved


def test_the_last_is_served_however_long_he_has_waited():
    pool, entry, waiters = overloaded()

    pool.now = 100.0
    pool.give_back(entry)

    assert waiters[:2] == shed(waiters)
    assert entry is served(waiters[2])


def test_a_return_sheds_who_is_due_and_serves_the_first_who_is_not():
    pool, entry = exhausted()
    waiters = waiting_since(pool, 0.0, 5.0, 10.0, 10.5)

    pool.now = BEGINS
    pool.give_back(entry)

    assert waiters[:2] == shed(waiters)
    assert entry is served(waiters[2])
    assert waiters[3:] == pool.core.waiters()


def test_a_new_connection_sheds_who_is_due_and_serves_the_first_who_is_not():
    pool = Driven(max_size=1, **LIMITS)
    waiters = waiting_since(pool, 0.0, 5.0, 10.0, 10.5)

    pool.now = BEGINS
    entry = pool.connect_one()

    assert waiters[:2] == shed(waiters)
    assert entry is served(waiters[2])


def test_a_newcomer_is_the_end_of_who_is_due():
    pool, _ = exhausted()
    waiters = waiting_since(pool, 0.0, 20.0)

    assert waiters[:1] == shed(waiters)
    assert waiters[1:] == pool.core.waiters()


def test_who_is_shed_is_told_before_who_is_served():
    pool, entry, waiters = overloaded()
    told = len(pool.woken)

    pool.give_back(entry)

    assert waiters == pool.woken[told:]


def test_who_is_shed_is_not_served_later():
    pool, entry, waiters = overloaded()
    pool.tick()

    pool.give_back(entry)

    assert (True, None) == (waiters[0].resolved, waiters[0].entry)
    assert entry is served(waiters[2])


def test_who_is_shed_does_not_time_out_as_well():
    pool, _, waiters = overloaded()
    pool.tick()

    pool.tell(pool.core.time_out, waiters[0])

    assert Refusal.SHED is waiters[0].refusal
    assert 2 == pool.stats.requests_errors


def test_who_is_shed_is_told_why_connecting_fails():
    pool = Driven(max_size=1, **LIMITS)
    waiters = waiting_since(pool, 0.0, 5.0, 10.0)
    pool.fail_one()

    pool.tick(at=BEGINS)

    assert waiters[:2] == shed(waiters)
    assert REFUSED is waiters[0].cause


def test_who_was_served_something_dead_is_not_shed_for_whom_he_overtook():
    pool, _ = exhausted()
    waiters = waiting_since(pool, 0.0, 10.5)
    pool.now = 10.0
    again = pool.wait(again=True)

    pool.tick(at=BEGINS)

    assert [] == shed([again, *waiters])

    pool.tick(at=12.0)

    assert [again, waiters[0]] == shed([again, *waiters])


def test_who_is_shed_makes_room_for_a_newcomer():
    pool, _ = exhausted(max_waiting=2)
    waiters = waiting_since(pool, 0.0, 5.0)

    pool.now = BEGINS
    newcomer = pool.wait()

    assert waiters == shed(waiters)
    assert [newcomer] == pool.core.waiters()


def test_one_more_than_max_waiting_is_refused_in_an_overload_too():
    pool, _ = exhausted(max_waiting=2)
    waiters = waiting_since(pool, 10.0, 10.5)

    pool.now = BEGINS
    newcomer = pool.wait()

    assert Refusal.FULL is newcomer.refusal
    assert waiters == pool.core.waiters()


def test_with_a_target_of_0_an_overload_keeps_nobody_waiting_but_the_last():
    pool, _ = exhausted(shed_target=0.0)
    waiters = waiting_since(pool, 0.0, 10.0, 10.5)

    assert waiters[:2] == shed(waiters)


# --- when an overload ends ------------------------------------------------------------


def test_shedding_makes_the_queue_quick_but_does_not_end_the_overload():
    pool, entry, _ = overloaded()
    pool.tick()  # sheds two
    pool.now = 11.0
    pool.give_back(entry)  # served in time, thanks to that
    waiters = waiting_since(pool, 12.0, 12.5)

    pool.tick(at=14.0)

    assert waiters[:1] == shed(waiters)


def test_an_overload_lasts_until_nobody_was_shed_for_an_interval():
    pool, entry, _ = overloaded()
    pool.tick()
    pool.give_back(entry)
    waiters = waiting_since(pool, 20.999, 21.5)

    pool.tick(at=23.0)

    assert waiters[:1] == shed(waiters)


def test_who_waits_after_that_is_in_a_burst():
    pool, entry, _ = overloaded()
    pool.tick()
    pool.give_back(entry)
    waiters = waiting_since(pool, 21.0, 21.5)

    pool.tick(at=31.999)

    assert [] == shed(waiters)

    pool.tick(at=32.0)

    assert waiters[:1] == shed(waiters)


def test_who_is_served_at_the_target_exactly_ends_an_overload_that_sheds_nobody():
    pool, entry = exhausted()
    first, *waiters = waiting_since(pool, 10.5, 11.0, 11.4)

    pool.now = 11.5
    pool.give_back(entry)
    pool.tick(at=22.4)

    assert entry is served(first)
    assert [] == shed(waiters)


# --- the timer ------------------------------------------------------------------------


def test_no_timer_is_set_for_one_who_waits_alone():
    pool, _ = exhausted(max_lifetime=NEVER)
    waiting_since(pool, 0.0)
    pool.tick()

    assert NEVER == pool.wake_at


def test_a_timer_is_set_for_the_beginning_of_an_overload():
    pool, _ = exhausted(max_lifetime=NEVER)
    waiting_since(pool, 0.0, 1.0)
    pool.tick()

    assert BEGINS == pool.wake_at


def test_in_an_overload_a_timer_is_set_for_the_next_to_be_shed():
    pool, _ = exhausted(max_lifetime=NEVER)
    waiting_since(pool, 0.0, 10.5, 10.6)

    pool.tick(at=BEGINS)

    assert 12.5 == pool.wake_at


def test_a_timer_that_sheds_does_not_fire_for_each():
    pool, _ = exhausted(max_lifetime=NEVER)
    waiting_since(pool, 0.0, 9.001, 9.002, 10.0)

    pool.tick(at=BEGINS)

    assert BEGINS + 0.25 == pool.wake_at


def test_a_timer_for_something_else_does_not_put_it_off():
    pool, _ = exhausted(max_lifetime=10.9)
    waiters = waiting_since(pool, 0.0, 1.0)

    pool.tick(at=10.9)

    assert BEGINS == pool.wake_at

    pool.tick(at=BEGINS)

    assert waiters[:1] == shed(waiters)


def test_a_timer_is_set_when_somebody_comes_behind_one_who_is_not_due_yet():
    pool, _ = exhausted(max_lifetime=NEVER)
    waiting_since(pool, 0.0, 10.5)
    pool.tick(at=BEGINS)
    pool.tick(at=pool.wake_at)

    assert NEVER == pool.wake_at

    waiting_since(pool, 12.0)

    assert 12.5 == pool.wake_at


# --- counted --------------------------------------------------------------------------


def test_who_is_shed_is_counted():
    pool, entry, _ = overloaded()

    pool.give_back(entry)

    assert (2, 2) == (pool.stats.requests_shed, pool.stats.requests_errors)


def test_whoever_is_refused_for_another_reason_is_not_counted_as_shed():
    pool, _, waiters = overloaded()
    pool.tell(pool.core.time_out, waiters[0])
    pool.tell(pool.core.close)

    assert (0, 3) == (pool.stats.requests_shed, pool.stats.requests_errors)


def test_the_time_that_who_is_shed_has_waited_is_counted():
    pool, _, _ = overloaded()

    pool.tick()

    assert 11.0 + 6.0 == pool.stats.wait_time


# --- at run time ----------------------------------------------------------------------


def test_a_target_that_is_set_judges_from_then_on():
    pool, _ = exhausted(shed_target=None)
    waiters = waiting_since(pool, 0.0, 1.0)
    pool.now = 100.0

    pool.configure(shed_target=1.0)
    just_before(pool, 111.0)

    assert [] == shed(waiters)

    pool.tick(at=111.0)

    assert waiters[:1] == shed(waiters)


def test_a_target_that_is_set_while_somebody_waits_sets_a_timer():
    pool, _ = exhausted(shed_target=None)
    waiting_since(pool, 0.0, 1.0)
    pool.now = 100.0

    pool.configure(shed_target=1.0)
    while pool.wake_at <= 100.0:
        pool.tick()

    assert 111.0 == pool.wake_at


def test_a_target_that_is_taken_away_sheds_nobody_more():
    pool, entry, waiters = overloaded()

    pool.configure(shed_target=None)
    pool.tick()
    pool.give_back(entry)

    assert entry is served(waiters[0])
    assert [] == shed(waiters)


@pytest.mark.parametrize("changes", [{"shed_target": 1.5}, {"shed_interval": 9.0}])
def test_other_limits_judge_anew(changes):
    pool, _, waiters = overloaded()
    pool.tick()
    pool.now = 11.5
    waiters += [pool.wait()]

    pool.configure(**changes)
    pool.tick(at=21.499)

    assert waiters[:2] == shed(waiters)

    pool.tick(at=23.0)

    assert waiters[:3] == shed(waiters)


def test_another_setting_does_not_judge_anew():
    pool, _, waiters = overloaded()

    pool.configure(max_waiting=100)
    pool.tick()

    assert waiters[:2] == shed(waiters)


# --- what it costs --------------------------------------------------------------------


def calls(function):
    """Count the calls of Python functions that a call makes."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    # What the garbage collector has to say of earlier tests does not count.
    gc.collect()
    gc.disable()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("ahead", [3, 10_000])
def test_coming_and_returning_cost_the_same_however_many_wait(ahead):
    pool, entry = exhausted()
    waiting_since(pool, *[10.0] * ahead)
    pool.now = 12.5

    few, entry_of_few = exhausted()
    waiting_since(few, *[10.0] * 2)
    few.now = 12.5

    assert calls(few.wait) == calls(pool.wait)
    assert calls(lambda: few.give_back(entry_of_few)) == calls(
        lambda: pool.give_back(entry)
    )


def test_shedding_many_costs_each_the_same():
    def cost(count):
        pool, _ = exhausted()
        waiting_since(pool, *[0.0] * (count + 1))
        pool.now = BEGINS
        took = calls(pool.tick)

        assert count == pool.stats.requests_shed

        return took

    ten, twenty, thousand = cost(10), cost(20), cost(1010)

    assert (thousand - ten) / 1000 == (twenty - ten) / 10
