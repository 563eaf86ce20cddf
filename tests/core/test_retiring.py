"""How connections leave: unused, too old, drained."""

from __future__ import annotations

import pytest

from edgepool._core import NEVER, Check, Close, Connect, Reason, Reset
from support.core import Driven, served


def reasons(pool):
    """Tell why each connection leaves that is being closed."""
    return [entry.reason for entry in pool.wanted(Close)]


def let_time_pass(pool, until):
    """Let the timer fire whenever the core asks for it; all I/O is instant."""
    while pool.wake_at <= until:
        pool.tick(at=max(pool.now, pool.wake_at))
        pool.work()
    pool.now = until


# --- max_idle ---------------------------------------------------------------------


def test_what_nobody_has_used_for_max_idle_is_closed():
    pool = Driven(max_idle=10.0)
    pool.warm_up(1)
    pool.tick()

    assert 10.0 == pool.wake_at
    pool.tick(at=9.9)
    assert [] == reasons(pool)
    pool.tick(at=10.0)
    assert [Reason.UNUSED] == reasons(pool)


def test_what_is_closed_because_nobody_uses_it_is_not_replaced():
    pool = Driven(max_idle=10.0)
    pool.warm_up(1)

    pool.tick(at=10.0)

    assert [] == pool.wanted(Connect)


def test_min_size_connections_stay_however_long_nobody_uses_them():
    pool = Driven(min_size=2, max_size=4, max_idle=10.0)
    pool.warm_up(3)

    pool.tick(at=3000.0)

    assert [Reason.UNUSED] == reasons(pool)
    assert 2 == pool.stats.idle


def test_a_pool_of_min_size_needs_no_timer():
    pool = Driven(min_size=1, max_idle=10.0, max_lifetime=NEVER)
    pool.connect_all()

    pool.tick(at=5.0)

    assert NEVER == pool.wake_at


def test_the_one_unused_for_the_longest_time_leaves_first():
    pool = Driven(min_size=1, max_idle=10.0)
    first, second = pool.lend(2)
    pool.now = 1.0
    pool.give_back(second)
    pool.now = 2.0
    pool.give_back(first)

    pool.tick(at=20.0)

    assert [second] == pool.wanted(Close)


def test_what_was_used_meanwhile_stays():
    pool = Driven(max_idle=10.0)
    (entry,) = pool.warm_up(1)
    pool.now = 5.0
    pool.give_back(pool.borrow())

    let_time_pass(pool, until=14.9)
    assert [entry] == pool.idle
    let_time_pass(pool, until=15.0)
    assert [] == pool.idle


def test_what_comes_back_when_no_timer_is_set_for_it_leaves_in_time_all_the_same():
    pool = Driven(max_idle=10.0)
    (entry,) = pool.lend(1)
    pool.tick(at=10.0)
    pool.now = 13.0
    pool.give_back(entry)

    let_time_pass(pool, until=22.9)
    assert [entry] == pool.idle
    let_time_pass(pool, until=23.0)
    assert [] == pool.idle


def test_what_is_too_old_does_not_count_as_one_that_stays():
    pool = Driven(min_size=1, max_idle=10.0, max_lifetime=20.0)
    cold, warm = pool.wait(), pool.wait()
    pool.connect_one()
    pool.jitter = 1.0
    pool.connect_one()
    pool.give_back(served(cold))
    pool.give_back(served(warm))

    pool.tick(at=19.0)

    assert [served(warm)] == pool.wanted(Close)


def test_what_is_lent_counts_as_one_that_stays():
    pool = Driven(min_size=1, max_idle=10.0)
    pool.lend(1)
    spare, _ = pool.lend(2)
    pool.give_back(spare)

    pool.tick(at=10.0)

    assert [spare] == pool.wanted(Close)


def test_a_connect_under_way_does_not_count_as_one_that_stays():
    pool = Driven(min_size=1, max_idle=10.0)
    (entry,) = pool.connect_all()
    pool.borrow()
    pool.wait()
    pool.give_back(entry)
    pool.give_back(entry)

    pool.tick(at=10.0)

    assert 1 == len(pool.wanted(Connect))
    assert [entry] == pool.idle


