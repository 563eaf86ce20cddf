"""Five times as many requests as a pool can serve, on a real server."""

from __future__ import annotations

import time

from edgepool import PoolOverloaded
from support.conservation import conserved
from support.parity import (
    borrowed,
    entered,
    execute,
    lend,
    pause,
    result,
    spawn,
    waiter,
)
from support.pg import application_name, error_of
from support.profile import GOODPUT

SIZE = 2
WORK = "select pg_sleep(0.05)"
TARGET, INTERVAL = 0.1, 0.5
SHEDDING = {"shed_target": TARGET, "shed_interval": INTERVAL}
POOL = {"min_size": SIZE, "max_size": SIZE, "kwargs": {"autocommit": True}}

OVERLOAD = 5
SECONDS = 4.0
NOTICED = 1.0
"""After so many seconds the pool has noticed, on a busy machine too."""


class Requests:
    """Requests to one pool: when each came, was served and was done, or why not."""

    def __init__(self, pool):
        self.pool = pool
        self.done = []
        self.errors = []

    async def make(self):
        came = time.monotonic()
        try:
            async with entered(self.pool.connection()) as conn:
                served = time.monotonic()
                await execute(conn, WORK)
        except Exception as error:
            self.errors.append(error)
        else:
            self.done.append((came, served, time.monotonic()))

    async def make_until(self, end):
        while time.monotonic() < end:
            await self.make()


async def capacity_of(pool):
    """Measure how many requests per second a pool serves at most."""
    requests = Requests(pool)
    start = time.monotonic()
    workers = [spawn(requests.make_until, start + 1.5) for _ in range(SIZE)]
    for worker in workers:
        await worker

    assert [] == requests.errors

    return len(requests.done) / (time.monotonic() - start)


async def overload(pool, rate):
    """Make so many requests per second, whatever becomes of them."""
    requests = Requests(pool)
    start = time.monotonic()
    made = []
    for number in range(int(rate * SECONDS)):
        await pause(max(start + number / rate - time.monotonic(), 0.0))
        made.append(spawn(requests.make))
    end = time.monotonic()
    for request in made:
        await request
    return requests, start + NOTICED, end


async def test_at_five_times_its_capacity_a_pool_goes_on_serving_in_time(
    colour, server, conninfo
):
    async with colour.pool(conninfo, **POOL, **SHEDDING) as pool:
        await result(pool.wait())
        capacity = await capacity_of(pool)

        requests, since, until = await overload(pool, OVERLOAD * capacity)

        in_time = [
            served - came
            for came, served, done in requests.done
            if since <= done <= until and served - came <= 5 * TARGET
        ]
        waits = sorted(s - came for came, s, _ in requests.done if came >= since)
        # Without shedding none is served in time by then, and the last waits for 16 s.
        assert len(in_time) / (until - since) >= GOODPUT * capacity
        assert waits[int(0.99 * (len(waits) - 1))] <= 10 * TARGET
        assert {PoolOverloaded} == {type(error) for error in requests.errors}
        assert len(requests.errors) == pool.statistics().requests_shed

        await conserved(pool, server, application_name(conninfo))


async def test_a_burst_passes(colour, server, conninfo):
    async with colour.pool(
        conninfo, **POOL, shed_target=0.01, shed_interval=60
    ) as pool:
        requests = Requests(pool)
        for request in [spawn(requests.make) for _ in range(30)]:
            await request

        assert (30, []) == (len(requests.done), requests.errors)

        await conserved(pool, server, application_name(conninfo))


async def test_while_nothing_comes_back_all_but_the_last_are_told(
    colour, server, conninfo
):
    async with colour.pool(conninfo, **POOL, **SHEDDING) as pool:
        async with borrowed(pool, SIZE):
            waiters = [await waiter(pool) for _ in range(3)]
            for each in waiters[:2]:
                error = await error_of(each)

                assert isinstance(error, PoolOverloaded)
                assert (SIZE, 0) == (error.in_use, error.idle)

            assert not waiters[2].done()

        await result(pool.putconn(await waiters[2]))

        await conserved(pool, server, application_name(conninfo))


async def test_after_an_overload_everybody_is_served_as_before(
    colour, server, conninfo
):
    async with colour.pool(conninfo, **POOL, **SHEDDING) as pool:
        async with borrowed(pool, SIZE):
            waiters = [await waiter(pool) for _ in range(3)]
            for each in waiters[:2]:
                await error_of(each)
        await result(pool.putconn(await waiters[2]))

        for _ in range(10):
            await lend(pool)

        await conserved(pool, server, application_name(conninfo))
