"""The server goes away under load, and comes back: who notices, and for how long."""

from __future__ import annotations

import gc
import socket
import threading
import time

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from support.parity import (
    borrowed,
    entered,
    eventually,
    fetch,
    lend,
    overlapping,
    pid,
    result,
    spawn,
)
from support.pg import at_rest, beside, borrow_error, load, more, sessions_of, size
from support.pg_proxy import Proxy

# Far less than what it would take without a deadline, far more than what it takes.
GUARD = 5.0
# Promised: at most 60 ms, on a quiet machine.
AT_ONCE = 1.0

WORKERS = 16


def waiting(pool):
    return pool.get_stats()["requests_waiting"]


def connect_errors(pool):
    return pool.get_stats().get("connections_errors", 0)


def down(server, way):
    if way == "kill":
        server.kill()
    else:
        server.stop(way)


@pytest.mark.parametrize("way", ["fast", "immediate", "kill"])
async def test_an_outage_under_load_fails_only_what_was_in_flight(
    colour, own_server, way
):
    server = own_server()
    conninfo = server.conninfo_for(application_name="pool")
    async with (
        colour.pool(conninfo, min_size=4) as pool,
        load(pool, WORKERS, hold=0.001) as busy,
    ):
        await more(busy, 100)

        assert [] == busy.errors

        await beside(down, server, way)
        # All wait instead of failing, for as long as it takes.
        await eventually(lambda: waiting(pool) == WORKERS)
        await eventually(lambda: connect_errors(pool) >= 5)
        in_flight = list(busy.errors)
        done = busy.done

        assert waiting(pool) == WORKERS

        await beside(server.start)
        await eventually(lambda: busy.done > done, within=AT_ONCE)
        await more(busy, 200)

        assert len(in_flight) <= 4
        assert all(isinstance(error, psycopg.OperationalError) for error in in_flight)
        # Not one request failed from then on, nor while there was no server.
        assert in_flight == busy.errors

    await eventually(lambda: sessions_of(server, "pool") == 0)


@pytest.mark.parametrize("way", ["fast", "kill"])
async def test_an_outage_that_nobody_noticed_costs_nobody_an_error(
    colour, own_server, way
):
    server = own_server()
    async with colour.pool(server.conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        await beside(down, server, way)
        await beside(server.start)
        borrowers = [spawn(lend, pool) for _ in range(8)]

        assert all([await borrower for borrower in borrowers])

        await at_rest(pool, 4)


async def test_the_pool_may_open_before_the_server(colour, own_server):
    server = own_server()
    server.stop()
    async with colour.pool(server.conninfo, min_size=3) as pool:
        await eventually(lambda: connect_errors(pool) >= 3)
        served = spawn(lend, pool)
        await eventually(lambda: waiting(pool) == 1)
        await beside(server.start)

        assert await served

        await at_rest(pool, 3)


# --- no stampede ----------------------------------------------------------------------

# Twenty a second are asked for by whoever arrives; the first come faster, as the delay
# between two is a share of the outage's age.
A_SECOND, AT_FIRST = 20, 45


@pytest.mark.parametrize("timeout", [30.0, 0.02], ids=["patient", "impatient"])
async def test_an_outage_is_no_occasion_for_a_stampede(colour, own_server, timeout):
    server = own_server()
    proxy = Proxy(server.conninfo)
    try:
        async with colour.pool(
            proxy.conninfo(), min_size=4, max_size=8, timeout=timeout
        ) as pool:
            await at_rest(pool, 4)
            await beside(server.stop)
            await eventually(lambda: proxy.links == 0)
            started, before = time.monotonic(), proxy.connects
            async with load(pool, 32) as busy:
                await eventually(lambda: connect_errors(pool) >= 15)
                if timeout < 1:
                    await eventually(lambda: len(busy.errors) >= 500)
                lasted = time.monotonic() - started
                attempts = proxy.connects - before

                assert 15 <= attempts <= AT_FIRST + A_SECOND * lasted

                await beside(server.start)
                await more(busy, 100)
                recovering = proxy.connects - before - attempts

            # Some more attempts while it started, one that found it, and the others
            # that the pool had room for.
            assert recovering <= 8 + AT_FIRST
            assert {"PoolTimeout"} >= set(busy.kinds())
    finally:
        proxy.close()


async def test_while_connecting_fails_there_is_one_attempt_at_a_time(
    colour, own_server
):
    server = own_server()
    server.stop()
    peak, Slow = overlapping(colour)

    async with colour.pool(
        server.conninfo, min_size=0, max_size=8, connection_class=Slow
    ) as pool:
        first = spawn(lend, pool)
        # Alone, so that there is one attempt at a time from the beginning.
        await eventually(lambda: connect_errors(pool) >= 1)
        others = [spawn(lend, pool) for _ in range(7)]
        await eventually(lambda: connect_errors(pool) >= 6)

        assert peak() == 1

        await beside(server.start)
        for waiter in [first, *others]:
            assert await waiter


# --- a server that refuses ------------------------------------------------------------


async def test_a_server_that_refuses_does_not_outlast_the_timeout(colour, own_server):
    server = own_server()
    server.stop()
    async with colour.pool(server.conninfo, min_size=2) as pool:
        error, took = await borrow_error(pool, 0.3)

    assert type(error).__name__ == "PoolTimeout"
    assert 0.3 <= took < GUARD
    assert isinstance(error.__cause__, psycopg.OperationalError)
    assert "refused" in str(error.__cause__)


async def test_the_pools_own_timeout_is_honoured_likewise(colour, own_server):
    server = own_server()
    server.stop()
    async with colour.pool(server.conninfo, min_size=1, timeout=0.3) as pool:
        started = time.monotonic()
        with pytest.raises(PoolTimeout):
            async with entered(pool.connection()):
                pass

        assert 0.3 <= time.monotonic() - started < GUARD


async def test_waiting_for_a_pool_without_server_says_why(colour, own_server):
    server = own_server()
    server.stop()
    pool = colour.Pool(server.conninfo, min_size=1, open=False)
    await result(pool.open())
    started = time.monotonic()
    with pytest.raises(PoolTimeout) as caught:
        await result(pool.wait(timeout=0.3))

    assert 0.3 <= time.monotonic() - started < GUARD
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert pool.closed


# --- the numbers of a timeout ---------------------------------------------------------


async def test_a_timeout_tells_that_all_are_in_use(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=2, max_size=3) as pool,
        borrowed(pool, 3),
    ):
        another = spawn(borrow_error, pool, 1.0)
        await eventually(lambda: waiting(pool) == 1)
        error, _ = await borrow_error(pool, 0.1)
        await another

    assert (3, 3, 0, 0) == (error.size, error.in_use, error.idle, error.opening)
    assert error.waiting == 1
    assert 0.1 <= error.waited < GUARD
    # Nothing is wrong with the server.
    assert error.__cause__ is None

    text = str(error)

    assert "size 3 of 3: 3 in use, 0 idle, 0 opening; 1 waiting" in text
    assert f"waited {error.waited:.2f} s" in text
    assert repr(pool.name) in text


