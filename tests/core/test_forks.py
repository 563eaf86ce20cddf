"""In a forked child: the old core gives all up, a new one begins with nothing."""

from __future__ import annotations

import pytest

from edgepool._core import Connect, State
from support.core import Driven


class Child(Driven):
    """A driver in a forked child, of what its parent's has come to."""

    def __init__(self, parent):
        super().__init__(now=parent.now, opened=False)
        self.core = parent.core.successor()


def in_every_state():
    """Make a pool with an entry in each state in which it has a resource."""
    pool = Driven(max_size=5, check_after=10.0)
    entries = pool.lend(5)
    pool.tell(pool.core.give_back_broken, entries[0])
    pool.tell(pool.core.give_back_dirty, entries[1])
    pool.give_back(entries[2])
    pool.tick(at=10.0)
    pool.give_back(entries[3])

    assert ["closing", "resetting", "checking", "idle", "in use"] == [
        entry.state.value for entry in entries
    ]

    return pool, entries


def test_every_resource_is_given_up_whatever_the_state_of_its_entry():
    pool, _ = in_every_state()

    given_up = pool.core.disown()

    assert set(pool.resources) == set(given_up)
    assert len(pool.resources) == len(given_up)


def test_what_is_being_opened_has_no_resource_to_give_up():
    pool = Driven(min_size=1)

    assert [] == pool.core.disown()


@pytest.mark.parametrize(
    "event", ["give_back", "returned", "give_back_dirty", "give_back_broken"]
)
def test_what_was_lent_by_the_parent_may_be_returned_and_nothing_comes_of_it(event):
    pool, entries = in_every_state()
    pool.core.disown()
    pool.todo.clear()
    child = Child(pool)

    child.tell(getattr(child.core, event), entries[4])

    assert State.GONE is entries[4].state
    assert [] == child.todo
    assert (0, 0, 0) == (child.stats.size, child.stats.idle, child.stats.requests)


def test_an_open_pool_is_open_in_the_child_and_does_nothing_by_itself():
    pool = Driven(min_size=2)

    child = Child(pool)
    child.take_outboxes()

    assert child.core.open
    assert [] == child.todo
    assert 0 == child.stats.size


def test_the_first_borrower_has_min_size_filled_again():
    pool = Driven(min_size=2, max_size=3)
    pool.connect_one()
    pool.connect_one()
    child = Child(pool)

    waiter = child.wait()

    assert [Connect, Connect] == [type(command) for command in child.todo]

    child.connect_one()

    assert waiter.entry is not None


def test_the_child_has_the_settings_that_the_parent_had_last():
    pool = Driven(max_size=3)
    pool.configure(min_size=1, max_size=7)

    assert pool.core.settings is Child(pool).core.settings


def test_a_closed_pool_is_closed_in_the_child_and_can_be_opened():
    pool = Driven(min_size=1)
    pool.tell(pool.core.close)
    child = Child(pool)

    assert not child.core.open
    assert not child.core.fresh

    child.tell(child.core.start)

    assert [Connect] == [type(command) for command in child.todo]


def test_a_pool_that_was_never_opened_is_as_fresh_in_the_child():
    child = Child(Driven(opened=False))

    assert not child.core.open
    assert child.core.fresh


def test_an_outage_of_the_parent_is_none_of_the_child():
    pool = Driven(min_size=1)
    pool.fail_one()

    assert pool.core.failing_since is not None
    assert Child(pool).core.failing_since is None
