"""The psycopg pools shed too: their arguments, their error, their numbers."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest

import edgepool
from edgepool import PoolOverloaded
from support.parity import CLASSES, borrowed, result, waiter
from support.pg import error_of

each_class = pytest.mark.parametrize("name", CLASSES)
SHEDDING = {"shed_target": 0.02, "shed_interval": 0.05}


def make(name, **arguments):
    return getattr(edgepool, name)(open=False, **arguments)


@each_class
def test_nobody_is_shed_unless_told_so(name):
    pool = make(name)

    assert (None, 1.0) == (pool.shed_target, pool.shed_interval)


@each_class
def test_what_was_asked_can_be_read_and_changed(name):
    pool = make(name, shed_target=0.05, shed_interval=2.0)

    assert (0.05, 2.0) == (pool.shed_target, pool.shed_interval)

    pool.shed_target, pool.shed_interval = None, 0.5

    assert (None, 0.5) == (pool.shed_target, pool.shed_interval)


@each_class
@pytest.mark.parametrize("argument", SHEDDING)
def test_what_is_out_of_range_is_refused_and_changes_nothing(name, argument):
    pool = make(name, **SHEDDING)
    message = f"^{argument} must be at least 0, not -1$"

    with pytest.raises(ValueError, match=message):
        make(name, **{argument: -1})
    with pytest.raises(ValueError, match=message):
        setattr(pool, argument, -1)

    assert SHEDDING[argument] == getattr(pool, argument)


async def shed_one(pool, size):
    """Let one of two who wait be shed; give the error."""
    async with borrowed(pool, size):
        first, second = [await waiter(pool) for _ in range(2)]
        error = await error_of(first)
    await result(pool.putconn(await second))
    return error


async def test_who_is_shed_gets_an_error_that_handlers_of_psycopg_pool_know(
    colour, conninfo
):
    async with colour.pool(conninfo, min_size=1, name="web", **SHEDDING) as pool:
        error = await shed_one(pool, 1)

        assert PoolOverloaded is type(error)
        assert isinstance(error, psycopg_pool.PoolTimeout)
        assert isinstance(error, psycopg.OperationalError)
        assert (1, 1, 0, 0, 1) == (
            error.size,
            error.in_use,
            error.idle,
            error.opening,
            error.waiting,
        )
        assert (
            f"the pool 'web' is overloaded, given up after {error.waited:.2f}"
            in str(error)
        )


async def test_a_null_pool_sheds_too(colour, conninfo):
    async with colour.null_pool(conninfo, max_size=1, **SHEDDING) as pool:
        assert PoolOverloaded is type(await shed_one(pool, 1))


async def test_who_is_shed_is_an_error_in_the_numbers_of_psycopg_pool(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, **SHEDDING) as pool:
        await shed_one(pool, 1)

        assert 1 == pool.statistics().requests_shed
        assert 1 == pool.get_stats()["requests_errors"]
        assert "requests_shed" not in pool.get_stats()
