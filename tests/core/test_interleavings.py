"""The hot pair needs no lock: it may run beside itself and beside any event.

Every interleaving with one switch: a borrow or a return is stopped before each of its
bytecodes, and something else happens completely; and the other way round. Afterwards
the pool must be as if one had come after the other (see `Contended.check` and `end`).
"""

from __future__ import annotations

from itertools import product

import pytest

from edgepool._core import Close, Connect, Reset
from support.core import THOROUGH
from support.core_interleaved import Contended, interleave, interleave_crosswise

# Takes long. What differs from Python to Python, the bytecode, one switch tries too.
exhaustive = pytest.mark.exhaustive


def more(*cases):
    """Give cases for which there is no time every day."""
    return cases if THOROUGH else ()


# --- the pools --------------------------------------------------------------------
#
# In each, `mine` and `other` are lent, if there is more than one connection.

SETTINGS = {"max_idle": 10.0, "max_lifetime": 100.0, "check_after": 20.0}


def exhausted():
    """All connections are lent."""
    pool = Contended(max_size=2, **SETTINGS)
    pool.mine, pool.other = pool.lend(2)
    return pool


def single():
    """The only connection is lent."""
    pool = Contended(max_size=1, min_size=1, **SETTINGS)
    (pool.mine,) = pool.lend(1)
    pool.other = None
    return pool


def resting():
    """The only connection is idle."""
    pool = single()
    pool.give_back(pool.mine)
    return pool


def spare():
    """One connection is lent, one is idle."""
    pool = exhausted()
    pool.give_back(pool.other)
    pool.other = None
    return pool


def waited_for():
    """All connections are lent, and somebody waits."""
    pool = exhausted()
    pool.wait()
    return pool


def busy():
    """In every state there is a connection, and two are lent."""
    pool = Contended(max_size=8, min_size=1, **SETTINGS)
    pool.mine, pool.other, dirty, broken, idle = pool.lend(5)
    pool.give_back(idle)
    pool.give_back_as(pool.core.give_back_dirty, dirty)
    pool.give_back_as(pool.core.give_back_broken, broken)
    return pool


# --- what may happen to them ------------------------------------------------------


def somebody_waits(pool):
    pool.wait()


def somebody_waits_again(pool):
    pool.wait(again=True)


def somebody_waits_in_vain(pool):
    pool.tell(pool.core.time_out, pool.wait())


def somebody_waits_and_is_interrupted(pool):
    waiter = pool.wait()
    if waiter.entry is not None:
        pool.lent.remove(waiter.entry)
    pool.tell(pool.core.abandon, waiter)


def somebody_has_waited_in_vain(pool):
    for waiter in pool.core.waiters():
        pool.tell(pool.core.time_out, waiter)


def somebody_borrows(pool):
    pool.borrow_at_once()


def another_returns(pool):
    if pool.other:
        pool.give_back(pool.other)


def another_returns_dirty(pool):
    if pool.other:
        pool.give_back_as(pool.core.give_back_dirty, pool.other)


def another_returns_broken(pool):
    if pool.other:
        pool.give_back_as(pool.core.give_back_broken, pool.other)


def another_is_dead(pool):
    if pool.other:
        pool.lose(pool.other)


def a_connect_ends(pool):
    if pool.wanted(Connect):
        pool.connect_one()


def a_connect_fails(pool):
    if pool.wanted(Connect):
        pool.fail_one(permanent=True)


def a_reset_ends(pool):
    if pool.wanted(Reset):
        pool.reset_one()


def a_close_ends(pool):
    if pool.wanted(Close):
        pool.close_one()


def all_are_suspected(pool):
    pool.suspect()


def all_are_suspected_and_cleared(pool):
    pool.suspect()
    pool.clear_suspects()


def idle_ones_are_reaped(pool):
    pool.tick(at=10.0)


def idle_ones_are_checked(pool):
    pool.tick(at=20.0)


def all_are_too_old(pool):
    pool.tick(at=100.0)


def drain(pool):
    pool.tell(pool.core.drain)


def shrink(pool):
    pool.configure(min_size=0, max_size=1)


def grow(pool):
    pool.configure(max_size=9)


def shrink_and_grow(pool):
    shrink(pool)
    grow(pool)


def keep_nothing_idle(pool):
    pool.configure(max_idle=0.0)
    pool.tick()


def close(pool):
    pool.tell(pool.core.close)


def open_again(pool):
    pool.tell(pool.core.start)


def close_and_cut_off(pool):
    close(pool)
    pool.tell(pool.core.abort)


def close_and_open(pool):
    close(pool)
    open_again(pool)


def close_and_cut_off_and_open(pool):
    close_and_cut_off(pool)
    open_again(pool)


def wait_until_ready(pool):
    pool.wait_for(pool.core.when_ready)


EVENTS = [
    somebody_waits,
    somebody_waits_again,
    somebody_waits_in_vain,
    somebody_waits_and_is_interrupted,
    somebody_has_waited_in_vain,
    somebody_borrows,
    another_returns,
    another_returns_dirty,
    another_returns_broken,
    another_is_dead,
    a_connect_ends,
    a_connect_fails,
    a_reset_ends,
    a_close_ends,
    all_are_suspected,
    all_are_suspected_and_cleared,
    idle_ones_are_reaped,
    idle_ones_are_checked,
    all_are_too_old,
    drain,
    shrink,
    grow,
    shrink_and_grow,
    keep_nothing_idle,
    close,
    close_and_cut_off,
    close_and_open,
    close_and_cut_off_and_open,
    wait_until_ready,
]


