"""What becomes of what is returned, or interrupted, with threads and with tasks.

Time is virtual: see `test_conformance`.
"""

from __future__ import annotations

import pytest
from drivers.world import DEAD, call, enter, leave

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
