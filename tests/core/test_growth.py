"""When connections are opened, and what happens when that fails."""

from __future__ import annotations

import pytest

from edgepool._core import Connect, Refusal
from support.core import REFUSED, Driven, served

# --- growth -----------------------------------------------------------------------


def test_an_open_pool_connects_until_it_has_min_size():
    pool = Driven(min_size=2, max_size=4)

    assert 2 == len(pool.connect_all())
    assert 2 == pool.stats.idle


def test_a_waiter_causes_a_connect():
    pool = Driven()
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_each_waiter_causes_a_connect_beside_the_others():
    pool = Driven()
    pool.wait()
    pool.wait()

    assert 2 == len(pool.wanted(Connect))


def test_a_connect_under_way_is_one_connect_less_to_start():
    pool = Driven(min_size=1, max_size=4)
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_what_is_lent_is_no_connect_less_for_who_waits():
    pool = Driven(min_size=1, max_size=4)
    pool.lend(1)
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_never_more_than_max_size():
    pool = Driven(max_size=3)
    for _ in range(5):
        pool.wait()

    assert 3 == len(pool.wanted(Connect))
    pool.connect_all()
    assert (3, 3, 2) == (pool.stats.size, pool.stats.in_use, pool.stats.waiting)


def test_never_more_connects_at_a_time_than_max_connecting():
    pool = Driven(min_size=4, max_size=4, max_connecting=2)

    assert 2 == len(pool.wanted(Connect))
    pool.connect_one()
    assert 2 == len(pool.wanted(Connect))


def test_a_new_connection_that_nobody_waits_for_is_idle():
    pool = Driven(min_size=1)

    entry = pool.connect_one()

    assert [entry] == pool.idle


def test_a_new_connection_is_unused_since_it_was_asked_for():
    pool = Driven(now=3.0, min_size=1)

    pool.now = 4.0
    entry = pool.connect_one()

    assert 3.0 == entry.idle_since


# --- backoff ----------------------------------------------------------------------


def failing(age, **settings):
    """Make a pool whose last connect failed just now, and the first `age` ago."""
    pool = Driven(**settings)
    pool.wait()
    pool.fail_one()
    pool.tick(at=0.010)
    pool.now = age
    pool.fail_one()
    pool.tick()
    return pool


def test_a_connect_is_tried_again_when_the_backoff_is_over():
    pool = Driven()
    pool.wait()
    pool.fail_one()

    assert 0.010 == pool.wake_at
    pool.tick(at=0.009)
    assert [] == pool.wanted(Connect)
    pool.tick(at=0.010)
    assert 1 == len(pool.wanted(Connect))


def test_the_backoff_grows_with_the_age_of_the_outage():
    pool = failing(age=4.0)

    assert 4.2 == pytest.approx(pool.wake_at)


def test_jitter_shortens_the_backoff():
    pool = Driven(jitter=1.0)
    pool.wait()
    pool.fail_one()

    assert 0.008 == pytest.approx(pool.wake_at)


def test_the_backoff_is_longer_while_nobody_waits():
    pool = failing(age=100.0, min_size=1)
    (waiter,) = pool.core.waiters()
    pool.tell(pool.core.time_out, waiter)

    pool.tick(at=101.0)
    pool.now = 200.0
    pool.fail_one()

    assert 210.0 == pytest.approx(pool.wake_at)


def test_the_backoff_is_short_while_somebody_waits():
    pool = failing(age=100.0, min_size=1)

    assert 101.0 == pytest.approx(pool.wake_at)


def test_who_arrives_during_the_backoff_has_a_connect_tried_at_once():
    pool = failing(age=10.0)

    pool.now = 10.1
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_whoever_arrives_there_are_50_ms_between_two_tries():
    pool = failing(age=10.0)

    pool.now = 10.02
    pool.wait()

    assert [] == pool.wanted(Connect)
    assert 10.05 == pytest.approx(pool.wake_at)
    pool.tick(at=10.05)
    assert 1 == len(pool.wanted(Connect))


def test_who_arrives_does_not_put_a_try_off():
    pool = Driven()
    pool.wait()
    pool.fail_one()

    pool.wait()

    assert 0.010 == pool.wake_at


def test_who_arrives_while_a_connect_is_tried_has_another_one_tried_if_it_fails():
    pool = failing(age=100.0)
    pool.tick(at=101.0)
    pool.now = 101.5
    pool.wait()
    pool.now = 101.75
    pool.fail_one()

    assert 101.80 == pytest.approx(pool.wake_at)


def test_who_has_the_connect_tried_does_not_have_two_tried():
    pool = failing(age=100.0)
    pool.now = 100.5
    pool.wait()
    pool.now = 100.6
    pool.fail_one()

    pool.tick(at=101.0)

    assert 101.6 == pytest.approx(pool.wake_at)


