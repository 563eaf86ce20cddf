"""However the server was out: when it is back everybody is served, and nothing is lost.

In the full profile it is out for as long as the issue of real incidents is; else the
lengths are scaled down, and tests/simulation and tests/drivers have the full ones.
"""

from __future__ import annotations

import asyncio
import random
import time

import psycopg
import pytest

from edgepool import ConnectFailed, PoolTimeout
from support.conservation import conserved
from support.outages import (
    NAME,
    OF_A_ROLE,
    OF_A_SERVER,
    OF_THE_NETWORK,
    Stopped,
)
from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    execute,
    in_event_loop,
    pause,
    result,
    spawn,
)
from support.pg import beside
from support.profile import AT_ONCE, EVERY_TIMEOUT, OUTAGES, SOON

pytestmark = pytest.mark.timeout(120 + 3 * sum(OUTAGES))

CLIENTS = 50


# The simulation's figures: the delay between two attempts is a share of the outage's
# age, at least 10 ms; from its third second on 20 a second, if somebody keeps coming.
AT_FIRST, A_SECOND = 70, 21


class Client:
    """Somebody who keeps asking. Every other one has hardly any patience."""

    def __init__(self, pool, number):
        self.pool = pool
        self.patient = number % 2 == 0
        self.chance = random.Random(number)
        self.stopped = False
        self.served_at = 0.0
        self.cancelled = 0
        self.errors = []

    async def run(self):
        while not self.stopped:
            try:
                await self.ask()
            except (PoolTimeout, psycopg.OperationalError) as error:
                self.errors.append(error)
            await pause(self.chance.uniform(0.001, 0.01))

    async def ask(self):
        if self.patient:
            await self.use(None)
        elif in_event_loop():
            await self.use_or_be_cancelled()
        else:
            await self.use(self.chance.uniform(0.005, 0.3))

    async def use(self, timeout):
        async with entered(self.pool.connection(timeout)) as conn:
            await execute(conn, "select 1")
        self.served_at = time.monotonic()

    async def use_or_be_cancelled(self):
        task = asyncio.ensure_future(self.use(None))
        await asyncio.wait({task}, timeout=self.chance.uniform(0.005, 0.3))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            self.cancelled += 1


class Crowd:
    """All clients, and what became of them."""

    def __init__(self, pool):
        self.pool = pool
        self.clients = [Client(pool, number) for number in range(CLIENTS)]

    async def __aenter__(self):
        self._running = [spawn(client.run) for client in self.clients]
        return self

    async def __aexit__(self, *exc_info):
        for client in self.clients:
            client.stopped = True
        for running in self._running:
            await running

    @property
    def errors(self):
        return [error for client in self.clients for error in client.errors]

    async def all_served_since(self, moment):
        """Tell when the last of them was served for the first time since then."""
        first = {}

        def all_served():
            for client in self.clients:
                if client.served_at > moment:
                    first.setdefault(client, client.served_at)
            return len(first) == CLIENTS

        await eventually(all_served)
        return max(first.values())


def busiest_second(moments, since, until):
    """Tell how many of the moments were within one second, at most."""
    within = [moment for moment in moments if since <= moment < until]
    return max((sum(m <= n < m + 1 for n in within) for m in within), default=0)


async def pass_by(outage, length, crowd):
    """Let an outage begin and end; assert what has to be during it and after."""
    began = time.monotonic()
    await beside(outage.begin)
    await pause(length)
    ended = time.monotonic()
    await beside(outage.end)
    back = time.monotonic()
    conn = await result(crowd.pool.getconn(timeout=PATIENCE))
    took = time.monotonic() - back
    await result(crowd.pool.putconn(conn))
    last = await crowd.all_served_since(back) - back
    busiest = busiest_second(outage.moments, began, ended)
    print(
        f"{type(outage).__name__} for {length:g} s: a newcomer waited {took:.3f} s,"
        f" the last of {CLIENTS} {last:.3f} s; {busiest} connects a second"
    )

    assert took < AT_ONCE + outage.hangs
    assert last < SOON + outage.hangs
    assert busiest <= AT_FIRST
    if length > 2.0:
        assert busiest_second(outage.moments, began + 2.0, ended) <= A_SECOND


