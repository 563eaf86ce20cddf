"""Closing a pool, cutting off who does not return, and opening it again."""

from __future__ import annotations

import pytest

from edgepool._core import Close, Connect, Reason, Refusal, Reset, State
from support.core import Driven, served

# --- close ------------------------------------------------------------------------


def test_closing_refuses_who_waits():
    pool = Driven(max_size=1)
    pool.lend(1)
    waiters = [pool.wait(), pool.wait()]
    pool.woken.clear()

    pool.tell(pool.core.close)

    assert [Refusal.CLOSED] * 2 == [waiter.refusal for waiter in waiters]
    assert waiters == pool.woken
    assert 0 == pool.stats.waiting


def test_closing_refuses_who_waits_until_the_pool_is_ready():
    pool = Driven(min_size=1)
    waiter = pool.wait_for(pool.core.when_ready)

    pool.tell(pool.core.close)

    assert Refusal.CLOSED is waiter.refusal
    assert [waiter] == pool.woken


def test_closing_closes_idle_connections_now():
    pool = Driven()
    entries = pool.warm_up(2)

    pool.tell(pool.core.close)

    assert entries == pool.wanted(Close)
    assert [Reason.CLOSED] * 2 == [entry.reason for entry in entries]


def test_closing_leaves_lent_connections_to_their_borrowers():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.close)

    assert State.IN_USE is entry.state
    assert [] == pool.todo


@pytest.mark.parametrize("way", ["returned", "give_back_dirty"])
def test_a_lent_connection_is_closed_on_its_return(way):
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.close)

    pool.tell(getattr(pool.core, way), entry)

    assert [entry] == pool.wanted(Close)
    assert Reason.CLOSED is entry.reason


def test_a_connection_being_opened_is_closed_on_its_arrival():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)

    entry = pool.connect_one()

    assert Reason.CLOSED is entry.reason


def test_a_connection_being_reset_is_closed_afterwards():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    pool.tell(pool.core.close)

    pool.reset_one()

    assert Reason.CLOSED is entry.reason


def test_a_closed_pool_opens_nothing():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)
    pool.fail_one()
    pool.tick(at=60.0)

    assert [] == pool.todo


def test_a_connect_that_fails_while_the_pool_closes_is_no_outage():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)

    pool.fail_one()

    assert pool.core.failing_since is None


def test_closing_a_closed_pool_changes_nothing():
    pool = Driven()
    pool.warm_up(1)
    pool.tell(pool.core.close)
    before = pool.stats

    pool.tell(pool.core.close)

    assert before == pool.stats


def test_a_pool_that_was_closed_before_it_was_opened_is_not_fresh():
    pool = Driven(opened=False)

    pool.tell(pool.core.close)

    assert (False, False) == (pool.core.fresh, pool.core.open)


def test_a_closed_pool_lends_nothing():
    pool = Driven()
    pool.warm_up(1)
    pool.tell(pool.core.close)

    assert pool.borrow() is None


# --- empty ------------------------------------------------------------------------


def test_a_closed_pool_is_empty_when_all_its_connections_are_closed():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)
    pool.woken.clear()

    pool.give_back(entry)
    assert not waiter.resolved
    pool.close_one()
    assert (True, None) == (waiter.resolved, waiter.refusal)
    assert [waiter] == pool.woken


def test_a_closed_pool_is_not_empty_while_it_connects():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)

    assert not waiter.resolved
    pool.fail_one()
    assert waiter.resolved


def test_a_closed_pool_may_wait_no_longer_for_its_connects():
    pool = Driven(min_size=1)
    (lent,) = pool.lend(1)
    pool.wait()
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)

    pool.tell(pool.core.abort_connects)
    assert not waiter.resolved
    pool.give_back(lent)
    pool.close_one()
    assert waiter.resolved

    # What arrives after all is closed.
    late = pool.connect_one()
    assert [late] == pool.wanted(Close)
    pool.close_one()
    assert State.GONE is late.state
    assert 0 == pool.stats.size


def test_an_open_pool_goes_on_waiting_for_its_connects():
    pool = Driven(min_size=1)

    pool.tell(pool.core.abort_connects)

    assert 1 == pool.stats.opening


def test_a_closed_pool_that_holds_nothing_is_empty_at_once():
    pool = Driven()
    pool.tell(pool.core.close)

    assert pool.wait_for(pool.core.when_empty).resolved


def test_an_open_pool_that_holds_nothing_is_not_empty():
    pool = Driven()

    assert not pool.wait_for(pool.core.when_empty).resolved


def test_who_waits_until_a_pool_is_empty_may_time_out():
    pool = Driven()
    pool.lend(1)
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)

    pool.tell(pool.core.time_out, waiter)

    assert Refusal.TIMEOUT is waiter.refusal


def test_who_has_given_up_waiting_is_not_told_that_a_pool_is_empty():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)
    pool.tell(pool.core.time_out, waiter)
    pool.woken.clear()

    pool.give_back(entry)
    pool.close_all()

    assert [] == pool.woken


# --- abort ------------------------------------------------------------------------


def aborted(pool):
    """Close and abort a pool; give it back."""
    pool.tell(pool.core.close)
    pool.tell(pool.core.abort)
    return pool


def test_what_does_not_come_back_is_cut_off():
    pool = Driven()
    (entry,) = pool.lend(1)

    aborted(pool)

    assert [entry] == pool.aborted
    assert (State.ABORTED, Reason.CLOSED) == (entry.state, entry.reason)


def test_what_is_being_reset_is_cut_off():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    aborted(pool)

    assert [entry] == pool.aborted


def test_a_connect_under_way_has_nothing_to_cut_off():
    pool = Driven(min_size=1)

    assert [] == aborted(pool).aborted


