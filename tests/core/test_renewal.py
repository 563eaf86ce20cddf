"""How connections are replaced before they have to be, while nobody feels it."""

from __future__ import annotations

import pytest

from edgepool._core import Check, Close, Connect, Reason
from support.core import Driven

# Everything lives for 100 s, and may be replaced in the last 5.
LIFE = {"max_lifetime": 100.0, "renewal": 0.05, "max_idle": 1000.0}


def let_time_pass(pool, until):
    """Let the timer fire whenever the core asks for it; all I/O is instant."""
    while pool.wake_at <= until:
        pool.tick(at=max(pool.now, pool.wake_at))
        pool.work()
    pool.now = until


# --- where there is room --------------------------------------------------------------


def test_a_successor_is_connected_before_the_old_one_goes():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)

    pool.tick(at=94.9)

    assert [] == pool.todo

    pool.tick(at=95.0)

    assert 1 == len(pool.wanted(Connect))
    assert [old] == pool.idle

    new = pool.connect_one()

    assert [new] == pool.idle
    assert [old] == pool.wanted(Close)
    assert Reason.EXPIRED is old.reason
    assert [] == pool.wanted(Connect)


def test_the_timer_is_set_to_when_the_first_may_be_replaced():
    pool = Driven(max_size=2, **LIFE)
    pool.warm_up(1)

    pool.tick()

    assert 95.0 == pool.wake_at


def test_what_has_a_successor_is_lent_until_that_is_there():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)
    pool.tick(at=95.0)

    assert old is pool.borrow()

    new = pool.connect_one()
    pool.give_back(old)

    assert [new] == pool.idle
    assert [old] == pool.wanted(Close)
    assert [] == pool.wanted(Connect)


def test_what_is_lent_at_its_time_has_its_successor_when_it_comes_back():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.lend(1)

    pool.tick(at=95.0)
    new = pool.connect_one()
    pool.give_back(old)

    assert [new] == pool.idle
    assert [old] == pool.wanted(Close)


def test_one_is_replaced_after_the_other():
    pool = Driven(max_size=4, **LIFE)
    pool.warm_up(2)

    pool.tick(at=95.0)

    assert 1 == len(pool.wanted(Connect))

    pool.connect_one()
    pool.close_one()

    assert 1 == len(pool.wanted(Connect))

    pool.connect_one()
    pool.close_one()

    assert [] == pool.todo
    assert 2 == pool.stats.idle


def test_a_successor_inherits_the_idle_clock():
    pool = Driven(**{**LIFE, "max_idle": 96.0}, max_size=2)
    pool.warm_up(1)
    pool.tick(at=95.0)
    new = pool.connect_one()

    pool.tick(at=96.0)

    assert Reason.UNUSED is new.reason


def test_a_successor_that_cannot_be_connected_leaves_the_old_one_in_its_place():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)
    pool.tick(at=95.0)

    pool.fail_one()

    assert [old] == pool.idle

    let_time_pass(pool, 99.0)

    assert 1 == pool.stats.idle
    assert [old] != pool.idle


def test_what_is_too_old_goes_though_its_successor_is_not_there_yet():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)
    pool.tick(at=95.0)

    pool.tick(at=100.0)

    assert [old] == pool.wanted(Close)
    assert 1 == len(pool.wanted(Connect))


@pytest.mark.parametrize("event", ["lost", "drained"])
def test_what_leaves_for_another_reason_is_replaced_once(event):
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)
    pool.tick(at=95.0)
    if event == "lost":
        pool.tell(pool.core.suspect)
        pool.tell(pool.core.checked, old, False, False)
    else:
        pool.tell(pool.core.drain)
    pool.work()

    assert 1 == pool.stats.idle


def test_what_is_gone_when_its_successor_is_there_needs_nothing_more():
    pool = Driven(max_size=2, **LIFE)
    (old,) = pool.warm_up(1)
    pool.tick(at=95.0)
    pool.tick(at=100.0)
    pool.close_one()

    new = pool.connect_one()

    assert old is not new
    assert [new] == pool.idle
    assert [] == pool.todo


# --- where there is none --------------------------------------------------------------


