"""Faults happen to a pool for as long as the test says, and are over after that."""

from __future__ import annotations

import inspect
import time

import psycopg
import pytest

import edgepool
from edgepool import Pool
from edgepool.testing import FakeAdapter, FakeServer, Faults
from support.parity import entered, execute, fetch, lend, result, spawn


@pytest.fixture
def faults(conninfo):
    with Faults(conninfo) as faults:
        yield faults


@pytest.fixture
def pool(colour, faults):
    """Make a pool whose way to the server is faulty."""

    def make(**arguments):
        arguments = {"min_size": 1, "max_size": 4, "timeout": 20, **arguments}
        return colour.pool(faults.conninfo(), **arguments)

    return make


async def test_without_a_fault_all_is_well(pool, faults):
    async with pool() as pool:
        assert await lend(pool) == await lend(pool)
    assert 1 == faults.connects


async def test_new_connections_are_refused_and_the_old_go_on(pool, faults):
    async with pool() as pool:
        await result(pool.wait())
        with faults.refuse_connections(), faults.refuse_connections():
            await lend(pool)
            async with entered(pool.connection()):
                with pytest.raises(edgepool.PoolTimeout) as late:
                    async with entered(pool.connection(0.2)):
                        pass
            assert "Connection refused" in str(late.value.__cause__)

        async with entered(pool.connection()):
            await lend(pool)


async def test_all_connections_are_lost_at_once(pool, faults):
    async with pool() as pool:
        async with entered(pool.connection()) as conn:
            faults.lose_connections()
            assert 0 == faults._proxy.links
            with pytest.raises(psycopg.OperationalError):
                await execute(conn, "select 1")
        await lend(pool)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda f: f.full(), "too many clients already"),
        (lambda f: f.restart(), "the database system is starting up"),
        (lambda f: f.reject_connections("XX000", "out of order"), "out of order"),
    ],
    ids=["full", "restart", "reject"],
)
async def test_the_server_gives_a_reason(pool, faults, fault, words):
    async with pool() as pool:
        with fault(faults):
            faults.lose_connections()
            with pytest.raises(edgepool.PoolTimeout) as late:
                async with entered(pool.connection(0.3)):
                    pass
            assert words in str(late.value.__cause__)

        await lend(pool)


async def test_a_restart_ends_sessions_with_a_farewell(pool, faults):
    async with pool() as pool, entered(pool.connection()) as conn:
        with faults.restart(), pytest.raises(psycopg.errors.AdminShutdown):
            await execute(conn, "select 1")


async def test_everything_takes_longer(pool, faults):
    async with pool() as pool, entered(pool.connection()) as conn:
        with faults.slow(0.05), faults.slow(0.05):
            started = time.monotonic()
            await fetch(conn, "select 1")
            assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize(
    ("seconds", "kind", "what"),
    [
        (-1, ValueError, "at least 0 and finite, not -1"),
        (float("inf"), ValueError, "at least 0 and finite, not inf"),
        (float("nan"), ValueError, "at least 0 and finite, not nan"),
        ("1", TypeError, "a number, not '1'"),
    ],
)
def test_so_much_longer_is_a_number_of_seconds(faults, seconds, kind, what):
    server = FakeServer()
    expected = rf"^seconds must be {what}$"

    with pytest.raises(kind, match=expected), faults.slow(seconds):
        pass
    with pytest.raises(kind, match=expected), server.slow(seconds):
        pass
    with pytest.raises(kind, match=expected):
        server.delay("check", seconds)
    with pytest.raises(kind, match=rf"^connect_delay must be {what}$"):
        FakeServer(connect_delay=seconds)


async def test_what_fell_into_a_black_hole_comes_out_of_it(pool, faults):
    async with pool() as pool, entered(pool.connection()) as conn:
        with faults.black_hole():
            asked = spawn(fetch, conn, "select 7")
            assert not asked.done()
        assert 7 == await asked


async def test_what_is_lost_in_a_black_hole_is_lost_at_its_end(pool, faults):
    async with pool() as pool:
        await result(pool.wait())
        with faults.black_hole():
            faults.lose_connections()
            assert 1 == faults._proxy.links
        assert 0 == faults._proxy.links

        await lend(pool)


def test_faults_need_one_host_to_stand_before():
    with pytest.raises(ValueError, match="one host for TCP, not '/tmp'"):
        Faults("host=/tmp dbname=x")


# --- the fake server has the same ----------------------------------------------------


def public(cls):
    return {
        name: str(inspect.signature(method))
        for name, method in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_") and name not in ("close", "conninfo")
    }


def test_a_fake_server_has_the_same_faults():
    assert public(Faults).items() <= public(FakeServer).items()


@pytest.mark.parametrize(
    "fault",
    [
        lambda s: s.refuse_connections(),
        lambda s: s.full(),
        lambda s: s.restart(),
        lambda s: s.reject_connections("XX000", "out of order"),
    ],
    ids=["refuse", "full", "restart", "reject"],
)
def test_a_fake_server_lets_nobody_in(fault):
    server = FakeServer()
    with Pool(FakeAdapter(server), min_size=0, max_size=1, timeout=20) as pool:
        with fault(server), pytest.raises(edgepool.PoolTimeout), pool.borrow(0.05):
            pass
        with pool.borrow():
            pass


def test_a_fake_server_loses_sessions():
    server = FakeServer()
    with Pool(FakeAdapter(server), min_size=1, timeout=20) as pool:
        with pool.borrow() as session:
            server.lose_connections()
            assert not session.alive
        with server.restart():
            assert () == server.sessions


def test_a_fake_server_is_slow_or_does_not_answer():
    server = FakeServer(connect_delay=0.01)
    with Pool(FakeAdapter(server), min_size=0, max_size=1, timeout=20) as pool:
        with server.slow(0.2), pytest.raises(edgepool.PoolTimeout), pool.borrow(0.05):
            pass
        with server.black_hole():
            with pytest.raises(edgepool.PoolTimeout), pool.borrow(0.05):
                pass
            assert 1 <= server.under_way("connect")
        with pool.borrow():
            pass
