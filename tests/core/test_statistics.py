"""The numbers: what is counted, when, and once only."""

from __future__ import annotations

import pytest

from support.core import Driven


def test_a_snapshot_tells_the_sizes():
    pool = Driven(min_size=2, max_size=7)

    assert (2, 7) == (pool.stats.min_size, pool.stats.max_size)


def test_a_snapshot_tells_new_sizes_after_a_resize():
    pool = Driven()
    pool.configure(min_size=1, max_size=2)

    assert (1, 2) == (pool.stats.min_size, pool.stats.max_size)


def test_a_snapshot_does_not_change():
    pool = Driven()
    snapshot = pool.stats
    pool.lend(1)

    assert 0 == snapshot.in_use
    with pytest.raises(AttributeError):
        snapshot.in_use = 1


def gauges(pool):
    stats = pool.stats
    return {
        "in use": stats.in_use,
        "idle": stats.idle,
        "opening": stats.opening,
        "closing": stats.closing,
        "checking": stats.checking,
        "resetting": stats.resetting,
    }


def test_each_connection_is_counted_in_one_state():
    pool = Driven(max_size=10, check_after=10.0)
    _, dirty, broken, idle, checked = pool.lend(5)
    pool.give_back(checked)
    pool.now = 5.0
    pool.give_back(idle)
    pool.tell(pool.core.give_back_dirty, dirty)
    pool.tick(at=10.0)
    pool.tell(pool.core.give_back_broken, broken)

    assert {
        "in use": 1,
        "idle": 1,
        "opening": 1,
        "closing": 1,
        "checking": 1,
        "resetting": 1,
    } == gauges(pool)
    assert 6 == pool.stats.size


def test_who_waits_is_counted():
    pool = Driven(max_size=1)
    pool.lend(1)
    pool.wait()
    pool.wait()

    assert 2 == pool.stats.waiting


# --- requests ---------------------------------------------------------------------


def requests(pool):
    """Give the numbers of all requests, of those that waited, and of those in vain."""
    stats = pool.stats
    return stats.requests, stats.requests_queued, stats.requests_errors


def test_a_borrow_is_one_request():
    pool = Driven()
    pool.warm_up(1)
    before = pool.stats.requests

    pool.give_back(pool.borrow())
    pool.borrow()

    assert 2 == pool.stats.requests - before


def test_a_borrow_after_a_wait_is_one_request_that_was_queued():
    pool = Driven()
    pool.wait()
    assert (0, 1, 0) == requests(pool)

    pool.connect_one()

    assert (1, 1, 0) == requests(pool)


def test_who_comes_to_the_queue_and_is_served_at_once_was_not_queued():
    pool = Driven(min_size=1)
    pool.connect_all()

    pool.wait()

    assert (1, 0, 0) == requests(pool)


def test_a_timeout_is_a_request_in_vain():
    pool = Driven()

    pool.tell(pool.core.time_out, pool.wait())

    assert (1, 1, 1) == requests(pool)


def test_an_interrupted_wait_is_a_request_in_vain():
    pool = Driven()

    pool.tell(pool.core.abandon, pool.wait())

    assert (1, 1, 1) == requests(pool)


def test_a_request_refused_for_max_waiting_was_not_queued():
    pool = Driven(max_size=1, max_waiting=1)
    pool.wait()

    pool.wait()

    assert (1, 1, 1) == requests(pool)


def test_a_request_to_a_closed_pool_is_in_vain():
    pool = Driven(opened=False)

    pool.wait()

    assert (1, 0, 1) == requests(pool)


def test_who_waits_when_the_pool_closes_waits_in_vain():
    pool = Driven()
    pool.wait()
    pool.wait()

    pool.tell(pool.core.close)

    assert (2, 2, 2) == requests(pool)


def test_who_waits_when_connecting_cannot_work_waits_in_vain():
    pool = Driven()
    pool.wait()

    pool.fail_one(permanent=True)

    assert (1, 1, 1) == requests(pool)


@pytest.mark.parametrize("end", ["lost", "overdue"])
def test_what_was_served_but_unfit_is_no_request_of_its_own(end):
    pool = Driven()
    pool.warm_up(1)
    before = pool.stats.requests
    entry = pool.borrow()

    pool.tell(getattr(pool.core, end), entry)

    assert before == pool.stats.requests


def test_who_waits_again_is_not_counted_as_queued_again():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.lost, entry)
    pool.wait(again=True)
    pool.work()

    assert (1, 1, 0) == requests(pool)


def test_borrows_are_remembered_when_their_connection_is_gone():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.give_back(entry)
    pool.tell(pool.core.give_back_broken, pool.borrow())

    pool.close_all()

    assert 2 == pool.stats.requests