async def endure(colour, outage):
    """Let a pool live through a brief outage and a long one, under load."""
    async with colour.pool(
        **outage.arguments(colour),
        min_size=4,
        max_size=8,
        timeout=EVERY_TIMEOUT,
        reconnect_timeout=EVERY_TIMEOUT,
        max_idle=EVERY_TIMEOUT,
        max_lifetime=EVERY_TIMEOUT,
        check_after=EVERY_TIMEOUT,
    ) as pool:
        await eventually(lambda: pool.statistics().idle == 4)
        async with Crowd(pool) as crowd:
            await crowd.all_served_since(0.0)
            for length in OUTAGES:
                await pass_by(outage, length, crowd)
        told = [error for error in crowd.errors if isinstance(error, ConnectFailed)]

        assert bool(told) == outage.told
        if colour.asynchronous:
            assert sum(client.cancelled for client in crowd.clients) > 0

        await conserved(pool, outage.server, NAME)


def made(outage):
    try:
        yield outage
    finally:
        outage.close()


@pytest.fixture(params=OF_A_SERVER, ids=lambda way: way.__name__)
def outage_of_a_server(request, own_server):
    server = own_server()
    yield from made(request.param(server, server.conninfo))


@pytest.fixture(params=OF_THE_NETWORK, ids=lambda way: way.__name__)
def outage_of_the_network(request, guarded):
    yield from made(request.param(guarded, guarded.conninfo))


@pytest.fixture(params=OF_A_ROLE, ids=lambda way: way.__name__)
def outage_of_a_role(request, guarded, role):
    yield from made(request.param(guarded, role))


async def test_everybody_is_served_soon_when_the_server_is_back(
    colour, outage_of_a_server
):
    await endure(colour, outage_of_a_server)


async def test_everybody_is_served_soon_when_the_network_is_back(
    colour, outage_of_the_network
):
    await endure(colour, outage_of_the_network)


async def test_everybody_is_served_soon_when_connecting_works_again(
    colour, outage_of_a_role
):
    await endure(colour, outage_of_a_role)


# --- in the midst of something else ---------------------------------------------------


@pytest.fixture
def stopped(own_server):
    server = own_server()
    return Stopped(server, server.conninfo)


async def test_an_outage_while_all_connections_are_lent_takes_no_place(colour, stopped):
    async with colour.pool(**stopped.arguments(colour), min_size=4) as pool:
        async with borrowed(pool, 4):
            await beside(stopped.begin)
            waiting = spawn(pool.getconn)
            await eventually(lambda: pool.statistics().waiting == 1)
        # All have come back broken, and he is the first to see a connection.
        await beside(stopped.end)
        await result(pool.putconn(await waiting))

        await conserved(pool, stopped.server, NAME)


async def drain(pool):
    await result(pool.drain())


async def check(pool):
    await result(pool.check())


async def shrink_and_grow(pool):
    await result(pool.resize(0, 1))
    await result(pool.resize(4, 8))


async def close_and_open(pool):
    await result(pool.close(timeout=1.0))
    await result(pool.open())


@pytest.mark.parametrize("act", [drain, check, shrink_and_grow, close_and_open])
async def test_what_is_done_to_a_pool_in_an_outage_loses_nothing(colour, stopped, act):
    arguments = stopped.arguments(colour)
    async with colour.pool(**arguments, min_size=4, max_size=8) as pool:
        async with Crowd(pool) as crowd:
            await crowd.all_served_since(0.0)
            await beside(stopped.begin)
            await act(pool)
            await pause(OUTAGES[0])
            await act(pool)
            await beside(stopped.end)
            back = time.monotonic()

            assert await crowd.all_served_since(back) < back + SOON

        await conserved(pool, stopped.server, NAME)


async def test_an_outage_does_not_keep_a_pool_from_closing(colour, stopped):
    async with colour.pool(**stopped.arguments(colour), min_size=4) as pool:
        await eventually(lambda: pool.statistics().idle == 4)
        async with Crowd(pool):
            await beside(stopped.begin)
            await pause(OUTAGES[0])
            started = time.monotonic()
            await result(pool.close())

            assert time.monotonic() - started < AT_ONCE

        assert (0, 0) == (pool.statistics().size, pool.statistics().waiting)
