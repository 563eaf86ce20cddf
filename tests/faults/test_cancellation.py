"""A cancellation wherever a coroutine suspends: nothing is lost, nobody is forgotten.

Each scenario is run with a cancellation at its first suspension, then at its second,
and so on until it ends by itself: with a fake server in virtual time, and with a real
one. Random cancellations by the thousand are in tests/everywhere/test_cancellations.py.
"""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest

from edgepool import AsyncConnectionPool, AsyncPool, PoolTimeout
from edgepool._drivers import base
from edgepool.testing import AsyncFakeAdapter, FakeServer, run_jumping
from support.cancel import at_every_suspension
from support.conservation import conserved
from support.pg import application_name

NEVER = float("inf")


# --- a fake server, in virtual time ---------------------------------------------------


class Stage:
    """A pool on a fake server of which every operation takes a second."""

    def __init__(self, **settings):
        loop = asyncio.get_running_loop()
        self.server = FakeServer(clock=loop.time)
        settings = {"min_size": 1, "max_size": 2, "check_after": NEVER} | settings
        settings = {"nested": "wait"} | settings
        self.pool = AsyncPool(AsyncFakeAdapter(self.server), **settings)

    async def ready(self, **delays):
        await self.pool.open(wait=True)
        for operation in ("connect", "check", "reset", "close"):
            self.server.delay(operation, 1.0)
        return self

    async def end(self):
        """Assert that nothing is lost; then that the pool can be closed."""
        await asyncio.sleep(10.0)
        s = self.pool.statistics()

        assert (0, 0, s.size) == (s.waiting, s.in_use, s.idle)

        leases = [self.pool.borrow(60.0) for _ in range(self.pool.max_size)]
        for lease in leases:
            await lease.__aenter__()
        for lease in leases:
            await lease.__aexit__()
        await asyncio.sleep(10.0)

        assert self.pool.statistics().size == len(self.server.sessions)
        assert self.server.peak <= self.pool.max_size

        await self.pool.close(60.0)

        assert () == self.server.sessions
        assert [] == self.server.mistakes
        assert [asyncio.current_task()] == list(asyncio.all_tasks())


async def lend(pool, timeout=60.0, dirty=False):
    async with pool.borrow(timeout) as session:
        await asyncio.sleep(0.1)
        session.dirty = dirty


async def idle(drive):
    stage = await Stage().ready()
    await drive(lend(stage.pool))
    await stage.end()


async def dirty(drive):
    stage = await Stage().ready()
    await drive(lend(stage.pool, dirty=True))
    await stage.end()


async def connecting(drive):
    stage = await Stage(min_size=0).ready()
    await drive(lend(stage.pool))
    await stage.end()


async def waiting(drive):
    stage = await Stage(max_size=1).ready()
    other = asyncio.ensure_future(lend(stage.pool))
    await asyncio.sleep(0.05)
    behind = []

    async def who_comes_later():
        await asyncio.sleep(0.01)
        await lend(stage.pool)
        behind.append("served")

    later = asyncio.ensure_future(who_comes_later())
    await drive(lend(stage.pool))
    await asyncio.wait([other, later])

    assert ["served"] == behind

    await stage.end()


async def timing_out(drive):
    stage = await Stage(max_size=1).ready()
    async with stage.pool.borrow():

        async def in_vain():
            with pytest.raises(PoolTimeout):
                await lend(stage.pool, timeout=1.0)

        await drive(in_vain())
    await stage.end()


async def checked(drive):
    stage = await Stage(check_after=0.0).ready()
    await drive(lend(stage.pool))
    await stage.end()


async def check_fails(drive):
    stage = await Stage(check_after=0.0).ready()
    stage.server.fail("check", ConnectionResetError("it is dead"))
    await drive(lend(stage.pool))
    await stage.end()


async def check_hangs(drive):
    stage = await Stage(check_after=0.0).ready()
    stage.server.hang("check")

    async def in_vain():
        with pytest.raises(PoolTimeout):
            await lend(stage.pool, timeout=1.0)

    await drive(in_vain())
    stage.server.release("check")
    await stage.end()


async def dead(drive):
    stage = await Stage(min_size=2).ready()
    stage.server.kill()
    await asyncio.sleep(1.0)
    await drive(lend(stage.pool))
    await stage.end()


async def outage(drive):
    stage = await Stage().ready()
    stage.server.down()
    asyncio.get_running_loop().call_later(5.0, stage.server.up)
    await asyncio.sleep(1.0)
    await drive(lend(stage.pool))
    await stage.end()


async def ready(drive):
    stage = Stage(min_size=2)
    stage.server.delay("connect", 1.0)
    await stage.pool.open()
    await drive(stage.pool.wait(60.0))
    await stage.end()


async def opening(drive):
    stage = Stage(min_size=2)
    stage.server.delay("connect", 1.0)
    await drive(stage.pool.open(wait=True, timeout=60.0))
    await stage.end()


async def opening_in_vain(drive):
    stage = Stage()
    stage.server.down()

    async def in_vain():
        with pytest.raises(PoolTimeout):
            await stage.pool.open(wait=True, timeout=3.0)

    await drive(in_vain())
    stage.server.up()
    await stage.pool.close()
    await stage.pool.open(wait=True)
    await stage.end()


async def closing(drive):
    stage = await Stage().ready()
    other = asyncio.ensure_future(lend(stage.pool))
    await asyncio.sleep(0.05)
    await drive(stage.pool.close(60.0))
    await asyncio.wait([other])
    await stage.pool.close(60.0)

    assert () == stage.server.sessions

    await stage.pool.open()
    await stage.end()