def test_a_new_connection_makes_the_coldest_one_leave_in_time():
    pool = Driven(min_size=1, max_idle=10.0)
    cold, broken = pool.lend(2)
    pool.now = 1.0
    pool.give_back(cold)
    pool.tell(pool.core.give_back_broken, broken)
    pool.close_all()
    pool.tick(at=5.0)

    pool.connect_one()

    assert 11.0 == pool.wake_at


def test_max_idle_0_closes_what_comes_back_at_the_next_tick():
    pool = Driven(max_idle=0.0)
    (entry,) = pool.lend(1)
    pool.now = 3.0
    pool.give_back(entry)

    assert 3.0 >= pool.wake_at
    pool.tick()
    assert [Reason.UNUSED] == reasons(pool)


def test_max_idle_0_does_not_keep_the_timer_busy_while_something_is_lent():
    pool = Driven(max_idle=0.0, max_lifetime=100.0)
    pool.lend(1)

    pool.tick(at=5.0)

    assert 5.0 < pool.wake_at


# --- max_lifetime -----------------------------------------------------------------


def test_an_idle_connection_is_closed_when_it_is_older_than_max_lifetime():
    pool = Driven(min_size=1, max_lifetime=60.0)
    pool.connect_all()

    assert 60.0 == pool.wake_at
    pool.tick(at=59.9)
    assert [] == reasons(pool)
    pool.tick(at=60.0)
    assert [Reason.EXPIRED] == reasons(pool)


def test_what_comes_back_shortly_before_it_is_too_old_leaves_in_time_all_the_same():
    pool = Driven(min_size=1, max_lifetime=60.0)
    pool.connect_all()
    entry = pool.borrow()
    pool.tick(at=50.0)
    pool.now = 55.0
    pool.give_back(entry)

    let_time_pass(pool, until=59.9)
    assert [entry] == pool.idle
    let_time_pass(pool, until=60.0)
    assert Reason.EXPIRED is entry.reason


def test_a_connection_that_is_too_old_is_replaced():
    pool = Driven(max_lifetime=60.0)
    pool.warm_up(1)

    pool.tick(at=60.0)

    assert 1 == len(pool.wanted(Connect))


def test_a_returned_connection_is_closed_when_it_is_too_old():
    pool = Driven(max_lifetime=60.0)
    (entry,) = pool.lend(1)
    pool.now = 60.0

    pool.give_back(entry)

    assert Reason.EXPIRED is entry.reason
    assert [entry] == pool.wanted(Close)


def test_a_connection_that_is_too_old_serves_nobody_who_waits():
    pool = Driven(max_size=1, max_lifetime=60.0)
    (entry,) = pool.lend(1)
    waiter = pool.wait()
    pool.now = 60.0

    pool.give_back(entry)

    assert not waiter.resolved
    pool.close_one()
    assert pool.connect_one() is served(waiter)


def test_a_dirty_connection_that_is_too_old_is_not_reset():
    pool = Driven(max_lifetime=60.0)
    (entry,) = pool.lend(1)
    pool.now = 60.0

    pool.tell(pool.core.give_back_dirty, entry)

    assert [] == pool.wanted(Reset)
    assert Reason.EXPIRED is entry.reason


def test_a_broken_connection_that_is_too_old_leaves_once():
    pool = Driven(max_lifetime=60.0)
    (entry,) = pool.lend(1)
    pool.now = 60.0

    pool.tell(pool.core.give_back_broken, entry)

    assert [entry] == pool.wanted(Close)


def test_a_borrower_examines_what_is_over_its_age():
    pool = Driven(max_lifetime=60.0, check_after=NEVER)
    pool.warm_up(1)
    entry = pool.borrow()

    pool.core.examine(pool.now, entry)

    assert 60.0 == entry.due_at == entry.expires_at


def test_what_a_borrower_finds_over_its_age_is_closed_and_replaced():
    pool = Driven(max_lifetime=60.0)
    pool.warm_up(1)
    pool.now = 60.0
    entry = pool.borrow()

    pool.tell(pool.core.overdue, entry)

    assert Reason.EXPIRED is entry.reason
    assert 1 == len(pool.wanted(Connect))