def test_an_idle_one_of_several_is_replaced_in_a_full_pool():
    pool = Driven(min_size=2, max_size=2, **LIFE)
    pool.connect_all()

    pool.tick(at=95.0)

    assert 1 == len(pool.wanted(Close))
    assert 1 == pool.stats.idle

    pool.work()

    assert 2 == pool.stats.idle


def test_the_last_idle_one_of_a_full_pool_stays_as_long_as_it_can():
    pool = Driven(min_size=1, max_size=1, **LIFE)
    pool.connect_all()

    let_time_pass(pool, 99.9)

    assert [] == pool.todo
    assert 1 == len(pool.resources)

    pool.tick(at=100.0)
    pool.work()

    assert 2 == len(pool.resources)


def test_what_is_lent_in_a_full_pool_stays_as_long_as_it_can():
    pool = Driven(max_size=2, **LIFE)
    pool.lend(2)

    let_time_pass(pool, 99.9)

    assert 2 == len(pool.living) == len(pool.resources)


# --- when it would be felt ------------------------------------------------------------


def test_nothing_is_replaced_while_somebody_waits():
    pool = Driven(max_size=1, **LIFE)
    pool.lend(1)
    pool.wait()
    pool.configure(max_size=2, max_connecting=1)

    pool.tick(at=95.0)

    assert 1 == len(pool.wanted(Connect))


def test_nothing_goes_before_its_successor_is_there_while_connecting_fails():
    pool = Driven(max_size=3, **LIFE)
    pool.warm_up(2)
    pool.now = 94.0
    pool.lend(2)
    waiter = pool.wait()
    pool.fail_one()
    pool.tell(pool.core.time_out, waiter)
    pool.configure(max_size=2)

    let_time_pass(pool, 99.9)

    assert 2 == len(pool.living) == len(pool.resources)


def test_what_is_being_checked_is_replaced_too():
    pool = Driven(max_size=2, check_after=95.0, **LIFE)
    (old,) = pool.warm_up(1)

    pool.tick(at=95.0)

    assert [old] == pool.wanted(Check)

    pool.connect_one()
    pool.check_one()
    let_time_pass(pool, 96.0)

    assert old not in pool.idle
    assert 1 == pool.stats.idle


def test_a_null_pool_replaces_nothing():
    pool = Driven(max_size=2, keep_idle=False, **LIFE)
    pool.lend(1)

    pool.tick(at=95.0)

    assert [] == pool.todo


def test_without_a_share_for_it_nothing_is_replaced_ahead_of_time():
    pool = Driven(max_size=2, **{**LIFE, "renewal": 0.0})
    pool.warm_up(1)

    let_time_pass(pool, 99.9)

    assert 1 == len(pool.resources)


# --- draining slowly ------------------------------------------------------------------


def test_a_slow_drain_replaces_one_after_the_other():
    pool = Driven(max_size=4, **LIFE)
    old = pool.warm_up(3)
    gone = []
    pool.tell(pool.core.drain_over, 30.0)
    for moment in (0.0, 9.0, 10.0, 20.0, 30.0):
        let_time_pass(pool, moment)
        pool.tick()
        pool.work()
        gone.append(sum(entry.resource.closed for entry in old))

    assert [1, 1, 2, 3, 3] == gone
    assert 3 == pool.stats.idle


def test_a_slow_drain_of_a_full_and_busy_pool_takes_what_comes_back():
    pool = Driven(min_size=2, max_size=2, **LIFE)
    old = pool.lend(2)
    pool.tell(pool.core.drain_over, 10.0)

    let_time_pass(pool, 10.0)

    assert old == [entry for entry in old if not entry.resource.closed]

    for entry in old:
        pool.give_back(entry)

    assert old == pool.wanted(Close)


def test_a_slow_drain_is_meant_for_what_is_being_connected_too():
    pool = Driven(min_size=1, max_size=2, **LIFE)
    pool.tell(pool.core.drain_over, 10.0)
    old = pool.connect_one()

    let_time_pass(pool, 10.0)

    assert old.resource.closed
    assert 1 == pool.stats.idle


def test_a_slow_drain_of_an_empty_pool_does_nothing():
    pool = Driven(max_size=2)

    pool.tell(pool.core.drain_over, 10.0)

    assert [] == pool.todo