async def draining(drive):
    stage = await Stage().ready()
    await drive(stage.pool.drain())
    await stage.end()


async def checking_all(drive):
    stage = await Stage(min_size=2).ready()
    await drive(stage.pool.check())
    await stage.end()


SCENARIOS = {
    # What, and how often it suspends at least.
    idle: 1,
    dirty: 1,
    connecting: 2,
    waiting: 2,
    timing_out: 1,
    checked: 2,
    check_fails: 3,
    check_hangs: 2,
    dead: 2,
    outage: 2,
    ready: 1,
    opening: 1,
    opening_in_vain: 1,
    closing: 1,
    draining: 0,
    checking_all: 2,
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_cancellation_loses_nothing_wherever_it_comes(scenario, monkeypatch):
    async def in_virtual_time():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(base, "monotonic", loop.time)
        return await at_every_suspension(scenario)

    assert run_jumping(in_virtual_time()) >= SCENARIOS[scenario]


def test_what_is_handed_to_a_cancelled_waiter_goes_to_the_next(monkeypatch):
    async def scenario():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(base, "monotonic", loop.time)
        stage = await Stage(max_size=1).ready()
        lease = stage.pool.borrow()
        await lease.__aenter__()
        queue = [asyncio.ensure_future(lend(stage.pool)) for _ in range(5)]
        await loop.quiet()

        await lease.__aexit__()  # the first is served, and has not had its turn
        for waiter in queue[:4]:
            waiter.cancel()
        await asyncio.wait(queue)

        assert [True] * 4 + [False] == [waiter.cancelled() for waiter in queue]
        assert 0.1 == pytest.approx(loop.time(), abs=0.01)

        await stage.end()

    run_jumping(scenario())


# --- a real server --------------------------------------------------------------------


async def use(pool, query, *, fails=False):
    async with pool.connection(30.0) as conn:
        await conn.execute(query)
        if fails:
            raise ZeroDivisionError


async def real_idle(pool, sessions):
    await use(pool, "select 1")


async def wait_with(pool, work):
    """Have something wait for a connection, for as long as there is none."""
    async with pool.connection(), pool.connection() as conn:
        waiting = asyncio.ensure_future(work())
        await conn.execute("select pg_sleep(0.002)")
    try:
        await waiting
    finally:
        await asyncio.wait([waiting])


async def real_wait(pool, sessions):
    await wait_with(pool, lambda: use(pool, "select 1"))


async def real_rollback(pool, sessions):
    with contextlib.suppress(ZeroDivisionError):
        await use(pool, "create temporary table t (n int)", fails=True)


async def real_getconn(pool, sessions):
    conn = await pool.getconn()
    try:
        await conn.execute("select pg_sleep(0.002)")
    finally:
        await pool.putconn(conn)


async def real_close_returns(pool, sessions):
    pool.close_returns = True
    await pool.drain()  # whether its close returns is known to a connection from birth
    conn = await pool.getconn()
    try:
        await conn.execute("select 1")
    finally:
        await conn.close()


async def real_check(pool, sessions):
    await pool.check()


async def real_drain(pool, sessions):
    await pool.drain()
    await use(pool, "select 1")


async def real_dead(pool, sessions):
    async with pool.connection() as first, pool.connection() as second:
        await first.execute("select 1")
        sessions.terminate(second.info.backend_pid)
        await first.execute("select 2")
    await use(pool, "select 1")


async def real_lazy(pool, sessions):
    lease = pool.connection(lazy=True)
    async with lease as conn:
        async with conn.transaction():
            await conn.execute("select 1")
        async with lease.released():
            await asyncio.sleep(0)
        await conn.execute("select 2")


async def real_lazy_wait(pool, sessions):
    await wait_with(pool, lambda: real_lazy(pool, sessions))


async def real_lazy_after_a_wait(pool, sessions):
    async with pool.connection(lazy=True) as conn:
        others = [asyncio.ensure_future(use(pool, "select 1")) for _ in range(3)]
        try:
            await conn.execute("select 1")
            await conn.commit()
        finally:
            await asyncio.wait(others)


async def real_one_shot(pool, sessions):
    await pool.fetch_value("select %s", [1])


@pytest.mark.parametrize(
    "act",
    [
        real_idle,
        real_wait,
        real_rollback,
        real_getconn,
        real_close_returns,
        real_check,
        real_drain,
        real_dead,
        real_lazy,
        real_lazy_wait,
        real_lazy_after_a_wait,
        real_one_shot,
    ],
)
@pytest.mark.parametrize("with_check", [False, True], ids=["probed", "checked"])
async def test_a_cancellation_loses_no_connection_wherever_it_comes(
    act, with_check, server, sessions, conninfo
):
    async def configure(conn):
        await conn.execute("select 'configured'")
        await conn.commit()

    check = AsyncConnectionPool.check_connection if with_check else None
    pool = AsyncConnectionPool(
        conninfo, min_size=1, max_size=2, configure=configure, check=check, open=False
    )
    async with pool:

        async def scenario(drive):
            with contextlib.suppress(psycopg.Error):
                await drive(act(pool, sessions))
            await conserved(pool, server, application_name(conninfo))

        assert await at_every_suspension(scenario) > 0


async def test_an_open_and_a_close_of_a_real_pool_may_be_cancelled(server, conninfo):
    name = application_name(conninfo)

    async def scenario(drive):
        pool = AsyncConnectionPool(conninfo, min_size=2, max_size=2, open=False)

        async def open_and_close():
            await pool.open(wait=True)
            await pool.close()

        await drive(open_and_close())
        await pool.close()
        await pool.open(wait=True)
        await conserved(pool, server, name)
        await pool.close()

    assert await at_every_suspension(scenario) > 0
