"""What an interruption has torn in the midst of an event is made whole.

An event that was interrupted is played by hand here: some of its steps, and no more.
Each line of each event is interrupted in tests/faults/test_interrupts.py.
"""

from __future__ import annotations

import pytest

from edgepool._core import Connect, Refusal, Waiter
from support.core import Driven


def exhausted(**settings):
    """Make a pool of one connection that is lent, and somebody who waits for it."""
    pool = Driven(max_size=1, min_size=1, **settings)
    (connect,) = pool.todo
    pool.tell(pool.core.connected, connect.entry, object(), 0.0)
    entry = pool.borrow()
    waiter = Waiter(None)
    pool.tell(pool.core.enqueue, waiter, again=False)
    return pool, entry, waiter


def test_who_has_an_entry_and_was_not_told_is_told():
    pool, entry, waiter = exhausted()
    waiter.entry = entry

    pool.tell(pool.core.mend)

    assert waiter.resolved
    assert [waiter] == pool.woken
    assert 0 == pool.core.statistics().waiting


def test_who_was_refused_and_was_not_told_is_told():
    pool, _, waiter = exhausted()
    waiter.refusal = Refusal.TIMEOUT

    pool.tell(pool.core.mend)

    assert waiter.resolved
    assert waiter in pool.woken
    assert 0 == pool.core.statistics().waiting
    assert 1 == pool.core.statistics().requests_errors


def test_who_was_about_to_leave_has_left():
    pool, _, waiter = exhausted()
    waiter.resolved = True

    pool.tell(pool.core.mend)

    assert [] == pool.woken
    assert 0 == pool.core.statistics().waiting


def test_who_waits_goes_on_waiting():
    pool, _, waiter = exhausted()

    pool.tell(pool.core.mend)

    assert not waiter.resolved
    assert [waiter] == pool.core.waiters()


@pytest.mark.parametrize("kind", ["connecting", "checking", "resetting", "closing"])
def test_what_was_miscounted_is_counted_anew(kind):
    pool, _, _ = exhausted()
    pool.core._ledger.away[kind] = 5

    pool.tell(pool.core.mend)

    assert 0 == pool.core._ledger.away[kind]


def test_what_was_not_started_is_started():
    pool = Driven(max_size=1)
    waiter = Waiter(None)
    pool.core._queue.add(waiter, first=False)

    pool.tell(pool.core.mend)

    assert [Connect] == [type(command) for command in pool.todo]
