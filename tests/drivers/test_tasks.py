"""What is particular to asyncio: cancellation, event loops, tasks and timers."""

from __future__ import annotations

import asyncio
import gc
import sys
from itertools import count
from random import Random

import pytest
from drivers.world import DEAD, TaskWorld

from edgepool import AsyncPool, PoolTimeout, _face
from edgepool._core import Waiter
from edgepool.testing import AsyncFakeAdapter, FakeServer, JumpingLoop, run_jumping

with_tasks = pytest.mark.parametrize("world", [TaskWorld], indirect=True, ids=["tasks"])


# --- cancellation ---------------------------------------------------------------------


class CancelledAt:
    """Drives a coroutine by hand, and cancels it where it suspends.

    Args:
        coroutine: what to drive.
        suspension: at which of its suspensions; the first is 1.
        late: True: when what it waits for is there, in the same moment.
    """

    def __init__(self, coroutine, suspension, late):
        self._coroutine = coroutine
        self._suspension = suspension
        self._late = late
        self.suspensions = 0

    def __await__(self):
        step = self._coroutine.send
        argument = None
        while True:
            try:
                waits_for = step(argument)
            except StopIteration as stop:
                return stop.value
            self.suspensions += 1
            if self.suspensions != self._suspension:
                yield waits_for
            else:
                if self._late:
                    yield waits_for
                step, argument = self._coroutine.throw, asyncio.CancelledError()


async def drive(world, pool, suspension, late=False):
    """Borrow, and wait for all there is: the queue, a check, a connect and its check.

    Returns what borrows, and what drives it.
    """
    world.server.delay("connect", 1.0)
    holder = await world.borrow(pool)
    world.server.delay("check", 1.0)
    world.server.fail("check", DEAD)
    driven = CancelledAt(world.borrow(pool), suspension, late)

    async def borrow():
        return await driven

    borrower = world.start(borrow())
    await world.sleep(1.0)
    await holder.give_back()
    return borrower, driven


@with_tasks
async def test_a_borrow_that_waits_for_all_there_is_suspends_four_times(world):
    pool = await world.open_pool()

    borrower, driven = await drive(world, pool, suspension=None)
    held = await borrower.outcome()

    assert (4, 4.0) == (driven.suspensions, world.now)

    await held.give_back()


@with_tasks
@pytest.mark.parametrize("late", [False, True], ids=["waiting", "served"])
@pytest.mark.parametrize("suspension", [1, 2, 3, 4])
async def test_a_borrow_can_be_cancelled_wherever_it_waits(world, suspension, late):
    pool = await world.open_pool()

    borrower, driven = await drive(world, pool, suspension, late)

    assert isinstance(await borrower.error(), asyncio.CancelledError)
    assert suspension == driven.suspensions

    held = await world.borrow(pool)
    s = pool.statistics()

    assert (1, 1, 0) == (s.size, s.in_use, s.waiting)

    await held.give_back()


@with_tasks
async def test_a_cancelled_borrower_is_a_cancelled_task(world):
    pool = await world.open_pool()
    held = await world.borrow(pool)
    task = asyncio.ensure_future(world.borrow(pool))
    await world.quiet()

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()

    await held.give_back()


@with_tasks
async def test_a_timeout_of_asyncio_leaves_nothing_behind(world):
    pool = await world.open_pool(min_size=0, max_size=1)
    world.server.delay("connect", 2.0)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(world.borrow(pool), timeout=1.0)

    s = pool.statistics()

    assert (0, 0, 1) == (s.in_use, s.waiting, s.opening)


@with_tasks
async def test_cancelling_requests_costs_no_reconnects(world):
    pool = await world.open_pool(min_size=4, max_size=4)

    async def request():
        held = await world.borrow(pool)
        try:
            held.session.dirty = True
            await world.sleep(1.0)
        finally:
            await held.give_back()

    for _ in range(25):
        requests = [world.start(request()) for _ in range(4)]
        await world.sleep(0.5)
        for one in requests:
            world.interrupt(one)
        await world.quiet()

    assert 100 == world.server.begun("reset")
    assert 4 == world.server.connects


@with_tasks
async def test_what_is_cut_off_is_closed_when_nobody_uses_it_any_more(world):
    order = []

    class Lingering(AsyncFakeAdapter):
        async def check(self, session):
            try:
                await super().check(session)
            finally:
                await asyncio.sleep(0.01)  # as psycopg, which has a word with libpq
                order.append("check ended")

        async def close(self, session):
            order.append("close")
            await super().close(session)

    pool = AsyncPool(Lingering(world.server), min_size=1)
    world.pools.append(pool)
    world.allowed = 1
    await pool.open(wait=True)
    world.server.hang("check")

    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=1.0)

    await world.sleep(1.0)

    assert ["check ended", "close"] == order


# --- event loops ----------------------------------------------------------------------


def make_pool(server, **settings):
    return AsyncPool(
        AsyncFakeAdapter(server), **{"min_size": 1, "nested": "wait"} | settings
    )