@pytest.mark.parametrize(("jitter", "age"), [(0.0, 60.0), (0.5, 58.5), (1.0, 57.0)])
def test_up_to_a_twentieth_is_taken_off_max_lifetime(jitter, age):
    pool = Driven(now=100.0, min_size=1, max_lifetime=60.0, jitter=jitter)

    entry = pool.connect_one()

    assert 100.0 + age == pytest.approx(entry.expires_at)


def test_the_lifetime_is_drawn_once_for_each_connection():
    pool = Driven(max_lifetime=60.0)
    (entry,) = pool.warm_up(1)
    pool.jitter = 1.0
    (other,) = pool.lend(2)[:1]
    pool.give_back(entry)

    assert 60.0 == entry.expires_at
    assert other is entry


def test_connections_opened_together_do_not_expire_together():
    pool = Driven(min_size=2, max_lifetime=60.0)
    first = pool.connect_one()
    pool.jitter = 1.0
    second = pool.connect_one()

    assert [60.0, 57.0] == [first.expires_at, second.expires_at]


def test_max_lifetime_counts_from_the_end_of_the_connect():
    pool = Driven(min_size=1, max_lifetime=60.0)
    pool.now = 5.0

    assert 65.0 == pool.connect_one().expires_at


def test_a_new_max_lifetime_holds_for_connections_opened_from_then_on():
    pool = Driven(min_size=1, max_lifetime=60.0)
    old = pool.connect_one()

    pool.configure(max_lifetime=600.0, min_size=2)

    assert [60.0, 600.0] == [old.expires_at, pool.connect_one().expires_at]


def brief(**settings):
    """Make a pool with one connection, which is too old by now: it lives for 0.1 s."""
    pool = Driven(min_size=1, max_size=2, max_lifetime=0.1, renewal=0.05, **settings)
    pool.connect_one()
    pool.tick(at=0.1)
    pool.close_one()
    return pool


def test_what_lives_for_less_than_a_second_is_replaced_once_a_second():
    pool = brief()

    assert [] == pool.wanted(Connect)
    assert 1.0 == pool.wake_at

    pool.tick(at=1.0)

    assert 1 == len(pool.wanted(Connect))


def test_it_is_not_replaced_ahead_of_time_either():
    pool = brief()
    pool.tick(at=1.0)
    pool.now = 1.5
    pool.connect_one()

    pool.tick(at=1.599)

    assert 1 == len(pool.wanted(Connect))

    pool.connect_one()
    pool.tick(at=1.697)

    assert [] == pool.wanted(Connect)


@pytest.mark.parametrize("kind", ["borrow", "ready"])
def test_who_waits_does_not_wait_for_that_second(kind):
    pool = brief()
    if kind == "borrow":
        pool.wait()
    else:
        pool.wait_for(pool.core.when_ready)

    assert 1 == len(pool.wanted(Connect))


def test_what_lives_for_a_second_is_replaced_at_once():
    pool = Driven(min_size=1, max_size=2, max_lifetime=1.0)
    pool.connect_one()

    pool.tick(at=1.0)

    assert 1 == len(pool.wanted(Connect))


# --- replaced, not lost -----------------------------------------------------------


def test_a_replacement_counts_as_unused_for_as_long_as_what_it_replaces():
    pool = Driven(max_idle=25.0, max_lifetime=10.0)
    pool.warm_up(1)

    pool.tick(at=10.0)
    new = pool.connect_one()

    assert 0.0 == new.idle_since


def test_a_pool_shrinks_within_max_idle_though_its_connections_live_less_long():
    pool = Driven(min_size=1, max_idle=25.0, max_lifetime=10.0)
    pool.warm_up(3)

    let_time_pass(pool, until=24.9)
    assert 3 == pool.stats.size
    let_time_pass(pool, until=25.0)
    assert 1 == pool.stats.size


def test_what_is_too_old_and_unused_for_max_idle_is_not_replaced():
    pool = Driven(max_idle=10.0, max_lifetime=10.0)
    pool.warm_up(1)

    pool.tick(at=10.0)

    assert [Reason.EXPIRED] == reasons(pool)
    assert [] == pool.wanted(Connect)


