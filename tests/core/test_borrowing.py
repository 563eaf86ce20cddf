"""Borrowing and returning, one at a time."""

from __future__ import annotations

import pytest

from edgepool._core import Close, Connect, Reason, Reset, State
from support.core import Driven, served


def test_an_idle_connection_is_lent_at_once():
    pool = Driven()
    (entry,) = pool.warm_up(1)

    assert entry is pool.borrow()
    assert State.IN_USE is entry.state


def test_the_connection_returned_last_is_lent_first():
    pool = Driven()
    cold, warm = pool.warm_up(2)

    assert [warm, cold] == [pool.borrow(), pool.borrow()]


def test_nothing_is_lent_when_nothing_is_idle():
    pool = Driven(max_size=1)
    pool.lend(1)

    assert pool.borrow() is None


def test_nothing_is_lent_twice():
    pool = Driven()
    pool.warm_up(1)
    pool.borrow()

    assert pool.borrow() is None


def test_a_pool_that_is_not_open_yet_lends_nothing():
    pool = Driven(opened=False, min_size=1)

    assert pool.borrow() is None
    assert [] == pool.todo


def test_a_new_pool_is_fresh_until_it_is_opened():
    pool = Driven(opened=False)

    assert (True, False) == (pool.core.fresh, pool.core.open)
    pool.tell(pool.core.start)
    assert (False, True) == (pool.core.fresh, pool.core.open)


def test_opening_an_open_pool_changes_nothing():
    pool = Driven(max_size=1)
    pool.wait()
    pool.fail_one()

    pool.tell(pool.core.start)

    assert [] == pool.todo
    assert 0.0 == pool.core.failing_since


def test_a_returned_connection_is_idle_again():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.give_back(entry)

    assert [entry] == pool.idle
    assert State.IDLE is entry.state


def test_a_return_that_only_goes_on_the_stack_needs_no_further_event():
    pool = Driven()
    (entry,) = pool.lend(1)

    assert pool.core.give_back(pool.now, entry) is None


def test_a_return_while_somebody_waits_needs_a_further_event():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.wait()

    assert pool.core.returned == pool.core.give_back(pool.now, entry)


@pytest.mark.parametrize("way", ["give_back", "give_back_dirty", "give_back_broken"])
def test_returning_twice_is_an_error(way):
    pool = Driven()
    (entry,) = pool.warm_up(1)

    with pytest.raises(ValueError, match=r"^returned a connection that is idle$"):
        getattr(pool.core, way)(pool.now, entry)


def test_the_error_of_a_second_return_names_the_state():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    with pytest.raises(ValueError, match=r"^returned a connection that is resetting$"):
        pool.give_back(entry)


def test_a_second_return_changes_nothing():
    pool = Driven()
    (entry,) = pool.warm_up(1)
    before = pool.stats

    for way in (pool.core.give_back_dirty, pool.core.give_back_broken):
        with pytest.raises(ValueError, match="idle"):
            pool.tell(way, entry)

    assert before == pool.stats


def test_a_dirty_connection_is_reset_before_anybody_gets_it():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()

    pool.tell(pool.core.give_back_dirty, entry)

    assert [entry] == pool.wanted(Reset)
    assert not waiter.resolved


def test_a_connection_that_was_reset_is_idle_again():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one()

    assert [entry] == pool.idle


def test_a_connection_that_was_reset_goes_to_the_first_waiter():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one()

    assert entry is served(waiter)


def test_a_connection_that_cannot_be_reset_is_closed():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one(clean=False)

    assert [entry] == pool.wanted(Close)
    assert Reason.SOILED is entry.reason


def test_a_broken_connection_is_closed():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.give_back_broken, entry)

    assert [entry] == pool.wanted(Close)
    assert Reason.BROKEN is entry.reason


def test_a_broken_connection_is_replaced_though_nobody_asks_just_now():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.give_back_broken, entry)

    assert 1 == len(pool.wanted(Connect))


def test_a_connection_that_cannot_be_reset_is_replaced():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)

    pool.reset_one(clean=False)

    assert 1 == len(pool.wanted(Connect))


def test_a_place_is_held_until_its_connection_is_closed():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_broken, entry)
    pool.wait()

    assert [] == pool.wanted(Connect)
    pool.close_one()
    assert 1 == len(pool.wanted(Connect))


def test_a_borrowed_connection_counts_as_unused_from_its_return_on():
    pool = Driven(max_size=1, max_idle=10.0)
    (entry,) = pool.lend(1)

    pool.now = 25.0
    pool.give_back(entry)

    assert 25.0 == entry.idle_since