async def lend(pool, timeout=None):
    async with pool.borrow(timeout) as session:
        return session.number


def test_a_pool_is_made_without_an_event_loop():
    pool = make_pool(FakeServer())

    assert 1 == asyncio.run(lend_and_close(pool))


async def lend_and_close(pool):
    number = await lend(pool)
    await pool.close()
    return number


def test_a_pool_that_is_to_open_at_once_needs_an_event_loop():
    with pytest.raises(RuntimeError, match="no event loop is running"):
        make_pool(FakeServer(), open=True)


@pytest.mark.parametrize(
    "max_size",
    [
        pytest.param(1, id="waiting"),
        pytest.param(2, id="connecting"),
    ],
)
async def test_a_second_event_loop_is_told_to_make_its_own_pool(max_size):
    server = FakeServer()
    pool = make_pool(server, max_size=max_size, name="web")
    async with pool.borrow():
        with pytest.raises(RuntimeError, match="'web' belongs to another event loop"):
            await in_another_loop(lend(pool, timeout=30.0))

        assert 1 == server.connects
        assert 0 == pool.statistics().waiting

    await pool.close()


@pytest.mark.parametrize("check_after", [0.0, 30.0, float("inf")])
async def test_a_second_event_loop_is_not_lent_the_first_ones_sessions(check_after):
    pool = make_pool(FakeServer(), check_after=check_after)
    await lend(pool)

    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        await in_another_loop(lend(pool))

    await pool.close()


@pytest.mark.parametrize(
    "method",
    [
        "close",
        pytest.param("check"),
    ],
)
async def test_a_second_event_loop_cannot_work_on_the_pool(method):
    pool = make_pool(FakeServer())
    await lend(pool)

    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        await in_another_loop(getattr(pool, method)())

    await pool.close()


async def in_another_loop(coroutine):
    """Run a coroutine in a loop in another thread, while this loop goes on."""
    # The guard is short: a wait for something in this loop may last for ever.
    return await asyncio.to_thread(asyncio.run, asyncio.wait_for(coroutine, 2.0))


@pytest.mark.parametrize("check_after", [0.0, 30.0, float("inf")])
def test_the_idle_sessions_of_a_closed_event_loop_are_not_lent(check_after):
    server = FakeServer()
    pool = make_pool(server, check_after=check_after)
    pool._engine.clock = count().__next__  # a second later, each time
    first = asyncio.run(lend(pool))

    second = asyncio.run(lend_and_close(pool))

    assert (1, 2) == (first, second)
    assert () == server.sessions
    assert [] == server.mistakes


def test_what_was_borrowed_in_a_closed_event_loop_takes_no_place():
    server = FakeServer()
    pool = make_pool(server)

    lease = pool.borrow()
    session = asyncio.run(lease.__aenter__())

    assert 2 == asyncio.run(lend_and_close(pool))
    assert not session.alive
    assert () == server.sessions


def test_the_tasks_of_a_closed_event_loop_are_forgotten():
    server = FakeServer()
    pool = make_pool(server)
    server.hang("connect")

    async def give_up():
        with pytest.raises(PoolTimeout):
            await lend(pool, timeout=0.0)
        await asyncio.get_running_loop().create_task(asyncio.sleep(0))

    asyncio.run(give_up())
    server.release("connect")
    number = asyncio.run(lend_and_close(pool))

    assert server.connects == number
    assert () == server.sessions


def test_the_waiters_of_a_closed_event_loop_are_forgotten(monkeypatch):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    leave_a_waiter_to_a_closed_loop()
    gc.collect()

    assert [] == complaints


def leave_a_waiter_to_a_closed_loop():
    pool = make_pool(FakeServer())

    async def exhaust():
        await pool.borrow().__aenter__()
        waiting = asyncio.ensure_future(lend(pool, timeout=5.0))
        await asyncio.get_running_loop().quiet()
        waiting._log_destroy_pending = False  # asyncio is not to warn: it is meant so

    async def outlive():
        pool._engine.clock = asyncio.get_running_loop().time
        await lend(pool)
        await asyncio.sleep(10.0)
        await pool.close()

    loop = JumpingLoop()
    loop.run_until_complete(exhaust())
    loop.close()
    run_jumping(outlive())


def test_a_pool_may_be_opened_in_one_event_loop_after_the_other():
    server = FakeServer()
    pool = make_pool(server)

    async def use():
        async with pool:
            return await lend(pool)

    assert [1, 2, 3] == [asyncio.run(use()) for _ in range(3)]


# --- what is left behind --------------------------------------------------------------


@with_tasks
@pytest.mark.parametrize("operation", ["connect", "check", "reset", "close"])
async def test_no_task_is_left_after_close_whatever_hangs(world, operation):
    pool = await world.open_pool(min_size=1, max_size=2, check_after=10.0)
    world.server.hang(operation)
    held = await world.borrow(pool)
    held.session.dirty = True
    await held.give_back()
    with pytest.raises(PoolTimeout):
        await world.borrow(pool, timeout=0.0)
    await world.sleep(15.0)

    await pool.close(timeout=1.0)

    assert [] == world.left_over()


