"""A server that fails, and what a pool counts, with threads and with tasks.

Time is virtual: see `test_conformance`.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from drivers.world import call, hold_all

from edgepool import (
    ConnectFailed,
    PermanentError,
    PoolTimeout,
    TooManyRequests,
)

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
