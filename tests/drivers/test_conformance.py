"""What a pool promises, with threads and with tasks: each promise once, for both.

Time is virtual, so that moments are exact: `assert 5.0 == world.now`.
"""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from drivers.world import call, enter, leave

from edgepool import (
    ConnectFailed,
    PermanentError,
    PoolClosed,
    PoolOverloaded,
    PoolTimeout,
    TooManyRequests,
)

DEAD = ConnectionResetError("it is dead")

# Connects that run side by side start a millisecond apart.
STAGGERED = 0.01


async def hold_all(world, pool):
    """Borrow as many as there may be."""
    return [await world.borrow(pool) for _ in range(pool.max_size)]


# --- the queue ------------------------------------------------------------------------


async def test_who_came_first_is_served_first(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    borrowers = [await world.waiting(pool) for _ in range(5)]

    for number, borrower in enumerate(borrowers, start=1):
        await held.give_back()
        await world.quiet()

        assert borrowers[:number] == [b for b in borrowers if b.done]

        held = await borrower.outcome()
    await held.give_back()


async def test_a_newcomer_does_not_overtake(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    waiting = await world.waiting(pool)

    await held.give_back()  # and before the waiter has noticed
    newcomer = world.start(world.borrow(pool))
    await world.quiet()

    assert waiting.done
    assert not newcomer.done

    await (await waiting.outcome()).give_back()
    await (await newcomer.outcome()).give_back()


async def test_who_comes_back_queues_behind_those_who_wait(world):
    pool = await world.open_pool()
    order = []

    async def worker(name):
        for _ in range(3):
            held = await world.borrow(pool)
            order.append(name)
            await world.sleep(1.0)
            await held.give_back()

    for running in [world.start(worker(name)) for name in "abc"]:
        await running.outcome()

    assert list("abcabcabc") == order


async def test_a_borrow_ends_at_its_deadline(world):
    pool = await world.open_pool(name="web")
    held = await world.borrow(pool)

    with pytest.raises(PoolTimeout, match=r"after 5.00 sec.*'web'") as caught:
        await world.borrow(pool, timeout=5.0)

    assert 5.0 == world.now
    assert 5.0 == caught.value.waited
    assert (1, 1, 0, 0, 0) == (
        caught.value.size,
        caught.value.in_use,
        caught.value.idle,
        caught.value.opening,
        caught.value.waiting,
    )

    await held.give_back()


async def test_the_timeout_is_the_pools_unless_the_borrower_has_one(world):
    pool = await world.open_pool(timeout=7.0)
    held = await world.borrow(pool)

    with pytest.raises(PoolTimeout):
        await world.borrow(pool)

    assert 7.0 == world.now

    await held.give_back()


async def test_an_earlier_deadline_ends_earlier_wherever_it_is_in_the_queue(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    patient = world.start(world.borrow(pool, timeout=9.0))
    impatient = world.start(world.borrow(pool, timeout=3.0))

    await impatient.error()

    assert 3.0 == world.now
    assert not patient.done

    await held.give_back()
    await (await patient.outcome()).give_back()


async def test_who_has_timed_out_is_not_served(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    impatient = world.start(world.borrow(pool, timeout=1.0))
    patient = world.start(world.borrow(pool))
    await impatient.error()

    await held.give_back()

    await (await patient.outcome()).give_back()


async def test_no_timeout_takes_an_idle_one(world):
    pool = await world.open_pool()

    held = await world.borrow(pool, timeout=0.0)

    assert 1 == held.number

    await held.give_back()


async def test_no_timeout_checks_what_it_takes(world):
    pool = await world.open_pool(min_size=2, max_size=2)
    world.server.fail("check", DEAD)

    held = await world.borrow(pool, timeout=0.0)

    assert 2 == world.server.begun("check")
    assert held.session.alive

    await held.give_back()


async def test_no_timeout_is_refused_at_once_when_all_are_in_use(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)

    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=0.0)

    assert 0.0 == world.now

    await held.give_back()


async def test_who_was_refused_at_once_has_made_the_pool_grow(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.delay("connect", 1.0)
    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=0.0)
    await world.sleep(1.0)
    await world.quiet()

    held = await world.borrow(pool, timeout=0.0)

    assert 1.0 == world.now

    await held.give_back()


async def test_one_more_than_max_waiting_is_refused_at_once(world):
    pool = await world.open_pool(max_waiting=2)
    held = await world.borrow(pool)
    first = await world.waiting(pool)
    second = await world.waiting(pool, timeout=5.0)

    with pytest.raises(TooManyRequests, match="2 requests waiting"):
        await world.borrow(pool)

    assert 0.0 == world.now

    await second.error()  # its timeout makes room for another one
    third = await world.waiting(pool)

    assert not third.done

    await held.give_back()
    await (await first.outcome()).give_back()
    await (await third.outcome()).give_back()


# --- overload -------------------------------------------------------------------------

SHEDDING = {"shed_target": 1.0, "shed_interval": 10.0}


async def test_who_is_shed_is_told_at_that_moment_though_nothing_comes_back(world):
    pool = await world.open_pool(name="web", **SHEDDING)
    held = await world.borrow(pool)
    first = await world.waiting(pool)
    second = await world.waiting(pool)

    error = await first.error()

    assert 11.0 == world.now
    assert isinstance(error, PoolOverloaded)
    assert "the pool 'web' is overloaded" in str(error)
    assert (11.0, 1, 1, 1) == (error.waited, error.size, error.in_use, error.waiting)
    assert not second.done

    await held.give_back()
    await (await second.outcome()).give_back()


async def test_in_an_overload_whoever_comes_is_told_after_twice_the_target(world):
    pool = await world.open_pool(**SHEDDING)
    held = await world.borrow(pool)
    await world.sleep(5.0)
    early = [await world.waiting(pool) for _ in range(2)]
    for borrower in early[:1]:
        await borrower.error()
    came = world.now
    late = [await world.waiting(pool) for _ in range(2)]

    await early[1].error()
    error = await late[0].error()

    assert 16.0 == came
    assert 18.0 == world.now
    assert 2.0 == error.waited

    await held.give_back()
    await (await late[1].outcome()).give_back()


async def test_a_burst_is_served_whatever_it_waits(world):
    pool = await world.open_pool(**SHEDDING)

    async def use():
        held = await world.borrow(pool)
        await world.sleep(2.0)
        await held.give_back()

    for running in [world.start(use()) for _ in range(5)]:
        await running.outcome()

    assert 10.0 == world.now


async def test_in_an_overload_a_return_serves_somebody_who_has_not_waited_long(world):
    pool = await world.open_pool(**SHEDDING)
    held = await world.borrow(pool)
    early = [await world.waiting(pool) for _ in range(3)]
    await early[0].error()
    await world.sleep(1.0)
    late = await world.waiting(pool)
    await held.give_back()

    held = await late.outcome()

    assert 12.0 == world.now
    for borrower in early:
        assert isinstance(await borrower.error(), PoolOverloaded)

    await held.give_back()


async def test_who_is_shed_while_the_server_is_away_is_told_why(world):
    pool = await world.open_pool(min_size=0, max_size=1, **SHEDDING)
    refusal = ConnectionRefusedError("nobody listens")
    world.server.fail_always("connect", refusal)
    first = await world.waiting(pool)
    second = await world.waiting(pool)

    error = await first.error()

    assert 11.0 == world.now
    assert refusal is error.__cause__

    world.server.fail_always("connect", None)
    await (await second.outcome()).give_back()


async def test_shedding_can_be_turned_on_and_off_at_run_time(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    borrowers = [await world.waiting(pool) for _ in range(3)]
    await world.sleep(20.0)

    pool.shed_target, pool.shed_interval = 1.0, 5.0
    await borrowers[0].error()

    assert 26.0 == world.now

    pool.shed_target = None
    third = await world.waiting(pool)
    await world.sleep(3.0)

    assert not third.done

    await held.give_back()
    for borrower in [*borrowers[2:], third]:
        await (await borrower.outcome()).give_back()


async def test_who_is_shed_is_counted(world):
    pool = await world.open_pool(**SHEDDING)
    held = await world.borrow(pool)
    borrowers = [await world.waiting(pool) for _ in range(4)]
    await borrowers[2].error()

    assert (3, 3) == (
        pool.statistics().requests_shed,
        pool.statistics().requests_errors,
    )

    await held.give_back()
    await (await borrowers[3].outcome()).give_back()


async def test_a_return_serves_the_first_waiter_before_the_connect_he_caused(world):
    pool = await world.open_pool(max_size=2)
    world.server.delay("connect", 10.0)
    held = await world.borrow(pool)
    first, second = await world.waiting(pool), await world.waiting(pool)
    await world.sleep(3.0)
    await held.give_back()

    held = await first.outcome()

    assert (1, 3.0) == (held.number, world.now)
    assert not second.done

    other = await second.outcome()

    assert (2, 10.0) == (other.number, world.now)

    await held.give_back()
    await other.give_back()


async def test_a_new_connection_serves_the_first_waiter_before_a_return(world):
    pool = await world.open_pool(max_size=2)
    world.server.delay("connect", 10.0)
    held = await world.borrow(pool)
    first, second = await world.waiting(pool), await world.waiting(pool)
    await world.sleep(20.0)

    assert first.done
    assert not second.done

    await held.give_back()
    await (await first.outcome()).give_back()
    await (await second.outcome()).give_back()


async def test_an_error_in_the_borrowers_block_gives_the_session_back(world):
    pool = await world.open_pool()
    lease = pool.borrow()
    await enter(lease)
    error = KeyError("of the borrower's")

    swallowed = await leave(lease, KeyError, error, None)

    assert not swallowed
    assert 1 == await world.lend(pool, timeout=0.0)


# --- growth ---------------------------------------------------------------------------


async def test_min_size_is_opened_without_being_asked_for(world):
    await world.open_pool(min_size=3, max_size=5)

    assert 3 == len(world.server.sessions)


async def test_the_pool_grows_with_those_who_wait_up_to_max_size(world):
    pool = await world.open_pool(min_size=0, max_size=3)

    borrowers = [await world.waiting(pool) for _ in range(5)]

    assert [True, True, True, False, False] == [b.done for b in borrowers]
    assert 3 == world.server.connects

    for borrower in borrowers:
        await (await borrower.outcome()).give_back()


async def test_connects_run_in_parallel_in_max_connecting_lanes(world):
    pool = await world.open_pool(min_size=0, max_size=6, max_connecting=2)
    world.server.delay("connect", 1.0)

    borrowers = [await world.waiting(pool) for _ in range(6)]
    await world.sleep(0.5)

    assert 2 == world.server.under_way("connect")

    held = [await borrower.outcome() for borrower in borrowers]

    times = world.server.times("connect")

    assert pytest.approx([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], abs=STAGGERED) == times
    assert pytest.approx(3.0, abs=STAGGERED) == world.now

    for one in held:
        await one.give_back()


async def test_what_came_back_last_is_lent_next(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    held = {h.number: h for h in await hold_all(world, pool)}

    for number in (2, 3, 1):
        await held[number].give_back()

    again = await hold_all(world, pool)

    assert [1, 3, 2] == [h.number for h in again]

    for one in again:
        await one.give_back()


async def test_the_connect_of_a_borrower_who_left_serves_the_next(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.delay("connect", 2.0)
    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=1.0)

    held = await world.borrow(pool, timeout=1.5)

    assert (2.0, 1) == (world.now, world.server.connects)

    await held.give_back()


# --- age ------------------------------------------------------------------------------


async def test_an_idle_session_is_replaced_at_the_end_of_its_life(world):
    pool = await world.open_pool(max_lifetime=1000.0, check_after=float("inf"))
    (first,) = world.server.sessions

    await world.sleep(949.0)

    assert first.alive

    await world.sleep(51.0)
    await world.quiet()
    (second,) = world.server.sessions

    assert not first.alive
    assert 1 == await pool_size(pool)
    assert 2 == await world.lend(pool, timeout=0.0)
    assert second.number == 2


async def pool_size(pool):
    return pool.statistics().size


async def test_sessions_opened_together_do_not_end_together(world):
    await world.open_pool(min_size=10, max_lifetime=1000.0)

    await world.sleep(1000.0)
    await world.quiet()

    ends = world.server.times("closed")[:10]

    # 5 % taken off at random, and up to 30 s since they can be replaced ahead of time.
    assert 920.0 <= min(ends) < max(ends) <= 1000.0
    assert 10 == len(set(ends))


async def test_a_session_over_its_age_is_not_lent_again_after_its_return(world):
    pool = await world.open_pool(max_lifetime=1000.0)
    held = await world.borrow(pool)
    await world.sleep(1500.0)

    assert held.session.alive

    await held.give_back()

    assert 2 == await world.lend(pool)
    assert not held.session.alive


async def test_a_pool_in_use_ends_the_lives_of_its_sessions_too(world):
    pool = await world.open_pool(max_lifetime=100.0)
    numbers = []
    while world.now < 1000.0:
        numbers.append(await world.lend(pool))
        await world.sleep(1.0)

    assert 10 <= len(set(numbers)) <= 12


async def test_what_nobody_uses_is_closed_after_max_idle_down_to_min_size(world):
    pool = await world.open_pool(min_size=2, max_size=5, max_idle=60.0)
    for one in await hold_all(world, pool):
        await one.give_back()

    await world.sleep(59.0)

    assert 5 == len(world.server.sessions)

    await world.sleep(1.0)
    await world.quiet()

    assert 2 == len(world.server.sessions)


async def test_what_is_used_is_kept_beyond_min_size(world):
    pool = await world.open_pool(min_size=0, max_size=5, max_idle=60.0)
    for one in await hold_all(world, pool):
        await one.give_back()
    warmest = await world.lend(pool)

    while world.now < 300.0:
        await world.sleep(30.0)

        assert warmest == await world.lend(pool, timeout=0.0)

    await world.quiet()

    assert [warmest] == [s.number for s in world.server.sessions]


# --- liveness -------------------------------------------------------------------------


async def test_a_session_that_has_ended_while_idle_is_not_served(world):
    pool = await world.open_pool(check_after=float("inf"))
    await world.sleep(1.0)
    world.server.kill()

    held = await world.borrow(pool)

    assert held.session.alive
    assert 1.0 == world.now
    assert 1 == pool.statistics().lost

    await held.give_back()


async def test_the_borrower_of_a_dead_session_waits_for_one_connect(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    world.server.delay("connect", 0.5)
    world.server.kill()

    held = await world.borrow(pool)

    assert 0.5 == world.now

    await held.give_back()


async def test_the_siblings_of_a_dead_session_are_suspected_at_once(world):
    pool = await world.open_pool(min_size=4, max_size=4, check_after=float("inf"))
    world.server.delay("connect", 0.5)
    held = await hold_all(world, pool)
    for one in reversed(held):
        await one.give_back()
    survivor = held[2].session
    await world.sleep(1.0)
    world.server.kill(*(one.session for one in held if one.session is not survivor))

    held = await world.borrow(pool)

    assert (survivor, 1.0) == (held.session, world.now)

    await world.sleep(0.5 + STAGGERED)

    assert 4 == sum(session.alive for session in world.server.sessions)

    await held.give_back()


async def test_a_survivor_that_is_suspected_is_checked_before_it_is_served(world):
    pool = await world.open_pool(min_size=2, max_size=2, check_after=30.0)
    held = await world.borrow(pool)
    await held.give_back()
    await world.sleep(1.0)
    world.server.kill(held.session)

    await world.lend(pool)

    assert 1 == world.server.begun("check")


async def test_a_failed_check_is_replaced_at_once(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    world.server.fail("check", DEAD, DEAD, DEAD)

    held = await world.borrow(pool)

    assert 0.0 == world.now
    assert 4 == held.number

    await held.give_back()


async def test_a_check_is_skipped_while_the_session_is_proven_alive(world):
    pool = await world.open_pool(check_after=30.0)
    await world.sleep(29.0)

    await world.lend(pool)

    assert 0 == world.server.begun("check")


async def test_without_check_after_each_borrow_checks(world):
    pool = await world.open_pool(check_after=0.0)

    await world.lend(pool)
    await world.lend(pool)

    assert 2 == world.server.begun("check")


async def test_idle_sessions_are_checked_in_the_background(world):
    await world.open_pool(min_size=2, max_size=2, check_after=30.0)

    await world.sleep(95.0)

    assert [30.0, 30.0, 60.0, 60.0, 90.0, 90.0] == world.server.times("check")


async def test_what_fails_the_check_in_the_background_is_replaced(world):
    pool = await world.open_pool(check_after=30.0)
    world.server.fail("check", DEAD)

    await world.sleep(30.0)
    await world.quiet()

    assert 2 == await world.lend(pool, timeout=0.0)


async def test_a_check_in_the_background_that_hangs_is_given_up(world):
    pool = await world.open_pool(check_after=30.0)
    world.server.hang("check")

    await world.sleep(60.0)
    await world.quiet()

    assert [2] == [session.number for session in world.server.sessions]
    assert 1 == pool.statistics().idle


async def test_keeping_alive_does_not_keep_what_nobody_uses(world):
    pool = await world.open_pool(min_size=0, max_size=1, check_after=10.0, max_idle=60)
    await world.lend(pool)

    await world.sleep(60.0)
    await world.quiet()

    assert () == world.server.sessions


async def test_the_check_counts_towards_the_deadline(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    world.server.delay("check", 3.0)
    waiting = await world.waiting(pool, timeout=4.0)
    await world.sleep(2.0)
    await held.give_back()

    error = await waiting.error()

    assert isinstance(error, PoolTimeout)
    assert 4.0 == world.now
    assert not held.session.alive


async def test_a_connect_counts_towards_the_deadline(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.delay("connect", 3.0)

    with pytest.raises(PoolTimeout) as caught:
        await world.borrow(pool, timeout=2.0)

    assert 2.0 == world.now
    assert 1 == caught.value.opening


async def test_a_check_that_hangs_is_cut_off_at_the_deadline(world):
    pool = await world.open_pool()
    (session,) = world.server.sessions
    world.server.hang("check")

    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=2.0)

    assert 2.0 == world.now

    await world.quiet()

    assert 0 == world.server.under_way("check")
    assert not session.alive


async def test_the_deadline_holds_though_every_idle_session_hangs_in_its_check(world):
    pool = await world.open_pool(min_size=4, max_size=4)
    world.server.hang("check")

    borrower = world.start(world.lend(pool, timeout=2.0))
    await world.sleep(2.0)
    await world.quiet()

    assert borrower.done
    assert isinstance(await borrower.error(), PoolTimeout)


async def test_check_replaces_the_dead_among_the_idle(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    survivor, *others = world.server.sessions
    world.server.kill(*others)

    await call(pool.check)
    await world.quiet()

    assert survivor in world.server.sessions
    assert 3 == sum(session.alive for session in world.server.sessions)
    assert 2 == pool.statistics().lost


# --- returning ------------------------------------------------------------------------


async def test_a_dirty_return_is_reset_in_the_background(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    held.session.dirty = True
    world.server.delay("reset", 2.0)

    await held.give_back()

    assert 0.0 == world.now

    next_held = await world.borrow(pool)

    assert 2.0 == world.now
    assert held.session is next_held.session
    assert not next_held.session.dirty

    await next_held.give_back()


async def test_a_session_whose_reset_fails_is_replaced(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    held.session.dirty = True
    world.server.fail("reset", DEAD)

    await held.give_back()

    assert 2 == await world.lend(pool)
    assert not held.session.alive
    assert 1 == pool.statistics().bad_returns


async def test_a_session_that_no_reset_makes_clean_is_replaced(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    held.session.dirty = held.session.hopeless = True

    await held.give_back()

    assert 2 == await world.lend(pool)
    assert not held.session.alive


async def test_a_reset_that_hangs_is_given_up(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    held.session.dirty = True
    world.server.hang("reset")

    await held.give_back()
    held = await world.borrow(pool, timeout=20.0)

    assert (2, 10.0) == (held.number, world.now)

    await held.give_back()


async def test_a_session_that_comes_back_broken_is_replaced(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    held.session.close()

    await held.give_back()

    assert 2 == await world.lend(pool)
    assert 0 == world.server.begun("reset")
    assert 1 == pool.statistics().bad_returns


async def test_a_session_that_comes_back_broken_is_replaced_for_who_waits(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    waiting = await world.waiting(pool)
    held.session.close()

    await held.give_back()

    other = await waiting.outcome()

    assert 2 == other.number

    await other.give_back()


async def test_a_lease_that_has_ended_returns_nothing_twice(world):
    pool = await world.open_pool(min_size=2, max_size=2)
    lease = pool.borrow()
    await enter(lease)
    await leave(lease)
    other = await world.borrow(pool)

    await leave(lease)

    assert 1 == pool.statistics().in_use

    await other.give_back()


# --- interruptions: Ctrl-C, and the cancellation of a task ----------------------------


async def test_who_is_interrupted_leaves_the_queue(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    first, second = await world.waiting(pool), await world.waiting(pool)

    world.interrupt(first)
    await world.quiet()

    assert isinstance(await first.error(), world.Interruption)
    assert 1 == pool.statistics().waiting

    await held.give_back()
    await (await second.outcome()).give_back()


async def test_what_was_handed_to_who_is_interrupted_goes_to_the_next(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    first, second = await world.waiting(pool), await world.waiting(pool)

    await held.give_back()
    world.interrupt(first)

    assert isinstance(await first.error(), world.Interruption)

    other = await second.outcome()

    assert held.session is other.session

    await other.give_back()


async def test_what_was_handed_to_who_is_interrupted_is_idle_if_nobody_waits(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    waiting = await world.waiting(pool)

    await held.give_back()
    world.interrupt(waiting)
    await waiting.error()

    assert 1 == await world.lend(pool, timeout=0.0)


async def test_the_connect_of_who_was_interrupted_serves_the_next(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.delay("connect", 2.0)
    first = await world.waiting(pool)
    await world.sleep(1.0)
    world.interrupt(first)

    held = await world.borrow(pool)

    assert (2.0, 1) == (world.now, world.server.connects)

    await held.give_back()


async def test_who_is_interrupted_in_a_check_loses_the_session_and_no_place(world):
    pool = await world.open_pool()
    world.server.fail("check", world.Interruption())

    with pytest.raises(world.Interruption):
        await world.borrow(pool)

    assert 2 == await world.lend(pool)


async def test_who_is_interrupted_in_a_check_that_hangs_waits_no_longer(world):
    pool = await world.open_pool()
    (session,) = world.server.sessions
    world.server.hang("check")
    borrower = world.start(world.borrow(pool, timeout=2.0))
    await world.quiet()
    world.interrupt(borrower)

    assert isinstance(await borrower.error(), world.Interruption)

    await world.quiet()

    assert not session.alive


async def test_a_check_of_all_that_is_interrupted_loses_none_of_the_others(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    world.server.fail("check", world.Interruption())

    with pytest.raises(world.Interruption):
        await call(pool.check)

    await world.quiet()

    assert 3 == pool.statistics().idle


async def test_who_is_interrupted_while_waiting_for_an_opening_leaves_it_open(world):
    pool = world.pool()
    world.server.delay("connect", 5.0)
    opening = world.start(call(pool.open, wait=True))
    await world.quiet()

    world.interrupt(opening)
    await opening.error()

    assert not pool.closed
    assert 1 == await world.lend(pool)


async def test_a_close_that_was_interrupted_can_be_repeated(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    closing = world.start(call(pool.close, timeout=100.0))
    await world.sleep(1.0)
    world.interrupt(closing)
    await closing.error()

    assert pool.closed
    assert held.session.alive

    await call(pool.close, timeout=2.0)

    assert 3.0 == world.now
    assert not held.session.alive

    await held.give_back()


# --- changes at run time --------------------------------------------------------------


async def test_a_larger_min_size_is_filled(world):
    pool = await world.open_pool()
    world.allowed = 3

    await call(pool.resize, 3, 3)
    await world.quiet()

    assert 3 == len(world.server.sessions)


async def test_a_larger_max_size_serves_who_waits(world):
    pool = await world.open_pool()
    world.allowed = 2
    held = await world.borrow(pool)
    waiting = await world.waiting(pool)

    await call(pool.resize, 1, 2)
    other = await waiting.outcome()

    assert {1, 2} == {held.number, other.number}

    await held.give_back()
    await other.give_back()


async def test_a_smaller_max_size_closes_idle_sessions_now(world):
    pool = await world.open_pool(min_size=4, max_size=4)

    await call(pool.resize, 1, 2)
    await world.quiet()

    assert 2 == len(world.server.sessions)


async def test_a_smaller_max_size_closes_borrowed_sessions_on_their_return(world):
    pool = await world.open_pool(min_size=0, max_size=3)
    held = await hold_all(world, pool)

    await call(pool.resize, 0, 1)
    await world.quiet()

    assert 3 == len(world.server.sessions)

    for left, one in zip((2, 1, 1), held, strict=True):
        await one.give_back()
        await world.quiet()

        assert left == len(world.server.sessions)


async def test_sizes_out_of_range_are_refused_and_change_nothing(world):
    pool = await world.open_pool(min_size=1, max_size=2)

    with pytest.raises(ValueError, match=r"max_size .* \(5\).* 3"):
        await call(pool.resize, 5, 3)

    assert (1, 2) == (pool.min_size, pool.max_size)


async def test_drain_replaces_idle_sessions_now_and_others_on_their_return(world):
    pool = await world.open_pool(min_size=2, max_size=2)
    held = await world.borrow(pool)
    (idle,) = (s for s in world.server.sessions if s is not held.session)

    await call(pool.drain)
    await world.quiet()

    assert not idle.alive
    assert held.session.alive

    await held.give_back()
    await world.quiet()

    assert not held.session.alive
    assert {3, 4} == {session.number for session in world.server.sessions}


async def test_drain_replaces_what_is_being_opened_and_reset(world):
    pool = await world.open_pool(min_size=1, max_size=2)
    world.server.delay("connect", 1.0)
    world.server.delay("reset", 1.0)
    held = await world.borrow(pool)
    connecting = await world.waiting(pool)
    held.session.dirty = True
    await held.give_back()

    await call(pool.drain)
    other = await connecting.outcome()
    await other.give_back()
    await world.sleep(5.0)
    await world.quiet()

    assert not held.session.alive
    assert {1, 2}.isdisjoint(session.number for session in world.server.sessions)


@pytest.mark.parametrize("set_back", [0.0, 7200.0])
async def test_after_the_machine_was_suspended_all_sessions_are_new(world, set_back):
    pool = await world.open_pool(min_size=2, max_size=3)
    held = await world.borrow(pool)
    await world.sleep(1.0)
    world.suspend(-set_back)  # somebody sets the clock
    await world.lend(pool)
    await world.sleep(1.0)

    world.suspend(11.0)

    assert 3 == await world.lend(pool)

    await held.give_back()
    await world.quiet()

    assert not held.session.alive
    assert {3, 4} == {session.number for session in world.server.sessions}


async def test_a_short_sleep_ends_no_session(world):
    pool = await world.open_pool()
    for _ in range(2):
        await world.sleep(1.0)
        world.suspend(9.0)

        assert 1 == await world.lend(pool)


async def test_who_sleeps_twice_has_new_sessions_twice(world):
    pool = await world.open_pool()
    for number in (2, 3):
        await world.sleep(1.0)
        world.suspend(3600.0)

        assert number == await world.lend(pool)
        assert number == await world.lend(pool)


async def test_a_busy_pool_does_not_look_whether_the_machine_has_slept(world):
    pool = await world.open_pool()
    await world.lend(pool)
    world.suspend(3600.0)
    await world.sleep(0.009)

    assert 1 == await world.lend(pool)


async def test_settings_that_are_changed_hold_from_then_on(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)

    pool.timeout = 2.0
    with pytest.raises(PoolTimeout):
        await world.borrow(pool)

    assert 2.0 == world.now

    await held.give_back()


# --- opening and closing --------------------------------------------------------------


async def test_a_pool_opens_at_its_first_use(world):
    pool = world.pool(open=None)

    assert pool.closed
    assert 0 == world.server.connects
    assert 1 == await world.lend(pool)
    assert not pool.closed


async def test_a_pool_that_is_not_to_open_by_itself_refuses_before(world):
    pool = world.pool(open=False)

    with pytest.raises(PoolClosed, match="not open yet"):
        await world.borrow(pool)

    await call(pool.open)

    assert 1 == await world.lend(pool)


async def test_a_pool_is_a_context_manager(world):
    pool = world.pool()

    entered = await enter(pool)

    assert entered is pool
    assert not pool.closed

    await leave(pool)

    assert pool.closed


async def test_open_can_wait_until_min_size_is_there(world):
    world.server.delay("connect", 3.0)
    pool = world.pool(min_size=2, max_size=5)

    await call(pool.open, wait=True)

    assert pytest.approx(3.0, abs=STAGGERED) == world.now
    assert 2 == len(world.server.sessions)


async def test_who_waited_for_an_opening_in_vain_has_a_closed_pool(world):
    world.server.down()
    pool = world.pool()

    with pytest.raises(PoolTimeout, match=r"incomplete after 4.0 sec") as caught:
        await call(pool.open, wait=True, timeout=4.0)

    assert 4.0 == world.now
    assert pool.closed
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_who_waits_for_an_opening_learns_at_once_that_it_cannot_be(world):
    world.server.refuse(PermanentError("the password is wrong"))
    pool = world.pool()

    with pytest.raises(ConnectFailed, match="the password is wrong"):
        await call(pool.open, wait=True)

    assert 0.0 == world.now
    assert pool.closed


async def test_who_waits_for_an_opening_is_told_that_the_pool_closes(world):
    world.server.down()
    pool = world.pool()
    opening = world.start(call(pool.open, wait=True))
    await world.quiet()

    await call(pool.close)

    assert isinstance(await opening.error(), PoolClosed)


async def test_wait_opens_a_lazy_pool(world):
    pool = world.pool(open=None, min_size=2)

    await call(pool.wait)

    assert 2 == len(world.server.sessions)


async def test_close_tells_those_who_wait_at_once(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    borrowers = [await world.waiting(pool) for _ in range(3)]

    closing = world.start(call(pool.close))
    errors = [await borrower.error() for borrower in borrowers]

    assert 0.0 == world.now
    assert {PoolClosed} == {type(error) for error in errors}

    await held.give_back()
    await closing.outcome()


async def test_close_refuses_those_who_come(world):
    pool = await world.open_pool()
    await call(pool.close)

    with pytest.raises(PoolClosed, match="already closed"):
        await world.borrow(pool)


async def test_close_ends_idle_sessions_at_once(world):
    pool = await world.open_pool(min_size=4, max_size=4)

    await call(pool.close)

    assert 0.0 == world.now
    assert () == world.server.sessions


async def test_close_waits_for_borrowers(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    closing = world.start(call(pool.close))
    await world.sleep(3.0)

    assert held.session.alive
    assert not closing.done

    await held.give_back()
    await closing.outcome()

    assert 3.0 == world.now
    assert () == world.server.sessions


async def test_close_cuts_off_who_is_not_back_in_time(world, caplog):
    pool = await world.open_pool(name="web")
    held = await world.borrow(pool)

    await call(pool.close, timeout=2.0)

    assert 2.0 == world.now
    assert not held.session.alive
    assert "web: cut off what was not back in 2 s" in caplog.text

    await held.give_back()


async def test_what_comes_back_after_the_end_is_closed_quietly(world, caplog):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    await call(pool.close, timeout=2.0)
    caplog.clear()

    await held.give_back()
    await world.quiet()

    assert 1 == len(world.server.times("close"))
    assert [] == [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert 0 == pool.statistics().size


async def test_a_return_after_the_end_leaves_nothing_behind(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    await call(pool.close, timeout=2.0)

    await held.give_back()
    await world.sleep(1.0)

    assert [] == world.left_over()


async def test_a_connect_that_ends_after_the_end_is_closed(world):
    world.server.hang("connect")
    pool = world.pool()
    await call(pool.open)
    await world.quiet()
    await call(pool.close, timeout=2.0)

    world.server.release("connect")
    await world.quiet()

    assert () == world.server.sessions
    assert pool.closed


async def test_closing_twice_is_closing_once(world):
    pool = await world.open_pool()

    await call(pool.close)
    await call(pool.close)

    assert 1 == world.server.begun("close")


async def test_a_pool_that_was_never_opened_can_be_closed(world):
    pool = world.pool()

    await call(pool.close)

    assert pool.closed
    assert 0.0 == world.now


async def test_a_closed_pool_can_be_opened_again(world):
    pool = await world.open_pool()
    await call(pool.close)

    await call(pool.open)

    assert 2 == await world.lend(pool)


async def test_a_pool_that_is_opened_while_it_closes_is_open(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    closing = world.start(call(pool.close, timeout=5.0))
    await world.sleep(1.0)

    await call(pool.open)
    await closing.outcome()
    await world.sleep(10.0)

    assert held.session.alive
    assert not pool.closed

    await held.give_back()
    await world.lend(pool, timeout=1.0)


async def test_a_lazy_pool_that_was_closed_does_not_open_by_itself(world):
    pool = world.pool(open=None)
    await world.lend(pool)
    await call(pool.close)

    with pytest.raises(PoolClosed, match="already closed"):
        await world.borrow(pool)


# --- a server that fails --------------------------------------------------------------


async def test_a_borrower_waits_out_a_failure(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.fail("connect", OSError("a hiccup"), OSError("another"))

    held = await world.borrow(pool)

    assert 3 == world.server.connects
    assert world.now < 0.1

    await held.give_back()


async def test_a_timeout_tells_why_connecting_fails(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    error = OSError("no route to host")
    world.server.refuse(error)

    with pytest.raises(PoolTimeout) as caught:
        await world.borrow(pool, timeout=3.0)

    assert error is caught.value.__cause__
    assert 3.0 == world.now


async def test_connecting_backs_off_while_it_fails(world):
    world.server.down()
    pool = await world.open_pool(min_size=0, max_size=4)
    borrowers = [world.start(world.borrow(pool, timeout=60.0)) for _ in range(4)]

    for borrower in borrowers:
        await borrower.error()

    times = world.server.times("connect")
    pauses = [after - before for before, after in pairwise(times)]

    assert max(pauses[:3]) < 0.1
    assert 0.5 < min(pauses[-10:]) <= max(pauses[-10:]) <= 1.0
    assert len(times) < 300


async def test_one_probes_while_connecting_fails_and_all_follow_when_it_works(world):
    world.server.down()
    pool = await world.open_pool(min_size=0, max_size=4)
    world.server.delay("connect", 0.5)
    borrowers = [world.start(world.borrow(pool)) for _ in range(4)]
    await world.sleep(10.0)

    assert world.server.under_way("connect") <= 1

    world.server.up()
    held = [await borrower.outcome() for borrower in borrowers]

    assert world.now < 10.0 + 1.0 + 0.5 + 0.5
    assert 4 == len({one.number for one in held})

    for one in held:
        await one.give_back()


async def test_after_an_outage_the_first_borrower_waits_for_one_connect(world):
    pool = await world.open_pool()
    world.server.down()
    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=1.0)
    await world.sleep(3600.0)
    world.server.up()
    world.server.delay("connect", 0.25)
    came = world.now

    held = await world.borrow(pool)

    assert world.now - came <= 0.25 + 0.25  # one may have begun just before

    await held.give_back()


async def test_the_pool_fills_itself_again_after_an_outage(world):
    pool = await world.open_pool(min_size=3, max_size=3)
    world.server.down()
    await call(pool.check)
    await world.sleep(600.0)
    world.server.up()

    await world.sleep(31.0)
    await world.quiet()

    assert 3 == len(world.server.sessions)
    assert 3 == pool.statistics().idle


async def test_what_waiting_cannot_help_is_told_at_once_with_its_cause(world):
    pool = await world.open_pool(min_size=0, max_size=2)
    cause = OSError("password authentication failed")
    error = PermanentError(str(cause))
    error.__cause__ = cause
    world.server.refuse(error)
    borrowers = [await world.waiting(pool) for _ in range(3)]

    errors = [await borrower.error() for borrower in borrowers]

    assert world.now < 0.1
    assert {ConnectFailed} == {type(error) for error in errors}
    assert {cause} == {error.__cause__ for error in errors}
    assert "password authentication failed" in str(errors[0])


async def test_who_comes_later_is_told_at_once_too(world):
    pool = await world.open_pool(min_size=0, max_size=2)
    world.server.refuse(PermanentError("no such database"))
    for _ in range(5):
        came = world.now

        with pytest.raises(ConnectFailed):
            await world.borrow(pool)

        assert world.now - came < 0.1
        await world.sleep(20.0)


async def test_a_bug_in_connect_is_told_at_once(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    bug = TypeError("connect() got an unexpected keyword argument")
    world.server.fail_always("connect", bug)

    with pytest.raises(ConnectFailed) as caught:
        await world.borrow(pool)

    assert bug is caught.value.__cause__
    assert 0.0 == world.now


async def test_who_may_yet_be_served_waits_though_no_connect_can_help(world):
    pool = await world.open_pool(max_size=2)
    held = await world.borrow(pool)
    world.server.refuse(PermanentError("the password has changed"))
    waiting = await world.waiting(pool)
    await world.sleep(5.0)
    await held.give_back()

    other = await waiting.outcome()

    assert held.session is other.session

    await other.give_back()


async def test_a_pool_recovers_from_what_waiting_cannot_help(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.refuse(PermanentError("no such database"))
    with pytest.raises(ConnectFailed):
        await world.borrow(pool)
    world.server.up()

    held = await world.borrow(pool)

    assert world.now < 0.1

    await held.give_back()


async def test_the_alarm_sounds_when_connecting_has_failed_for_long(world):
    alarms = []
    world.server.down()
    pool = world.pool(
        reconnect_timeout=100.0,
        reconnect_failed=lambda pool: alarms.append((pool, world.now)),
    )
    await call(pool.open)

    await world.sleep(350.0)

    assert {pool} == {pool for pool, _ in alarms}
    assert [100, 200, 300] == [round(at, -2) for _, at in alarms]
    assert all(at >= 100.0 * n for n, (_, at) in enumerate(alarms, start=1))


async def test_an_error_in_the_alarm_does_no_harm(world, caplog):
    world.server.down()

    def alarm(pool):
        raise KeyError("in the alarm")

    pool = world.pool(reconnect_timeout=100.0, reconnect_failed=alarm)
    await call(pool.open)
    await world.sleep(150.0)
    world.server.up()

    await world.lend(pool)

    assert "error in reconnect_failed" in caplog.text


async def test_a_full_server_is_shared_with_what_others_leave(world):
    world.server.max_sessions = 2
    pool = await world.open_pool(min_size=0, max_size=4)

    borrowers = [world.start(world.borrow(pool)) for _ in range(4)]
    await world.sleep(5.0)

    assert [True, True, False, False] == [borrower.done for borrower in borrowers]

    for borrower in borrowers:
        await (await borrower.outcome()).give_back()


# --- numbers --------------------------------------------------------------------------


async def test_statistics_add_up(world):
    pool = await world.open_pool(min_size=1, max_size=4, max_connecting=1)
    world.server.delay("reset", 5.0)
    world.server.hang("close")
    held = [await world.borrow(pool) for _ in range(3)]
    world.server.hang("connect")
    held[0].session.dirty = True
    held[1].session.close()

    await held[0].give_back()
    await held[1].give_back()
    borrowers = [await world.waiting(pool) for _ in range(2)]
    s = pool.statistics()

    assert (4, 1, 0, 1, 1, 0, 1, 2) == (
        s.size,
        s.in_use,
        s.idle,
        s.opening,
        s.closing,
        s.checking,
        s.resetting,
        s.waiting,
    )

    world.server.release("close")
    world.server.release("connect")
    for borrower in borrowers:
        await (await borrower.outcome()).give_back()
    await held[2].give_back()


async def test_what_ended_is_counted_in_seconds(world):
    pool = await world.open_pool(max_waiting=1)
    world.server.delay("connect", 0.5)
    held = await world.borrow(pool)
    waiting = await world.waiting(pool)
    with pytest.raises(TooManyRequests):
        await world.borrow(pool)
    await world.sleep(2.0)
    await held.give_back()
    held = await waiting.outcome()
    await world.sleep(1.0)
    held.session.close()
    await held.give_back()
    await world.sleep(1.0)
    s = pool.statistics()

    assert (3, 1, 1) == (s.requests, s.requests_queued, s.requests_errors)
    assert (2.0, 3.0) == (s.wait_time, s.usage_time)
    assert (2, 0, 0.5) == (s.connects, s.connect_errors, s.connect_time)
    assert (1, 0) == (s.bad_returns, s.lost)


async def test_failures_are_counted(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.fail("connect", OSError("a hiccup"))
    held = world.start(world.borrow(pool))
    await world.quiet()

    assert 0.0 == pool.statistics().failing_since

    await (await held.outcome()).give_back()
    s = pool.statistics()

    assert (2, 1, None) == (s.connects, s.connect_errors, s.failing_since)


async def test_repr_tells_the_state(world):
    pool = world.pool(name="web", min_size=2, max_size=2)
    kind = pool.__class__.__name__

    assert f"<edgepool.{kind} 'web' closed, 0 in use, 0 idle, 0 waiting, max 2>" == (
        repr(pool)
    )

    await call(pool.open, wait=True)
    held = await hold_all(world, pool)
    waiting = await world.waiting(pool)

    assert f"<edgepool.{kind} 'web' open, 2 in use, 0 idle, 1 waiting, max 2>" == (
        repr(pool)
    )

    for one in held:
        await one.give_back()
    await (await waiting.outcome()).give_back()