def test_what_is_being_closed_is_not_cut_off():
    pool = Driven()
    pool.warm_up(1)

    assert [] == aborted(pool).aborted


def test_an_aborted_pool_is_empty_at_once():
    pool = Driven(max_size=4)
    _, dirty, idle = pool.lend(3)
    pool.give_back(idle)
    pool.tell(pool.core.give_back_dirty, dirty)
    pool.wait()
    pool.wait()
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)

    pool.tell(pool.core.abort)

    assert (0, 0, 0, 0, 0) == (
        pool.stats.size,
        pool.stats.in_use,
        pool.stats.opening,
        pool.stats.closing,
        pool.stats.resetting,
    )
    assert waiter.resolved


@pytest.mark.parametrize("way", ["returned", "give_back_dirty", "give_back_broken"])
def test_what_was_cut_off_is_closed_when_its_borrower_lets_go(way):
    pool = Driven()
    (entry,) = pool.lend(1)
    aborted(pool)

    pool.tell(getattr(pool.core, way), entry)

    assert [entry] == pool.wanted(Close)
    assert State.GONE is entry.state


@pytest.mark.parametrize("way", ["overdue", "lost"])
def test_what_was_cut_off_is_closed_when_its_borrower_finds_out(way):
    pool = Driven()
    (entry,) = pool.lend(1)
    aborted(pool)

    pool.tell(getattr(pool.core, way), entry)

    assert [entry] == pool.wanted(Close)


def test_a_connection_that_arrives_in_an_aborted_pool_is_closed():
    pool = Driven(min_size=1)
    aborted(pool)

    entry = pool.connect_one()

    assert [entry] == pool.wanted(Close)
    assert State.GONE is entry.state


def test_a_connect_that_fails_in_an_aborted_pool_leaves_nothing_to_close():
    pool = Driven(min_size=1)
    aborted(pool)

    entry = pool.fail_one()

    assert [] == pool.todo
    assert State.GONE is entry.state


def test_a_check_that_ends_in_an_aborted_pool_has_its_connection_closed():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    aborted(pool)

    entry = pool.check_one()

    assert [entry] == pool.wanted(Close)


def test_a_reset_that_ends_in_an_aborted_pool_has_its_connection_closed():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    aborted(pool)

    pool.reset_one()

    assert [entry] == pool.wanted(Close)
    assert [] == pool.wanted(Reset)


def test_a_close_that_ends_in_an_aborted_pool_changes_nothing():
    pool = Driven()
    pool.warm_up(1)
    aborted(pool)
    before = pool.stats

    pool.close_all()

    assert before == pool.stats


def test_what_was_cut_off_cannot_be_returned_twice():
    pool = Driven()
    (entry,) = pool.lend(1)
    aborted(pool)
    pool.give_back(entry)

    with pytest.raises(ValueError, match=r"^returned a connection that is gone$"):
        pool.give_back(entry)


# --- open again -------------------------------------------------------------------


def test_a_closed_pool_can_be_opened_again():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)
    pool.fail_one()

    pool.tell(pool.core.start)

    assert [pool.connect_one()] == pool.idle


def test_what_was_lent_before_it_was_closed_leaves_after_it_was_opened_again():
    pool = Driven(max_size=2)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.close)
    pool.tell(pool.core.start)

    pool.give_back(entry)

    assert [entry] == pool.wanted(Close)
    assert [] == pool.idle


def test_a_pool_that_is_opened_again_does_not_replace_what_left_when_it_closed():
    pool = Driven(max_lifetime=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.tell(pool.core.close)
    pool.work()

    pool.tell(pool.core.start)

    assert [] == pool.todo


def test_places_lost_before_a_pool_closed_are_not_refilled_when_it_opens_again():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_broken, entry)
    pool.tell(pool.core.close)
    pool.close_all()

    pool.tell(pool.core.start)

    assert [] == pool.wanted(Connect)


def test_a_pool_that_is_opened_again_connects_at_once_though_it_failed_before():
    pool = Driven(min_size=2, max_size=2)
    pool.fail_one()
    pool.fail_one()
    pool.tell(pool.core.close)

    pool.tell(pool.core.start)

    assert 2 == len(pool.wanted(Connect))
    assert (None, None) == (pool.core.failing_since, pool.core._outage.error)


def test_an_aborted_pool_that_is_opened_again_has_all_its_places():
    pool = Driven(max_size=2)
    pool.lend(2)
    aborted(pool)
    pool.tell(pool.core.start)

    assert 2 == len(pool.lend(2))


def test_what_was_cut_off_does_not_come_back_into_a_pool_that_is_opened_again():
    pool = Driven(max_size=2)
    (entry,) = pool.lend(1)
    aborted(pool)
    pool.tell(pool.core.start)

    pool.give_back(entry)

    assert [] == pool.idle
    assert 0 == pool.stats.size


def test_a_pool_that_was_opened_again_in_time_is_not_cut_off():
    pool = Driven(min_size=1, max_size=2)
    pool.connect_all()
    pool.tell(pool.core.close)
    pool.tell(pool.core.start)
    pool.work()
    entry = pool.borrow()

    pool.tell(pool.core.abort)

    assert [] == pool.aborted
    assert State.IN_USE is entry.state


def test_who_waits_until_a_pool_is_empty_is_told_if_it_is_opened_again():
    pool = Driven()
    pool.lend(1)
    pool.tell(pool.core.close)
    waiter = pool.wait_for(pool.core.when_empty)

    pool.tell(pool.core.start)

    assert waiter.resolved


def test_a_pool_that_is_opened_again_serves_who_waits():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.close)
    pool.tell(pool.core.start)
    waiter = pool.wait()

    pool.give_back(entry)
    pool.close_all()

    assert pool.connect_one() is served(waiter)
