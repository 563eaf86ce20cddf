"""A server that is full: the pool makes do with what it got, and asks now and then."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edgepool._core import Connect, ErrorClass, Refusal
from edgepool._core.ceiling import FORGOTTEN_AFTER, LATEST, SOONEST, Ceiling
from support.core import Driven, served

FULL = ErrorClass.BACK_OFF
ERROR = RuntimeError("too many clients")


def refused_with(lent, *, waiters=1, **settings):
    """Give a pool that has so many connections, all lent, and was refused one more."""
    pool = Driven(**{"max_size": 10, "max_connecting": 10, **settings})
    entries = pool.lend(lent)
    waiting = [pool.wait() for _ in range(waiters)]
    while pool.wanted(Connect):
        pool.fail_one(ERROR, kind=FULL)
    return pool, entries, waiting


def pass_time(pool, until):
    """Let the timer go off whenever it is set, up to then; give when it asked."""
    asked = []
    while pool.core.wake_at <= until:
        pool.tick(at=max(pool.now, pool.core.wake_at))
        if pool.wanted(Connect):
            asked.append(pool.now)
            pool.fail_one(ERROR, kind=FULL)
    pool.now = until
    return asked


def test_who_is_refused_waits_for_what_comes_back():
    pool, (entry, _), (waiter,) = refused_with(2)

    assert not waiter.resolved
    assert 2 == pool.stats.ceiling
    assert 1 == pool.stats.connects_refused

    pool.give_back(entry)

    assert entry is served(waiter)


def test_the_server_is_not_asked_for_more_than_it_gave_for_each_who_comes():
    pool, _, _ = refused_with(2)

    for _ in range(20):
        pool.wait()

    assert [] == pool.wanted(Connect)


def test_without_a_ceiling_an_error_has_it_asked_again_for_who_comes():
    pool = Driven(max_size=10)
    pool.lend(2)
    pool.wait()
    pool.fail_one(ERROR)
    pool.now = 0.05
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_it_is_asked_again_after_a_pause_that_doubles_up_to_5_seconds():
    pool, _, _ = refused_with(1)

    asked = pass_time(pool, 20.0)

    assert [0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 6.35] == pytest.approx(asked[:7])
    assert [11.35, 16.35] == pytest.approx(asked[7:])


def test_a_fifth_of_the_pause_is_left_to_chance():
    ceiling = Ceiling(jitter=lambda: 1.0)
    ceiling.refused(10.0, 9.0, established=2)

    assert 10.0 + SOONEST * 0.8 == pytest.approx(ceiling.opens_at(2))


def test_a_crowd_that_is_refused_is_one_refusal():
    pool, _, _ = refused_with(1, waiters=5)

    assert [0.05, 0.15] == pytest.approx(pass_time(pool, 0.2))
    assert 5 + 2 == pool.stats.connects_refused


def test_one_at_a_time_finds_out_whether_there_is_more():
    pool, _, _ = refused_with(2, waiters=5)
    pool.tick(at=0.05)

    assert 1 == len(pool.wanted(Connect))

    pool.connect_one()

    assert 3 == pool.stats.ceiling
    assert [] == pool.wanted(Connect)

    pool.tick(at=0.1)

    assert 1 == len(pool.wanted(Connect))


def test_each_success_halves_the_pause():
    ceiling = Ceiling(jitter=lambda: 0.0)
    for at in (0.0, 1.0, 2.0, 3.0):
        ceiling.refused(at, at, established=2)

    assert 3.4 == pytest.approx(ceiling.opens_at(2))

    ceiling.connected(4.0, established=3)

    assert 4.2 == pytest.approx(ceiling.opens_at(3))


def test_what_is_below_the_ceiling_is_opened_at_once():
    pool, (first, _), (waiter,) = refused_with(2)
    pool.tell(pool.core.time_out, waiter)
    pool.give_back(first)
    pool.tick(at=5.0)
    pool.tell(pool.core.lost, pool.borrow())
    pool.close_one()
    pool.wait()

    assert 1 == len(pool.wanted(Connect))


def test_another_refusal_with_fewer_lowers_it():
    ceiling = Ceiling(jitter=lambda: 0.0)
    ceiling.refused(0.0, 0.0, established=5)
    ceiling.refused(9.0, 9.0, established=3)

    assert 3 == ceiling.limit


def test_a_server_that_gives_nothing_is_asked_as_in_an_outage():
    """There is nothing to wait for but the server."""
    pool, _, (waiter,) = refused_with(0)
    asked = pass_time(pool, 60.0)
    pauses = [after - before for before, after in pairwise(asked)]

    assert not waiter.resolved
    assert SOONEST == pytest.approx(min(pauses))
    assert 1.0 == pytest.approx(max(pauses))


def test_a_server_that_takes_the_last_one_away_is_asked_soon():
    ceiling = Ceiling(jitter=lambda: 0.0)
    for at in (0.0, 1.0, 2.0, 3.0):
        ceiling.refused(at, at, established=2)
    ceiling.refused(4.0, 4.0, established=0)

    assert 4.0 + SOONEST == pytest.approx(ceiling.opens_at(0))


def test_a_successor_is_one_more_as_well():
    pool = Driven(max_size=4, max_lifetime=100.0, renewal=0.05)
    pool.warm_up(1)
    pool.tick(at=94.98)
    pool.tell(pool.core.noticed, FULL)
    pool.tick(at=95.01)  # it is to be replaced

    assert [] == pool.wanted(Connect)

    pool.tick(at=96.0)

    assert 1 == len(pool.wanted(Connect))


def test_when_it_gives_the_first_the_others_follow_at_once():
    pool, _, _ = refused_with(0, waiters=5)
    pool.tick(at=1.0)
    pool.connect_one()

    assert pool.stats.ceiling is None
    assert 4 == len(pool.wanted(Connect))


def test_a_refusal_is_forgotten_after_a_minute():
    pool, (entry, _), (waiter,) = refused_with(2)
    pool.give_back(entry)
    pool.tell(pool.core.abandon, waiter)
    while pool.core.wake_at < FORGOTTEN_AFTER:
        pool.tick(at=pool.core.wake_at)

    assert 2 == pool.stats.ceiling

    pool.tick(at=FORGOTTEN_AFTER)

    assert pool.stats.ceiling is None


def test_a_pool_that_is_opened_again_knows_of_no_ceiling():
    pool, _, _ = refused_with(1)
    pool.tell(pool.core.close)
    pool.tell(pool.core.start)

    assert pool.stats.ceiling is None


def test_who_waits_in_vain_is_told_what_the_server_said():
    pool, _, (waiter,) = refused_with(1)
    pool.tell(pool.core.time_out, waiter)

    assert (Refusal.TIMEOUT, ERROR) == (waiter.refusal, waiter.cause)


def test_a_borrower_may_find_the_ceiling_too():
    """A pooler has let him in, and has no connection to the server for him."""
    pool = Driven(max_size=4)
    pool.lend(2)
    pool.tell(pool.core.noticed, FULL)
    pool.wait()

    assert 2 == pool.stats.ceiling
    assert [] == pool.wanted(Connect)


def test_the_pause_ends_at_its_limit():
    ceiling = Ceiling(jitter=lambda: 0.0)
    for at in range(100):
        ceiling.refused(float(at), float(at), established=1)

    assert 99.0 + LATEST == pytest.approx(ceiling.opens_at(1))


# --- what else an error says ----------------------------------------------------------


def test_what_ended_one_session_has_the_idle_ones_probed():
    pool = Driven()
    kept, *others = pool.lend(3)
    for entry in others:
        pool.give_back(entry)
    pool.tell(pool.core.noticed, ErrorClass.SUSPECT)

    assert 1 == pool.sweeps

    for entry in pool.tell(pool.core.suspect):
        pool.tell(pool.core.checked, entry, alive=False, proven=False)

    assert 2 == pool.stats.lost
    assert 1 == pool.stats.in_use
    assert kept.connected


def test_without_any_idle_there_is_nothing_to_probe():
    pool = Driven()
    pool.lend(3)
    pool.tell(pool.core.noticed, ErrorClass.SUSPECT)

    assert 0 == pool.sweeps


def test_what_comes_back_dead_has_the_idle_ones_probed():
    pool = Driven()
    dead, other = pool.lend(2)
    pool.give_back(other)
    pool.tell(pool.core.give_back_dead, dead)

    assert 1 == pool.sweeps
    assert 1 == pool.stats.bad_returns


@pytest.mark.parametrize("kind", ErrorClass)
def test_who_waits_is_told_at_once_where_waiting_cannot_help(kind):
    pool = Driven()
    waiter = pool.wait()
    pool.fail_one(kind=kind)

    assert waiter.resolved is (kind in {ErrorClass.CREDENTIALS, ErrorClass.FAIL_FAST})


def test_errors_of_a_server_that_takes_no_writes_are_counted():
    pool = Driven()
    pool.lend(1)
    pool.tell(pool.core.noticed, ErrorClass.READ_ONLY)
    pool.tell(pool.core.noticed, ErrorClass.ORDINARY)

    assert 1 == pool.stats.read_only_errors


def test_a_resource_that_lasts_for_less_is_replaced_earlier():
    pool = Driven(max_lifetime=100.0)
    pool.wait()
    entry = pool.take(Connect)
    pool.tell(pool.core.connected, entry, object(), 0.0, lasts=10.0)

    assert 10.0 == entry.expires_at


def test_it_is_replaced_ahead_by_a_share_of_what_it_lasts():
    pool = Driven(max_lifetime=3600.0, renewal=0.05)
    pool.wait()
    entry = pool.take(Connect)
    pool.tell(pool.core.connected, entry, object(), 0.0, lasts=60.0)

    assert 57.0 == entry.renew_at