def i_borrow(pool):
    pool.borrow()


def i_return(pool):
    pool.give_back(pool.mine)


# --- the proof: one switch --------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("pool", [exhausted, single, waited_for, busy])
def test_something_happens_in_the_midst_of_a_return(pool, event):
    assert 5 < interleave(pool, i_return, event)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("pool", [exhausted, resting, waited_for, busy])
def test_something_happens_in_the_midst_of_a_borrow(pool, event):
    assert 1 < interleave(pool, i_borrow, event)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("pool", [exhausted, busy, *more(single, waited_for)])
def test_a_connection_is_returned_in_the_midst_of_something(pool, event):
    interleave(pool, event, i_return)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("pool", [resting, busy, *more(exhausted, waited_for)])
def test_a_connection_is_borrowed_in_the_midst_of_something(pool, event):
    interleave(pool, event, somebody_borrows)


class Timed(Contended):
    """A pool that needs a timer for what is idle."""

    def check(self):
        super().check()
        for entry in self.idle:
            # Late by as long as the return was stopped.
            by = self.deadline(entry) + self.now
            assert self.wake_at <= by, "no timer is set"


def timed():
    """All connections are lent."""
    pool = Timed(max_size=2, **SETTINGS)
    pool.mine, pool.other = pool.lend(2)
    return pool


@pytest.mark.parametrize(
    "event",
    [
        idle_ones_are_reaped,
        idle_ones_are_checked,
        pytest.param(all_are_too_old),
        pytest.param(keep_nothing_idle),
    ],
)
def test_what_is_returned_in_the_midst_of_something_leaves_in_time(event):
    interleave(timed, i_return, event)


class Frugal(Contended):
    """A pool in which nobody wants a connection."""

    def check(self):
        super().check()
        assert [] == self.wanted(Connect)


def frugal():
    """The only connection is lent."""
    pool = Frugal(max_size=1, **SETTINGS)
    (pool.mine,) = pool.lend(1)
    return pool


def test_what_was_cut_off_in_the_midst_of_its_return_is_not_replaced():
    interleave(frugal, i_return, close_and_cut_off_and_open)


# --- two switches -----------------------------------------------------------------
#
# What ends the calm, and what may begin it again before a return or a borrow goes on.

PAIRS = [
    (somebody_waits, somebody_has_waited_in_vain),
    (somebody_waits, another_returns),
    (somebody_waits, somebody_borrows),
    (somebody_borrows, somebody_waits),
    (another_returns, somebody_waits),
    (all_are_suspected, somebody_waits),
    (drain, somebody_borrows),
    (shrink, grow),
    (shrink, another_returns_broken),
    (close, open_again),
    (all_are_too_old, somebody_waits),
]


@exhaustive
@pytest.mark.parametrize(("first", "second"), [*PAIRS, *more(*product(EVENTS, EVENTS))])
@pytest.mark.parametrize("pool", [exhausted, single])
def test_two_things_happen_in_the_midst_of_a_return(pool, first, second):
    interleave(pool, i_return, first, second)


@exhaustive
@pytest.mark.parametrize(("first", "second"), [*PAIRS, *more(*product(EVENTS, EVENTS))])
@pytest.mark.parametrize("pool", [resting, spare])
def test_two_things_happen_in_the_midst_of_a_borrow(pool, first, second):
    interleave(pool, i_borrow, first, second)


@exhaustive
@pytest.mark.parametrize("event", [somebody_waits, *more(*EVENTS)])
def test_a_connection_is_returned_and_borrowed_in_the_midst_of_something(event):
    interleave(exhausted, event, i_return, somebody_borrows)


@exhaustive
@pytest.mark.parametrize("event", [somebody_waits, *more(*EVENTS)])
def test_a_connection_is_borrowed_and_returned_in_the_midst_of_something(event):
    interleave(spare, event, somebody_borrows, i_return)


# --- three switches: each is stopped, the first ends first ------------------------

CROSSED = [somebody_waits, *more(*EVENTS)]


@exhaustive
@pytest.mark.parametrize("event", CROSSED)
def test_a_return_is_stopped_then_something_then_the_return_goes_on(event):
    interleave_crosswise(exhausted, i_return, event)


@exhaustive
@pytest.mark.parametrize("event", CROSSED)
def test_something_is_stopped_then_a_return_then_that_goes_on(event):
    interleave_crosswise(exhausted, event, i_return)


@exhaustive
@pytest.mark.parametrize("event", CROSSED)
def test_a_borrow_is_stopped_then_something_then_the_borrow_goes_on(event):
    interleave_crosswise(resting, i_borrow, event)


@exhaustive
@pytest.mark.parametrize("event", CROSSED)
def test_something_is_stopped_then_a_borrow_then_that_goes_on(event):
    interleave_crosswise(resting, event, i_borrow)


@exhaustive
@pytest.mark.parametrize("first", [i_borrow, i_return])
@pytest.mark.parametrize("second", [i_borrow, i_return])
@pytest.mark.parametrize("pool", [spare, exhausted])
def test_the_hot_pair_crosses_itself(pool, first, second):
    if first is second is i_return:
        first = another_returns
    interleave_crosswise(pool, first, second)
