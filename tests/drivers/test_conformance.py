"""What a pool promises, with threads and with tasks: each promise once, for both.

Here to those who borrow: they are served in order, or told that they will not be. Time
is virtual, so that moments are exact: `assert 5.0 == world.now`.
"""

from __future__ import annotations

import pytest
from drivers.world import DEAD, enter, leave

from edgepool import (
    PoolOverloaded,
    PoolTimeout,
    TooManyRequests,
)

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