async def test_a_timeout_tells_that_the_server_does_not_answer(colour, own_server):
    server = own_server()
    async with colour.pool(server.conninfo, min_size=1, max_size=2) as pool:
        async with borrowed(pool, 1):
            server.freeze()
            error, took = await borrow_error(pool, 0.2)

        assert (2, 1, 0, 1) == (error.size, error.in_use, error.idle, error.opening)
        assert took < GUARD
        assert "1 opening" in str(error)

        server.thaw()
        await at_rest(pool, 2)


# --- a server that hangs --------------------------------------------------------------


async def test_a_connect_that_hangs_does_not_outlast_the_timeout(colour, own_server):
    server = own_server()
    server.freeze()
    async with colour.pool(server.conninfo, min_size=0, max_size=4) as pool:
        borrowers = [spawn(borrow_error, pool, 0.3) for _ in range(8)]
        outcomes = [await borrower for borrower in borrowers]

        assert all(isinstance(error, PoolTimeout) for error, _ in outcomes)
        assert all(0.3 <= took < GUARD for _, took in outcomes)

        served = spawn(lend, pool)
        await eventually(lambda: waiting(pool) == 1)
        server.thaw()

        assert await served


async def test_connects_that_are_cut_while_they_hang_are_tried_again(colour, proxy):
    proxy.black_hole()
    async with colour.pool(proxy.conninfo(), min_size=2) as pool:
        await eventually(lambda: proxy.links == 2)
        served = spawn(lend, pool)
        await eventually(lambda: waiting(pool) == 1)
        proxy.cut()
        proxy.restore()

        assert await served

        await at_rest(pool, 2)


async def test_a_configure_that_hangs_does_not_outlast_the_timeout(colour, conninfo):
    """The connection is the pool's affair: it goes on, and serves who comes later."""
    go_on = threading.Event()

    async def configure(conn):
        await eventually(go_on.is_set)

    async with colour.pool(
        conninfo, min_size=1, configure=colour.callback(configure)
    ) as pool:
        error, took = await borrow_error(pool, 0.2)

        assert type(error).__name__ == "PoolTimeout"
        assert 0.2 <= took < GUARD
        assert (error.size, error.opening) == (1, 1)

        go_on.set()

        assert await lend(pool)
        assert pool.get_stats()["connections_num"] == 1