def test_borrows_are_remembered_when_their_connection_is_cut_off():
    pool = Driven()
    pool.lend(2)
    pool.tell(pool.core.close)

    pool.tell(pool.core.abort)

    assert 2 == pool.stats.requests


def test_waiting_for_the_pool_is_no_request():
    pool = Driven(min_size=1)
    pool.tell(pool.core.time_out, pool.wait_for(pool.core.when_ready))

    assert (0, 0, 0) == requests(pool)


# --- times ------------------------------------------------------------------------


def test_the_wait_of_who_is_served_by_a_new_connection_is_added_up():
    pool = Driven()
    pool.wait()

    pool.now = 2.0
    pool.connect_one()

    assert 2.0 == pool.stats.wait_time


def test_the_wait_of_who_is_served_by_a_returned_connection_is_added_up():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.now = 1.0
    pool.wait()

    pool.now = 4.0
    pool.give_back(entry)

    assert 3.0 == pool.stats.wait_time


@pytest.mark.parametrize("end", ["time_out", "abandon"])
def test_the_wait_of_who_leaves_is_added_up(end):
    pool = Driven(now=1.0)
    waiter = pool.wait()

    pool.now = 3.5
    pool.tell(getattr(pool.core, end), waiter)

    assert 2.5 == pool.stats.wait_time


def test_the_waits_of_those_refused_at_the_close_are_added_up():
    pool = Driven()
    pool.wait()
    pool.now = 1.0
    pool.wait()

    pool.now = 3.0
    pool.tell(pool.core.close)

    assert 5.0 == pool.stats.wait_time


def test_the_wait_until_a_pool_is_ready_is_not_added_up():
    pool = Driven(min_size=1)
    waiter = pool.wait_for(pool.core.when_ready)

    pool.now = 3.0
    pool.tell(pool.core.time_out, waiter)

    assert 0.0 == pool.stats.wait_time


@pytest.mark.parametrize("way", ["returned", "give_back_dirty", "give_back_broken"])
def test_the_time_in_use_is_added_up_at_the_return(way):
    pool = Driven(now=10.0)
    (entry,) = pool.lend(1)
    assert 0.0 == pool.stats.usage_time

    pool.now = 12.0
    pool.tell(getattr(pool.core, way), entry)

    assert 2.0 == pool.stats.usage_time


def test_the_time_in_use_is_added_up_when_the_return_needs_no_event():
    pool = Driven(now=10.0)
    (entry,) = pool.lend(1)
    for pool.now in (12.0, 15.0):
        pool.give_back(entry)
        pool.borrow()

    assert 5.0 == pool.stats.usage_time


def test_the_time_in_use_is_remembered_when_its_connection_is_gone():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.now = 2.0
    pool.tell(pool.core.give_back_broken, entry)

    pool.close_all()

    assert 2.0 == pool.stats.usage_time


def test_the_time_of_connects_is_added_up():
    pool = Driven(min_size=2)
    pool.connect_one(took=0.25)
    pool.connect_one(took=0.5)

    assert 0.75 == pool.stats.connect_time


# --- connections ------------------------------------------------------------------


def test_connects_are_counted_when_they_start():
    pool = Driven(min_size=2)

    assert (2, 0) == (pool.stats.connects, pool.stats.connect_errors)


def test_failed_connects_are_counted_on_their_own():
    pool = Driven(min_size=2)

    pool.fail_one()

    assert (2, 1) == (pool.stats.connects, pool.stats.connect_errors)


def test_connects_that_fail_in_a_closed_pool_are_counted_too():
    pool = Driven(min_size=2)
    pool.tell(pool.core.close)
    pool.fail_one()
    pool.tell(pool.core.abort)
    pool.fail_one()

    assert 2 == pool.stats.connect_errors


def test_broken_returns_are_counted():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.give_back_broken, entry)

    assert (1, 0) == (pool.stats.bad_returns, pool.stats.lost)


def test_returns_that_cannot_be_reset_are_counted():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one(clean=False)

    assert (1, 0) == (pool.stats.bad_returns, pool.stats.lost)


def test_returns_that_are_reset_are_not_bad():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one()

    assert 0 == pool.stats.bad_returns


def test_what_a_borrower_finds_dead_is_counted():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.lost, entry)

    assert (1, 0) == (pool.stats.lost, pool.stats.bad_returns)


def test_what_is_found_dead_in_the_background_is_counted():
    pool = Driven(check_after=10.0)
    pool.warm_up(2)
    pool.tick(at=10.0)

    pool.check_one(alive=False)
    pool.check_one(alive=True)

    assert 1 == pool.stats.lost


def test_a_snapshot_tells_since_when_connecting_fails():
    pool = Driven(min_size=1)
    assert pool.stats.failing_since is None

    pool.now = 3.0
    pool.fail_one()

    assert 3.0 == pool.stats.failing_since
