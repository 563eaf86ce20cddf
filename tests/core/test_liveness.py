"""What is dead is not lent: examinations before a borrow and in the background."""

from __future__ import annotations

import pytest

from edgepool._core import NEVER, Check, Close, Connect, Reason, State
from support.core import Driven, served

# --- before a borrow --------------------------------------------------------------


def test_check_after_0_makes_a_check_due_at_each_borrow():
    pool = Driven(check_after=0.0)
    pool.warm_up(1)
    entry = pool.borrow()

    assert pool.now >= entry.due_at
    assert pool.core.examine(pool.now, entry)


def test_a_check_is_due_again_at_the_next_borrow_if_check_after_is_0():
    pool = Driven(check_after=0.0)
    pool.warm_up(1)
    entry = pool.borrow()
    pool.core.examine(pool.now, entry)
    pool.core.proven(pool.now, entry)

    assert pool.now >= entry.due_at


def test_check_after_infinity_makes_no_check_due_ever():
    pool = Driven(check_after=NEVER)
    pool.warm_up(1)
    entry = pool.borrow()

    assert not pool.core.examine(1e9, entry)


def test_a_check_is_due_when_the_last_proof_is_check_after_old():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    entry = pool.borrow()

    assert not pool.core.examine(9.9, entry)
    assert pool.core.examine(10.0, entry)


def test_a_passed_check_is_a_proof():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    entry = pool.borrow()

    pool.core.proven(10.0, entry)

    assert not pool.core.examine(19.9, entry)


def test_a_clean_return_is_a_proof():
    pool = Driven(check_after=10.0)
    (entry,) = pool.lend(1)
    pool.now = 8.0
    pool.give_back(entry)

    assert not pool.core.examine(17.9, pool.borrow())


def test_a_clean_return_to_who_waits_is_a_proof():
    pool = Driven(max_size=1, check_after=10.0)
    (entry,) = pool.lend(1)
    pool.wait()
    pool.now = 8.0
    pool.give_back(entry)

    assert not pool.core.examine(17.9, entry)


def test_a_reset_is_a_proof():
    pool = Driven(check_after=10.0)
    (entry,) = pool.lend(1)
    pool.tell(pool.core.give_back_dirty, entry)
    pool.now = 8.0
    pool.reset_one()

    assert not pool.core.examine(17.9, entry)


def test_what_was_served_to_somebody_interrupted_is_no_proof():
    pool = Driven(max_size=1, check_after=10.0)
    pool.warm_up(1)
    (entry,) = pool.tell(pool.core.suspect)
    waiter = pool.wait()
    pool.tell(pool.core.checked, entry, alive=True, proven=False)

    pool.tell(pool.core.abandon, waiter)

    assert pool.core.examine(pool.now, entry)


def test_what_comes_straight_from_its_connect_is_never_too_old():
    pool = Driven(max_lifetime=0.0)
    (entry,) = pool.lend(1)

    assert not pool.core.is_overdue(pool.now, entry)


def test_what_was_idle_until_its_age_is_too_old():
    pool = Driven(min_size=1, max_lifetime=60.0)
    pool.connect_all()
    pool.now = 60.0
    entry = pool.borrow()

    assert pool.core.is_overdue(pool.now, entry)


def test_a_new_connection_is_probed_and_not_checked():
    pool = Driven(check_after=10.0, probe_after=5.0)
    (entry,) = pool.lend(1)

    assert pool.now >= entry.due_at
    assert not pool.core.examine(9.9, entry)


@pytest.mark.parametrize(
    ("check_after", "probe_after", "due_at"),
    [(10.0, 3.0, 103.0), (3.0, 10.0, 103.0), (NEVER, 3.0, 103.0), (3.0, NEVER, 103.0)],
)
def test_the_next_examination_is_due_after_the_shorter_of_both(
    check_after, probe_after, due_at
):
    pool = Driven(check_after=check_after, probe_after=probe_after)
    (entry,) = pool.lend(1)

    pool.core.examine(100.0, entry)

    assert due_at == entry.due_at