async def test_a_pool_closes_though_a_connect_hangs(colour, own_server):
    server = own_server()
    conninfo = server.conninfo_for(application_name="pool")
    async with colour.pool(conninfo, min_size=1, max_size=2) as pool:
        await at_rest(pool, 1)
        server.freeze()
        async with borrowed(pool, 1):
            await borrow_error(pool, 0.05)
        started = time.monotonic()
        await result(pool.close(timeout=0.2))

        assert time.monotonic() - started < GUARD
        assert size(pool) == 0

    server.thaw()
    # What was still connecting is closed when it is there.
    await eventually(lambda: sessions_of(server, "pool") == 0)


class Silent:
    """Something that takes connections and never says a word."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(GUARD)
        port = self._listener.getsockname()[1]
        self.conninfo = f"host=127.0.0.1 port={port} user=x sslmode=disable"

    def accept(self):
        client, _ = self._listener.accept()
        client.settimeout(GUARD)
        return client

    def close(self):
        self._listener.close()


@pytest.fixture
def silent():
    listening = Silent()
    # What is not closed before the collector comes is not closed in time.
    gc.disable()
    yield listening
    gc.enable()
    listening.close()


def until_hung_up(client):
    """Read what the other side has said, to its end; it has to come in time."""
    with client:
        while client.recv(1024):
            pass


async def test_a_connect_that_timed_out_is_not_left_half_open(colour, silent):
    """The server may let it in yet: there would be one session too many."""
    conninfo = f"{silent.conninfo} connect_timeout=2"
    async with colour.pool(conninfo, min_size=1, max_size=1) as pool:
        client = await beside(silent.accept)
        await eventually(lambda: connect_errors(pool) >= 1)
        await beside(until_hung_up, client)


async def test_a_connect_that_a_close_cuts_short_is_not_left_half_open(colour, silent):
    conninfo = f"{silent.conninfo} connect_timeout=2"
    async with colour.pool(conninfo, min_size=1) as pool:
        client = await beside(silent.accept)
        await result(pool.close(timeout=0.1))
        await beside(until_hung_up, client)


# --- a server that is not ready -------------------------------------------------------


async def test_who_comes_while_the_server_starts_up_waits_for_it(colour, own_server):
    server = own_server()
    conninfo = server.conninfo
    server.stop()
    go = server.directory / "go"
    # It looks for an archive before it does anything else, and has to wait for that.
    signal = server.directory / "data" / "recovery.signal"
    signal.touch()
    signal.chmod(0o666)
    server.settings["restore_command"] = (
        f"while ! test -e {go}; do sleep 0.01; done; false"
    )
    async with colour.pool(conninfo, min_size=1) as pool:
        starting = spawn(beside, server.start)
        try:
            await eventually(lambda: starting_up(conninfo))
            error, _ = await borrow_error(pool, 0.1)

            assert "starting up" in str(error.__cause__)

            served = spawn(lend, pool)
            await eventually(lambda: waiting(pool) == 1)
        finally:
            go.touch()
        await starting

        assert await served


def starting_up(conninfo):
    try:
        psycopg.connect(conninfo).close()
    except psycopg.OperationalError as error:
        return "starting up" in str(error)
    return False


async def test_who_comes_while_the_server_is_full_waits_for_a_place(colour, own_server):
    server = own_server(
        settings={"max_connections": 5, "superuser_reserved_connections": 0}
    )
    others = [psycopg.connect(server.conninfo) for _ in range(5)]
    try:
        async with colour.pool(server.conninfo, min_size=1, max_size=3) as pool:
            error, took = await borrow_error(pool, 0.2)

            assert type(error).__name__ == "PoolTimeout"
            assert 0.2 <= took < GUARD
            assert "too many clients" in str(error.__cause__)

            served = spawn(lend, pool)
            await eventually(lambda: waiting(pool) == 1)
            others.pop().close()

            assert await served
    finally:
        for other in others:
            other.close()


async def test_a_full_server_leaves_the_pool_with_what_it_has(colour, own_server):
    server = own_server(
        settings={"max_connections": 5, "superuser_reserved_connections": 0}
    )
    async with colour.pool(server.conninfo, min_size=1, max_size=3) as pool:
        mine = await lend(pool)
        others = [psycopg.connect(server.conninfo) for _ in range(4)]
        try:
            async with entered(pool.connection()) as conn:
                waiters = [spawn(lend, pool) for _ in range(4)]
                await eventually(lambda: waiting(pool) == 4)
                await eventually(lambda: connect_errors(pool) >= 2)

                assert pid(conn) == mine
                assert await fetch(conn, "select 1") == 1

            assert [mine] * 4 == [await waiter for waiter in waiters]
        finally:
            for other in others:
                other.close()
        async with borrowed(pool, 3):
            pass