def test_a_replacement_is_tried_again_when_its_connect_fails():
    pool = Driven(max_lifetime=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.fail_one()

    pool.tick(at=pool.wake_at)

    assert 0.0 == pool.connect_one().idle_since


def test_a_replacement_is_given_up_when_nobody_has_used_it_for_max_idle():
    pool = Driven(max_idle=25.0, max_lifetime=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.now = 20.0
    pool.fail_one()

    pool.tick(at=25.0)

    assert [] == pool.wanted(Connect)


def test_the_warmest_of_those_that_left_is_replaced_first():
    pool = Driven(max_size=2, max_connecting=1)
    cold, warm = pool.lend(2)
    for pool.now, entry in [(1.0, cold), (2.0, warm)]:
        pool.tell(pool.core.give_back_broken, entry)
    pool.close_all()

    assert 2.0 == pool.connect_one().idle_since
    assert 1.0 == pool.connect_one().idle_since


def test_what_waiters_have_opened_is_not_opened_once_more():
    pool = Driven(max_size=2)
    entry, _ = pool.lend(2)
    pool.tell(pool.core.give_back_broken, entry)
    pool.wait()

    pool.close_one()

    assert 1 == len(pool.wanted(Connect))
    pool.connect_one()
    assert [] == pool.todo


# --- drain ------------------------------------------------------------------------


def test_a_drain_replaces_idle_connections_now():
    pool = Driven()
    pool.warm_up(2)

    pool.tell(pool.core.drain)

    assert [Reason.DRAINED] * 2 == reasons(pool)
    assert 0 == pool.stats.idle
    pool.close_all()
    assert 2 == len(pool.wanted(Connect))


def test_a_drain_leaves_lent_connections_to_their_borrowers():
    pool = Driven()
    pool.lend(1)

    pool.tell(pool.core.drain)

    assert [] == pool.todo


def test_a_lent_connection_leaves_on_its_return_after_a_drain():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.drain)

    pool.give_back(entry)

    assert [Reason.DRAINED] == reasons(pool)
    assert 1 == len(pool.wanted(Connect))


def test_a_connection_being_opened_leaves_on_its_arrival_after_a_drain():
    pool = Driven(min_size=1)
    pool.tell(pool.core.drain)

    pool.connect_one()

    assert [Reason.DRAINED] == reasons(pool)
    assert 0 == pool.stats.idle


def test_a_connection_being_reset_leaves_after_a_drain():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    pool.tell(pool.core.drain)

    pool.reset_one()

    assert [Reason.DRAINED] == reasons(pool)


def test_a_connection_being_checked_leaves_after_a_drain():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.tell(pool.core.drain)

    assert pool.check_one().reason is Reason.DRAINED


def test_what_is_opened_after_a_drain_stays():
    pool = Driven()
    pool.tell(pool.core.drain)

    (entry,) = pool.warm_up(1)

    assert [entry] == pool.idle


def test_who_waits_is_served_by_what_is_opened_after_a_drain():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()
    pool.tell(pool.core.drain)

    pool.give_back(entry)
    pool.close_one()

    assert pool.connect_one() is served(waiter)


def test_a_drained_pool_lends_as_usual():
    pool = Driven()
    pool.warm_up(1)
    pool.tell(pool.core.drain)
    pool.work()

    entry = pool.borrow()

    assert pool.core.give_back(pool.now, entry) is None


def test_a_check_is_no_use_of_a_connection():
    pool = Driven(max_idle=10.0, check_after=4.0)
    pool.warm_up(1)

    for moment in (4.0, 8.0):
        pool.tick(at=moment)
        assert 1 == len(pool.wanted(Check))
        pool.check_one()
    pool.tick(at=10.0)

    assert [Reason.UNUSED] == reasons(pool)


# --- what could not be configured -----------------------------------------------------


def test_what_could_not_be_configured_is_closed_before_its_place_is_free():
    pool = Driven(max_size=1)
    waiter = pool.wait()
    pool.begin_configuring()

    pool.fail_one()
    pool.tick(at=pool.wake_at)

    assert [Reason.UNCONFIGURED] == reasons(pool)
    assert [] == pool.wanted(Connect)

    pool.close_one()

    assert pool.connect_one() is served(waiter)
    assert 1 == len(pool.living)