def test_no_examination_is_due_again_if_there_is_neither_check_nor_probe():
    pool = Driven(check_after=NEVER, probe_after=NEVER, max_lifetime=NEVER)
    (entry,) = pool.lend(1)

    pool.core.examine(pool.now, entry)

    assert NEVER == entry.due_at


def test_probe_after_0_makes_a_probe_due_at_each_borrow():
    pool = Driven(check_after=NEVER, probe_after=0.0)
    (entry,) = pool.lend(1)

    pool.core.examine(0.0, entry)

    assert entry.due_at < 0.0


def test_what_goes_straight_on_after_a_brief_use_is_not_probed():
    pool = Driven(max_size=1, check_after=NEVER, probe_after=1.0)
    (entry,) = pool.lend(1)
    pool.now = 10.0
    pool.give_back(entry)
    pool.borrow()
    pool.wait()

    pool.now = 10.004
    pool.give_back(entry)

    assert 11.004 == entry.due_at


def test_what_goes_straight_on_after_a_long_use_is_probed():
    pool = Driven(max_size=1, check_after=NEVER, probe_after=1.0)
    (entry,) = pool.lend(1)
    pool.now = 10.0
    pool.give_back(entry)
    pool.borrow()
    pool.wait()

    pool.now = 10.006
    pool.give_back(entry)

    assert pool.now >= entry.due_at


def test_a_drain_makes_an_examination_due():
    pool = Driven(check_after=NEVER)
    (entry,) = pool.lend(1)

    pool.tell(pool.core.drain)

    assert pool.now >= entry.due_at


# --- found dead -------------------------------------------------------------------


def test_what_a_borrower_finds_dead_is_closed_and_replaced():
    pool = Driven()
    (entry,) = pool.lend(1)

    pool.tell(pool.core.lost, entry)

    assert Reason.LOST is entry.reason
    assert [entry] == pool.wanted(Close)
    assert 1 == len(pool.wanted(Connect))


def test_what_is_found_dead_casts_suspicion_on_its_idle_siblings_warmest_first():
    pool = Driven()
    cold, warm, dead = pool.warm_up(3)
    pool.borrow()

    assert [warm, cold] == pool.tell(pool.core.lost, dead)
    assert [State.CHECKING] * 2 == [warm.state, cold.state]


def test_what_is_suspected_is_not_lent():
    pool = Driven()
    pool.warm_up(1)

    pool.tell(pool.core.suspect)

    assert pool.borrow() is None
    assert (0, 1) == (pool.stats.idle, pool.stats.checking)


def test_what_is_lent_is_not_suspected():
    pool = Driven()
    dead, lent = pool.lend(2)

    assert [] == pool.tell(pool.core.lost, dead)
    assert State.IN_USE is lent.state


def test_a_suspect_that_is_alive_is_idle_again():
    pool = Driven()
    pool.warm_up(1)
    (entry,) = pool.tell(pool.core.suspect)

    pool.tell(pool.core.checked, entry, alive=True, proven=False)

    assert [entry] == pool.idle


def test_suspects_that_are_alive_stand_in_their_old_order():
    pool = Driven(max_idle=1000.0)
    entries = pool.lend(3)
    for pool.now, entry in enumerate(entries, start=1):
        pool.give_back(entry)

    for entry in pool.tell(pool.core.suspect):
        pool.tell(pool.core.checked, entry, alive=True, proven=False)

    assert entries == pool.idle


def test_a_suspect_that_was_only_probed_is_checked_before_it_is_lent():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    (entry,) = pool.tell(pool.core.suspect)

    pool.tell(pool.core.checked, entry, alive=True, proven=False)

    assert pool.now >= entry.due_at
    assert pool.core.examine(pool.now, entry)


def test_a_suspect_that_passed_a_check_is_only_probed():
    pool = Driven(check_after=10.0)
    pool.warm_up(1)
    pool.now = 2.0
    (entry,) = pool.tell(pool.core.suspect)

    pool.tell(pool.core.checked, entry, alive=True, proven=True)

    assert pool.now >= entry.due_at
    assert not pool.core.examine(11.9, entry)


