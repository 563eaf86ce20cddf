"""How connections come, age and end, with threads and with tasks.

Time is virtual: see `test_conformance`.
"""

from __future__ import annotations

import pytest
from drivers.world import DEAD, STAGGERED, call, hold_all

from edgepool import (
    PoolTimeout,
)

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
