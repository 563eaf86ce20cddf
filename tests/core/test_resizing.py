"""New settings at run time."""

from __future__ import annotations

from edgepool._core import Close, Connect, Reason
from support.core import Driven, served


def test_a_larger_min_size_is_filled_now():
    pool = Driven(min_size=1, max_size=4)
    pool.connect_all()

    pool.configure(min_size=3)

    assert 2 == len(pool.wanted(Connect))


def test_a_larger_max_size_serves_who_waits_now():
    pool = Driven(max_size=1)
    pool.lend(1)
    waiter = pool.wait()

    pool.configure(max_size=2)

    assert pool.connect_one() is served(waiter)


def test_a_smaller_max_size_closes_idle_connections_now_the_coldest_first():
    pool = Driven(max_size=3)
    cold, _, _ = pool.warm_up(3)

    pool.configure(max_size=2)

    assert [cold] == pool.wanted(Close)
    assert Reason.SURPLUS is cold.reason


def test_a_smaller_max_size_closes_lent_connections_on_their_return():
    pool = Driven(max_size=2)
    first, second = pool.lend(2)

    pool.configure(max_size=1)
    assert [] == pool.wanted(Close)
    pool.give_back(first)
    assert [first] == pool.wanted(Close)
    pool.give_back(second)
    assert [second] == pool.idle


def test_who_waits_is_not_served_by_one_too_many():
    pool = Driven(max_size=2)
    first, second = pool.lend(2)
    waiter = pool.wait()
    pool.configure(max_size=1)

    pool.give_back(first)
    assert not waiter.resolved
    pool.give_back(second)
    assert second is served(waiter)


def test_a_connection_being_opened_that_is_one_too_many_is_closed():
    pool = Driven(min_size=2)
    pool.connect_one()
    pool.configure(min_size=1, max_size=1)

    pool.connect_one()

    assert [Reason.SURPLUS] == [entry.reason for entry in pool.wanted(Close)]
    assert 1 == pool.stats.idle


def test_one_too_many_is_not_replaced():
    pool = Driven(max_size=2)
    pool.warm_up(2)
    pool.configure(max_size=1)

    pool.close_all()

    assert [] == pool.wanted(Connect)


def test_nothing_is_opened_while_there_are_too_many():
    pool = Driven(max_size=2)
    entry, _ = pool.lend(2)
    pool.configure(max_size=1)
    pool.wait()
    pool.tell(pool.core.give_back_broken, entry)

    pool.close_all()

    assert [] == pool.wanted(Connect)


def test_a_place_that_was_resized_away_is_not_refilled_when_there_is_room_again():
    pool = Driven(max_size=3, max_connecting=1)
    entries = pool.lend(3)
    for entry in entries:
        pool.tell(pool.core.give_back_broken, entry)
    pool.configure(max_size=2)
    pool.close_all()

    pool.configure(max_size=3)

    assert 2 == len(pool.connect_all())


def test_a_smaller_min_size_closes_what_has_been_unused_for_max_idle_at_once():
    pool = Driven(min_size=1, max_idle=10.0)
    pool.connect_all()
    pool.tick(at=60.0)

    pool.configure(min_size=0)

    assert 60.0 >= pool.wake_at
    pool.tick()
    assert 0 == pool.stats.idle


def test_a_resized_pool_lends_as_usual():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.configure(max_size=2)

    assert pool.core.give_back(pool.now, entry) is None
    assert entry is pool.borrow()


def test_a_pool_that_has_shrunk_to_its_new_size_lends_as_usual():
    pool = Driven(max_size=2)
    first, second = pool.lend(2)
    pool.configure(max_size=1)
    pool.give_back(first)

    assert pool.core.give_back(pool.now, second) is None
    assert second is pool.borrow()


def test_a_new_max_waiting_holds_for_who_comes_from_then_on():
    pool = Driven(max_size=1)
    pool.lend(1)
    waiting = [pool.wait(), pool.wait()]

    pool.configure(max_waiting=1)

    assert waiting == pool.core.waiters()
    assert pool.wait().resolved


def test_a_new_max_connecting_holds_for_connects_from_then_on():
    pool = Driven(min_size=4, max_size=4, max_connecting=4)
    pool.configure(max_connecting=2)
    pool.connect_one()
    assert 3 == len(pool.wanted(Connect))

    pool.configure(min_size=3, max_connecting=1)

    assert 3 == len(pool.wanted(Connect))


def test_a_closed_pool_takes_new_settings_and_opens_with_them():
    pool = Driven(opened=False, min_size=1)

    pool.configure(min_size=3, max_size=3)
    assert [] == pool.todo
    pool.tell(pool.core.start)

    assert 3 == len(pool.wanted(Connect))


def test_a_null_pool_may_become_one_that_keeps():
    pool = Driven(keep_idle=False)
    (entry,) = pool.lend(1)

    pool.configure(keep_idle=True)
    pool.give_back(entry)

    assert [entry] == pool.idle


def test_a_null_pool_closes_what_was_idle_before_it_became_one():
    pool = Driven()
    (entry,) = pool.warm_up(1)

    pool.configure(keep_idle=False)

    assert Reason.UNPOOLED is entry.reason
