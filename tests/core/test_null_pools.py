"""Null pools keep nothing that nobody waits for."""

from __future__ import annotations

import pytest

from edgepool._core import NEVER, Close, Connect, Reason, Reset
from support.core import Driven, served


def null_pool(**settings):
    return Driven(keep_idle=False, **settings)


def test_a_returned_connection_is_closed():
    pool = null_pool()
    (entry,) = pool.lend(1)

    pool.give_back(entry)

    assert [entry] == pool.wanted(Close)
    assert Reason.UNPOOLED is entry.reason


def test_a_returned_connection_is_not_replaced():
    pool = null_pool()
    (entry,) = pool.lend(1)

    pool.give_back(entry)
    pool.close_all()

    assert [] == pool.todo


def test_nothing_is_to_be_done_by_the_clock_when_nothing_is_borrowed():
    pool = null_pool(max_lifetime=3600.0, renewal=0.05)
    (entry,) = pool.lend(1)

    pool.give_back(entry)
    pool.close_all()
    pool.core.tick(pool.now + 2.0)  # a connect might have hung

    assert NEVER == pool.core.wake_at


def test_a_returned_connection_goes_to_the_first_waiter():
    pool = null_pool(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()

    pool.give_back(entry)

    assert entry is served(waiter)


def test_a_dirty_connection_is_closed():
    pool = null_pool()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.give_back_dirty, entry)

    assert [] == pool.wanted(Reset)
    assert Reason.UNPOOLED is entry.reason


def test_a_dirty_connection_is_reset_for_who_waits():
    pool = null_pool(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()

    pool.tell(pool.core.give_back_dirty, entry)

    assert entry is pool.reset_one() is served(waiter)


def test_what_was_reset_for_somebody_who_has_left_is_closed():
    pool = null_pool(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()
    pool.tell(pool.core.give_back_dirty, entry)
    pool.tell(pool.core.time_out, waiter)

    pool.reset_one()

    assert Reason.UNPOOLED is entry.reason


def test_what_was_opened_for_somebody_who_has_left_is_closed():
    pool = null_pool()
    pool.tell(pool.core.time_out, pool.wait())

    entry = pool.connect_one()

    assert Reason.UNPOOLED is entry.reason


def test_a_new_connection_goes_to_the_first_waiter():
    pool = null_pool()
    waiter = pool.wait()

    assert pool.connect_one() is served(waiter)


def test_nothing_is_ever_idle():
    pool = null_pool()
    pool.warm_up(2)

    assert 0 == pool.stats.idle
    assert pool.borrow() is None


def break_it(pool, entry):
    pool.tell(pool.core.give_back_broken, entry)


def find_it_dead(pool, entry):
    pool.tell(pool.core.lost, entry)


def outlive_it(pool, entry):
    pool.now = entry.expires_at
    pool.give_back(entry)


def drain_it(pool, entry):
    pool.tell(pool.core.drain)
    pool.give_back(entry)


@pytest.mark.parametrize("end", [break_it, find_it_dead, outlive_it, drain_it])
def test_nothing_is_replaced_for_nobody(end):
    pool = null_pool()
    (entry,) = pool.lend(1)

    end(pool, entry)
    pool.close_all()

    assert [] == pool.wanted(Connect)


def test_what_is_broken_is_replaced_for_who_waits():
    pool = null_pool(max_size=1)
    (entry,) = pool.lend(1)
    waiter = pool.wait()

    pool.tell(pool.core.give_back_broken, entry)
    pool.close_all()

    assert pool.connect_one() is served(waiter)