def test_one_connect_at_a_time_while_connecting_fails():
    pool = failing(age=1.0, max_size=4)

    pool.now = 2.0
    for _ in range(3):
        pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_none_is_started_beside_those_under_way_when_connecting_begins_to_fail():
    pool = Driven(max_size=4)
    for _ in range(3):
        pool.wait()
    pool.fail_one()

    pool.tick(at=0.9)

    assert 2 == len(pool.wanted(Connect))


# --- connects that may hang -------------------------------------------------------


def test_after_a_second_another_connect_is_tried_beside_one_that_may_hang():
    pool = Driven(max_size=4)
    pool.wait()

    assert 1.0 == pool.wake_at
    pool.tick(at=0.9)
    assert 1 == len(pool.wanted(Connect))
    pool.tick(at=1.0)
    assert 2 == len(pool.wanted(Connect))


def test_one_more_each_second_is_tried_beside_those_that_may_hang():
    pool = Driven(max_size=4)
    pool.wait()
    tried = []

    for moment in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
        pool.tick(at=moment)
        tried.append(len(pool.wanted(Connect)))

    assert [2, 2, 3, 3, 4, 4] == tried


def test_who_arrives_while_a_connect_hangs_has_another_one_tried_at_once():
    pool = Driven(min_size=1, max_size=4)

    pool.now = 60.0
    pool.wait()

    assert 2 == len(pool.wanted(Connect))


def test_a_connect_that_hangs_while_connecting_fails_holds_nobody_up():
    pool = failing(age=10.0, max_size=4)
    pool.tick(at=11.0)

    pool.tick(at=12.0)

    assert 2 == len(pool.wanted(Connect))


def test_none_is_tried_beside_one_that_hangs_for_nobody():
    pool = Driven(min_size=1, max_size=4)

    pool.tick(at=60.0)

    assert 1 == len(pool.wanted(Connect))


def test_max_connecting_holds_also_for_connects_that_hang():
    pool = Driven(max_size=4, max_connecting=2)
    pool.wait()

    for moment in (1.0, 2.0, 3.0):
        pool.tick(at=moment)

    assert 2 == len(pool.wanted(Connect))


# --- it works again ---------------------------------------------------------------


def test_one_success_opens_all_lanes_again():
    pool = failing(age=1.0, max_size=4)
    pool.now = 2.0
    for _ in range(3):
        pool.wait()

    pool.connect_one()

    assert 3 == len(pool.wanted(Connect))


def test_one_success_ends_the_backoff():
    pool = failing(age=10.0)
    pool.now = 10.1
    pool.wait()
    pool.connect_one()
    pool.now = 10.2
    pool.fail_one()
    pool.tick()

    assert 10.21 == pytest.approx(pool.wake_at)


def test_a_pool_tells_since_when_connecting_fails_and_why():
    error = OSError("no route")
    pool = Driven()
    pool.wait()
    pool.now = 1.0
    pool.fail_one()
    pool.tick(at=2.0)

    pool.fail_one(error)

    assert (1.0, error) == (pool.core.failing_since, pool.core._outage.error)


def test_a_pool_whose_connects_work_tells_so():
    pool = failing(age=1.0)
    pool.tick(at=2.0)

    pool.connect_one()

    assert (None, None) == (pool.core.failing_since, pool.core._outage.error)


def test_waiters_stay_when_a_connect_fails():
    pool = Driven()
    waiter = pool.wait()

    pool.fail_one()

    assert not waiter.resolved


def test_nothing_is_tried_again_for_nobody():
    pool = Driven()
    waiter = pool.wait()
    pool.tell(pool.core.time_out, waiter)
    pool.fail_one()

    pool.tick(at=60.0)

    assert [] == pool.todo


# --- errors that waiting does not mend --------------------------------------------


def test_a_permanent_error_refuses_who_waits_at_once_and_tells_why():
    error = PermissionError("wrong password")
    pool = Driven(max_connecting=1)
    waiters = [pool.wait(), pool.wait()]

    pool.fail_one(error, permanent=True)

    assert [(Refusal.FAILED, error)] * 2 == [(w.refusal, w.cause) for w in waiters]
    assert waiters == pool.woken
    assert [] == pool.core.waiters()


def test_a_permanent_error_refuses_who_waits_until_the_pool_is_ready():
    pool = Driven(min_size=1)
    waiter = pool.wait_for(pool.core.when_ready)

    pool.fail_one(permanent=True)

    assert (Refusal.FAILED, REFUSED) == (waiter.refusal, waiter.cause)


def test_who_came_while_the_connect_was_under_way_gets_another():
    pool = Driven()
    first = pool.wait()
    pool.now = 1.0
    second = pool.wait()

    pool.fail_one(permanent=True)

    assert (True, False) == (first.resolved, second.resolved)
    pool.fail_one(permanent=True)
    assert Refusal.FAILED is second.refusal


