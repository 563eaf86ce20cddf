"""Pools that are opened, changed and closed, with threads and with tasks.

Time is virtual: see `test_conformance`.
"""

from __future__ import annotations

import logging

import pytest
from drivers.world import STAGGERED, call, enter, hold_all, leave

from edgepool import (
    ConnectFailed,
    PermanentError,
    PoolClosed,
    PoolTimeout,
)

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