@with_tasks
async def test_close_does_not_wait_for_connects(world):
    world.server.hang("connect")
    pool = world.pool(min_size=3, max_size=3)
    await pool.open()
    await world.quiet()

    await pool.close()

    assert 0.0 == world.now


@with_tasks
async def test_background_tasks_have_names(world):
    world.server.hang("connect")
    pool = world.pool()
    await pool.open()

    assert ["edgepool-connect"] == [task.get_name() for task in world.left_over()]

    await world.quiet()


# --- many -----------------------------------------------------------------------------


@with_tasks
async def test_ten_thousand_waiters_time_out_in_order_with_one_timer(
    world, monkeypatch
):
    loop = asyncio.get_running_loop()
    timers, order = [], []
    call_at = loop.call_at

    def recorded(when, callback, *arguments, **named):
        timers.append(call_at(when, callback, *arguments, **named))
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", recorded)
    pool = await world.open_pool()
    held = await world.borrow(pool)

    async def wait_in_vain(timeout):
        try:
            await lend(pool, timeout)
        except PoolTimeout:
            order.append(loop.time())

    # Half of them at the same moment; the other half one after the other.
    timeouts = [60.0 + (n % 2) * n / 100 for n in range(10_000)]
    Random(1).shuffle(timeouts)
    waiting = [loop.create_task(wait_in_vain(timeout)) for timeout in timeouts]
    await world.quiet()

    assert 10_000 == pool.statistics().waiting
    assert 1 == sum(not timer.cancelled() for timer in timers)

    await asyncio.wait(waiting)

    assert pytest.approx(sorted(timeouts)) == order
    assert 0 == pool.statistics().waiting

    await held.give_back()


@with_tasks
async def test_ten_thousand_waiters_are_served_in_order(world):
    pool = await world.open_pool(min_size=4, max_size=4)
    order = []

    async def take_a_turn(number):
        async with pool.borrow():
            order.append(number)
            await asyncio.sleep(0.001)

    await asyncio.wait([asyncio.ensure_future(take_a_turn(n)) for n in range(10_000)])

    assert list(range(10_000)) == order


@with_tasks
async def test_who_was_served_leaves_nothing_behind(world):
    def waiters():
        gc.collect()
        return [each for each in gc.get_objects() if type(each) is Waiter]

    pool = await world.open_pool(timeout=3600.0)
    before = len(waiters())

    await asyncio.wait([asyncio.ensure_future(lend(pool)) for _ in range(1000)])

    assert before == len(waiters())


async def traffic(seconds, seed):
    """Simulate a service with crowds, cancellations and outages; return what happened.

    Returns the number of borrows, the server's log and the pool's statistics.
    """
    loop = asyncio.get_running_loop()
    dice = Random(seed)
    server = FakeServer(clock=loop.time, connect_delay=0.02)
    ages = {"check_after": 5.0, "max_idle": 30.0, "max_lifetime": 300.0}
    pool = make_pool(server, min_size=2, max_size=8, **ages)
    pool._engine.clock = loop.time
    lent_to = {}
    borrows = 0

    async def request():
        nonlocal borrows
        try:
            async with pool.borrow(timeout=2.0) as session:
                assert lent_to.setdefault(session, request) is request
                borrows += 1
                session.dirty = dice.random() < 0.1
                try:
                    await asyncio.sleep(dice.expovariate(20.0))
                finally:
                    del lent_to[session]
        except PoolTimeout:
            pass

    async def cut_short():
        task = asyncio.ensure_future(request())
        await asyncio.wait([task], timeout=dice.expovariate(10.0))
        task.cancel()

    async def outages():
        while True:
            await asyncio.sleep(dice.expovariate(1 / 300))
            server.down()
            await asyncio.sleep(dice.expovariate(1 / 20))
            server.up()

    async with pool:
        tasks = {asyncio.ensure_future(outages())}
        while loop.time() < seconds:
            await asyncio.sleep(dice.expovariate(30.0))
            kind = cut_short if dice.random() < 0.02 else request
            tasks.add(asyncio.ensure_future(kind()))
            tasks = {task for task in tasks if not task.done()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    assert () == server.sessions
    assert [] == server.mistakes
    assert server.peak <= 8
    return borrows, server.log, pool.statistics()


def simulate(monkeypatch, seconds, seed):
    monkeypatch.setattr(_face, "random", Random(seed).random)
    return run_jumping(traffic(seconds, seed))


def test_an_hour_of_traffic_loses_nothing(monkeypatch):
    borrows, _, statistics = simulate(monkeypatch, 3600.0, seed=7)

    assert borrows > 95_000
    assert borrows == statistics.requests - statistics.requests_errors


def test_the_same_traffic_is_the_same_twice(monkeypatch):
    once = simulate(monkeypatch, 600.0, seed=8)

    assert once == simulate(monkeypatch, 600.0, seed=8)