def test_a_suspect_that_is_dead_is_closed_and_replaced():
    pool = Driven()
    pool.warm_up(1)
    (entry,) = pool.tell(pool.core.suspect)

    pool.tell(pool.core.checked, entry, alive=False, proven=False)

    assert Reason.LOST is entry.reason
    assert [entry] == pool.wanted(Close)
    assert 1 == len(pool.wanted(Connect))
    assert 0 == pool.stats.checking


def test_a_suspect_that_is_alive_goes_to_who_waits():
    pool = Driven(max_size=1)
    pool.warm_up(1)
    (entry,) = pool.tell(pool.core.suspect)
    waiter = pool.wait()

    pool.tell(pool.core.checked, entry, alive=True, proven=False)

    assert entry is served(waiter)


# --- in the background ------------------------------------------------------------


def test_an_idle_connection_is_checked_when_the_last_proof_is_check_after_old():
    pool = Driven(min_size=1, check_after=10.0)
    (entry,) = pool.connect_all()

    assert 10.0 == pool.wake_at
    pool.tick(at=9.9)
    assert [] == pool.wanted(Check)
    pool.tick(at=10.0)
    assert [entry] == pool.wanted(Check)
    assert State.CHECKING is entry.state


def next_check(pool):
    """Let the timer fire until a check is wanted; tell when that is."""
    while not pool.wanted(Check):
        pool.tick(at=pool.wake_at)
    return pool.now


def test_it_is_checked_again_after_as_long_a_time():
    pool = Driven(min_size=1, check_after=10.0)
    pool.connect_all()
    pool.tick(at=10.0)
    pool.now = 11.0

    pool.check_one()

    assert 21.0 == next_check(pool)


def test_what_comes_back_when_no_timer_is_set_for_it_is_checked_in_time_all_the_same():
    pool = Driven(min_size=1, check_after=10.0)
    pool.connect_all()
    entry = pool.borrow()
    pool.tick(at=10.0)
    pool.now = 11.0

    pool.give_back(entry)

    assert 21.0 == next_check(pool)


@pytest.mark.parametrize("check_after", [0.0, NEVER])
def test_nothing_is_checked_in_the_background_without_a_check_after(check_after):
    pool = Driven(min_size=1, max_lifetime=NEVER, check_after=check_after)
    pool.connect_all()

    pool.tick(at=1e9)

    assert [] == pool.todo
    assert NEVER == pool.wake_at


def test_what_is_found_dead_in_the_background_is_closed_and_replaced():
    pool = Driven(min_size=1, check_after=10.0)
    pool.connect_all()
    pool.tick(at=10.0)

    entry = pool.check_one(alive=False)

    assert Reason.LOST is entry.reason
    assert 1 == len(pool.wanted(Connect))


def test_what_was_only_probed_is_checked_in_the_background_at_once():
    pool = Driven(min_size=1, check_after=10.0)
    pool.connect_all()
    (entry,) = pool.tell(pool.core.suspect)
    pool.tell(pool.core.checked, entry, alive=True, proven=False)

    assert pool.now >= pool.wake_at
    pool.tick()
    assert [entry] == pool.wanted(Check)


def test_a_checked_connection_goes_to_who_waits():
    pool = Driven(max_size=1, check_after=10.0)
    pool.warm_up(1)
    pool.tick(at=10.0)
    waiter = pool.wait()

    assert pool.check_one() is served(waiter)


def test_a_checked_connection_that_is_the_coldest_is_lent_last():
    pool = Driven(check_after=10.0)
    cold, warm = pool.lend(2)
    pool.give_back(cold)
    pool.now = 5.0
    pool.give_back(warm)
    pool.tick(at=10.0)

    assert cold is pool.check_one()
    assert [cold, warm] == pool.idle


def test_a_checked_connection_that_was_used_last_is_lent_first():
    pool = Driven(check_after=10.0)
    cold, warm = pool.lend(2)
    pool.give_back(cold)
    pool.now = 5.0
    pool.give_back(warm)
    pool.tick(at=15.0)

    pool.check_one()
    pool.check_one()

    assert [cold, warm] == pool.idle
