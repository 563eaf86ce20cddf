"""The table of an entry's life: each legal step has an example here that takes it."""

from __future__ import annotations

import pytest

from edgepool._core import State
from edgepool._core.transitions import TRANSITIONS
from support.core import Driven

CONNECTING, IDLE, IN_USE = State.CONNECTING, State.IDLE, State.IN_USE
CHECKING, RESETTING, CLOSING = State.CHECKING, State.RESETTING, State.CLOSING
ABORTED, GONE = State.ABORTED, State.GONE

EXAMPLES = {}


def example(before, after):
    """Say which step a function takes; it gives the pool in which it was taken."""

    def register(function):
        EXAMPLES[before, after] = function
        return function

    return register


def cut_off(pool):
    pool.tell(pool.core.close)
    pool.tell(pool.core.abort)
    return pool


# --- connecting -------------------------------------------------------------------


@example(CONNECTING, IDLE)
def arrives():
    pool = Driven(min_size=1)
    pool.connect_one()
    return pool


@example(CONNECTING, IN_USE)
def arrives_for_a_waiter():
    pool = Driven()
    pool.lend(1)
    return pool


@example(CONNECTING, GONE)
def fails():
    pool = Driven(min_size=1)
    pool.fail_one()
    return pool


@example(CONNECTING, CLOSING)
def arrives_unwanted():
    pool = Driven(min_size=1)
    pool.tell(pool.core.drain)
    pool.connect_one()
    return pool


@example(CONNECTING, ABORTED)
def connects_for_too_long():
    return cut_off(Driven(min_size=1))


# --- idle and in use --------------------------------------------------------------


@example(IDLE, IN_USE)
def is_borrowed():
    pool = Driven()
    pool.warm_up(1)
    pool.borrow()
    return pool


@example(IDLE, CHECKING)
def is_suspected():
    pool = Driven()
    pool.warm_up(1)
    pool.tell(pool.core.suspect)
    return pool


@example(IDLE, CLOSING)
def is_unused():
    pool = Driven(max_idle=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    return pool


@example(IN_USE, IDLE)
def is_returned():
    pool = Driven()
    pool.warm_up(1)
    return pool


@example(IN_USE, RESETTING)
def is_returned_dirty():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    return pool


@example(IN_USE, CLOSING)
def is_returned_broken():
    pool = Driven()
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_broken, entry)
    return pool


@example(IN_USE, ABORTED)
def is_used_for_too_long():
    pool = Driven()
    pool.lend(1)
    return cut_off(pool)


# --- away -------------------------------------------------------------------------


@example(CHECKING, IDLE)
def passes_its_check():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.check_one()
    return pool


@example(CHECKING, IN_USE)
def passes_its_check_for_a_waiter():
    pool = Driven(max_size=1, check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.wait()
    pool.check_one()
    return pool


@example(CHECKING, CLOSING)
def fails_its_check():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    pool.check_one(alive=False)
    return pool


@example(CHECKING, ABORTED)
def is_checked_for_too_long():
    return cut_off(is_suspected())


@example(RESETTING, IDLE)
def is_clean_again():
    pool = is_returned_dirty()
    pool.reset_one()
    return pool


@example(RESETTING, IN_USE)
def is_clean_again_for_a_waiter():
    pool = Driven(max_size=1)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    pool.wait()
    pool.reset_one()
    return pool


@example(RESETTING, CLOSING)
def cannot_be_cleaned():
    pool = is_returned_dirty()
    pool.reset_one(clean=False)
    return pool


@example(RESETTING, ABORTED)
def is_reset_for_too_long():
    return cut_off(is_returned_dirty())


# --- the end ----------------------------------------------------------------------


@example(CLOSING, GONE)
def is_closed():
    pool = is_returned_broken()
    pool.close_one()
    return pool


@example(ABORTED, GONE)
def is_let_go():
    pool = connects_for_too_long()
    pool.fail_one()
    return pool


@pytest.mark.parametrize(("before", "after"), TRANSITIONS)
def test_each_step_in_the_table_is_taken(before, after):
    assert (before, after) in EXAMPLES[before, after]().steps


@pytest.mark.parametrize("example", EXAMPLES.values())
def test_each_step_taken_is_in_the_table(example):
    assert set(example().steps) <= set(TRANSITIONS)


@pytest.mark.parametrize("state", [s for s in State if s not in (CONNECTING, GONE)])
def test_each_state_but_the_first_and_the_last_is_reached_and_left(state):
    befores, afters = zip(*TRANSITIONS, strict=True)

    assert state in befores
    assert state in afters


def test_an_entry_begins_by_connecting_and_ends_gone():
    befores, afters = zip(*TRANSITIONS, strict=True)

    assert CONNECTING not in afters
    assert GONE not in befores