def test_a_permanent_error_refuses_nobody_while_a_connection_is_established():
    pool = Driven(max_size=2)
    (entry,) = pool.lend(1)
    waiter = pool.wait()

    pool.fail_one(permanent=True)

    assert not waiter.resolved
    pool.give_back(entry)
    assert entry is served(waiter)


def test_a_pool_that_refused_for_a_permanent_error_tries_for_the_next_who_comes():
    pool = Driven()
    pool.wait()
    pool.fail_one(permanent=True)

    pool.now = 5.0
    waiter = pool.wait()

    assert pool.connect_one() is served(waiter)


def test_a_permanent_error_is_tried_again_for_min_size():
    pool = Driven(min_size=1)
    pool.fail_one(permanent=True)

    pool.tick(at=pool.wake_at)

    assert 1 == len(pool.wanted(Connect))


# --- the alarm --------------------------------------------------------------------


def fail_at(pool, moment):
    """Let a retry fail at that moment; tell how often the alarm has gone."""
    pool.tick(at=pool.wake_at)
    pool.now = moment
    pool.fail_one()
    return pool.alarms


def test_the_alarm_goes_when_connecting_has_failed_for_reconnect_timeout():
    pool = Driven(now=100.0, min_size=1, reconnect_timeout=5.0)
    pool.fail_one()

    assert [0, 0, 1] == [fail_at(pool, t) for t in (101.0, 104.9, 105.0)]


def test_the_alarm_goes_again_each_time_that_it_has_failed_for_so_long_again():
    pool = Driven(min_size=1, reconnect_timeout=5.0)
    pool.fail_one()

    assert [1, 1, 2, 3] == [fail_at(pool, t) for t in (5.0, 9.9, 11.0, 16.0)]


def test_the_alarm_goes_at_the_first_failure_if_reconnect_timeout_is_0():
    pool = Driven(min_size=1, reconnect_timeout=0.0)

    pool.fail_one()

    assert 1 == pool.alarms


def test_a_success_puts_the_alarm_off():
    pool = Driven(min_size=1, reconnect_timeout=5.0)
    pool.fail_one()
    pool.tick(at=pool.wake_at)
    entry = pool.connect_one()
    pool.now = 4.0
    pool.tell(pool.core.lost, entry)
    pool.close_all()
    pool.fail_one()

    assert [0, 1] == [fail_at(pool, t) for t in (8.9, 9.0)]


# --- ready ------------------------------------------------------------------------


def test_a_pool_is_ready_when_min_size_connections_are_established():
    pool = Driven(min_size=2)
    waiter = pool.wait_for(pool.core.when_ready)

    pool.connect_one()
    assert not waiter.resolved
    pool.connect_one()
    assert (True, None) == (waiter.resolved, waiter.refusal)
    assert [waiter] == pool.woken


def test_a_pool_is_ready_though_its_connections_are_lent():
    pool = Driven(min_size=1, max_size=1)
    pool.wait()
    waiter = pool.wait_for(pool.core.when_ready)

    pool.connect_one()

    assert waiter.resolved


def test_a_pool_that_is_ready_says_so_at_once():
    pool = Driven(min_size=1)
    pool.connect_all()

    assert pool.wait_for(pool.core.when_ready).resolved


def test_a_pool_with_min_size_0_is_ready_at_once():
    pool = Driven(min_size=0)

    assert pool.wait_for(pool.core.when_ready).resolved


def test_what_is_being_closed_does_not_make_a_pool_ready():
    pool = Driven(min_size=2, max_size=2, max_connecting=1)
    waiter = pool.wait_for(pool.core.when_ready)
    first = pool.connect_one()
    pool.borrow()
    pool.tell(pool.core.give_back_broken, first)

    pool.connect_one()

    assert not waiter.resolved


def test_who_waits_until_a_pool_is_ready_may_time_out():
    pool = Driven(min_size=1)
    waiter = pool.wait_for(pool.core.when_ready)
    pool.fail_one()

    pool.tell(pool.core.time_out, waiter)

    assert (Refusal.TIMEOUT, REFUSED) == (waiter.refusal, waiter.cause)
    pool.tick(at=1.0)
    pool.connect_one()
    assert [waiter] == pool.woken


def test_who_waits_until_a_closed_pool_is_ready_is_refused():
    pool = Driven(opened=False)

    waiter = pool.wait_for(pool.core.when_ready)

    assert (Refusal.CLOSED, [waiter]) == (waiter.refusal, pool.woken)


def test_connects_start_apart_by_the_stagger():
    pool = Driven(min_size=3, stagger=0.25)
    started = [len(pool.wanted(Connect))]

    for moment in (0.125, 0.25, 0.375, 0.5):
        if moment >= pool.wake_at:
            pool.tick(at=moment)
        started.append(len(pool.wanted(Connect)))

    assert [1, 1, 2, 2, 3] == started


def test_the_stagger_holds_nobody_up_while_nothing_connects():
    pool = Driven(min_size=2, stagger=5.0)
    pool.connect_one()

    assert 1 == len(pool.wanted(Connect))
