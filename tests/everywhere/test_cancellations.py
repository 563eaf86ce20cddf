"""Thousands of cancellations at random moments, by all means there are.

By hand, by asyncio's timeouts, by anyio's scopes and task groups; with asyncio's own
event loop and with uvloop. After each storm the pool has all that it had, and a task
that was cancelled has ended cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from random import Random

import anyio
import pytest

from edgepool import AsyncPool, PoolTimeout
from edgepool.testing import AsyncFakeAdapter, FakeServer
from support.loops import LOOPS, run_in
from support.rounds import rounds

# Seconds that an operation takes at most; a cancellation comes within twice of that.
BRIEF = 0.002


class Storm:
    """A pool, those who use it, and those who cancel them."""

    def __init__(self, dice):
        self.dice = dice
        self.server = FakeServer()
        self.pool = AsyncPool(
            AsyncFakeAdapter(self.server),
            min_size=dice.randint(0, 2),
            max_size=dice.randint(2, 4),
            check_after=dice.choice([0.0, BRIEF, float("inf")]),
            max_lifetime=dice.choice([0.05, 60.0]),
            timeout=dice.choice([BRIEF, 30.0]),
        )
        self.lent_to = {}
        self.served = 0

    async def use(self):
        """Borrow, and look whether a cancellation arrives as one."""
        me = asyncio.current_task()
        try:
            async with self.pool.borrow() as session:
                assert me is self.lent_to.setdefault(session, me)

                self.served += 1
                session.dirty = self.dice.random() < 0.3
                try:
                    await asyncio.sleep(self.dice.random() * BRIEF)
                finally:
                    del self.lent_to[session]
        except PoolTimeout:
            pass

    async def by_hand(self):
        task = asyncio.ensure_future(self.use())
        await asyncio.sleep(self.dice.random() * BRIEF * 2)
        cancelled = task.cancel()
        await asyncio.wait([task])

        # It was cancelled before it had ended, so it has to end so.
        assert task.cancelled() or not cancelled
        assert cancelled or task.exception() is None

    async def by_wait_for(self):
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.use(), self.dice.random() * BRIEF * 2)

    async def by_timeout(self):
        try:
            async with asyncio.timeout(self.dice.random() * BRIEF * 2):
                await self.use()
        except asyncio.TimeoutError:
            pass

        assert 0 == asyncio.current_task().cancelling()

    async def by_move_on_after(self):
        with anyio.move_on_after(self.dice.random() * BRIEF * 2):
            await self.use()
            return

    async def by_fail_after(self):
        try:
            with anyio.fail_after(self.dice.random() * BRIEF * 2):
                await self.use()
        except TimeoutError:
            pass

    async def by_task_group(self):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(self.use)
            await anyio.sleep(self.dice.random() * BRIEF * 2)
            group.cancel_scope.cancel()

    async def disturb(self):
        while True:
            await asyncio.sleep(self.dice.random() * BRIEF * 5)
            kind = self.dice.randrange(4)
            if kind == 0:
                await self.pool.drain()
            elif kind == 1:
                self.server.kill(*self.server.sessions[:1])
            elif kind == 2:
                await self.pool.check()
            for operation in ("connect", "check", "reset", "close"):
                delay = self.dice.choice([0.0, self.dice.random() * BRIEF])
                self.server.delay(operation, delay)

    async def rage(self, number):
        await self.pool.open()
        kinds = [
            self.use,
            self.by_hand,
            self.by_wait_for,
            self.by_move_on_after,
            self.by_fail_after,
            self.by_task_group,
        ]
        if sys.version_info >= (3, 11):
            kinds.append(self.by_timeout)
        disturber = asyncio.ensure_future(self.disturb())
        left = number

        async def work():
            nonlocal left
            while left > 0:
                left -= 1
                await self.dice.choice(kinds)()

        await asyncio.gather(*[work() for _ in range(12)])
        disturber.cancel()
        await asyncio.wait([disturber])

        assert disturber.cancelled()

    async def calm(self):
        """Assert that nothing is lost."""
        for operation in ("connect", "check", "reset", "close"):
            self.server.delay(operation, 0.0)
        self.pool.max_lifetime = self.pool.timeout = 60.0
        await self.pool.drain()
        await self.at_rest()
        leases = [self.pool.borrow(30.0) for _ in range(self.pool.max_size)]
        sessions = {await lease.__aenter__() for lease in leases}

        assert self.pool.max_size == len(sessions)

        for lease in leases:
            await lease.__aexit__()
        await self.at_rest()

        assert self.pool.statistics().size == len(self.server.sessions)
        assert self.server.peak <= self.pool.max_size

        await self.pool.close()

        assert () == self.server.sessions
        assert [] == self.server.mistakes
        assert {} == self.lent_to
        assert self.served > 0

    async def at_rest(self):
        for _ in range(10_000):
            s = self.pool.statistics()
            if s.waiting == s.in_use == 0 and s.size == s.idle:
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"no rest: {self.pool.statistics()}")


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_nothing_is_lost_in_a_storm_of_cancellations(new_loop):
    async def storm(seed):
        storm = Storm(Random(seed))
        await storm.rage(500)
        await storm.calm()

    for seed in range(rounds(10)):
        run_in(new_loop, storm(seed))
