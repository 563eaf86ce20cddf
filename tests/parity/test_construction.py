"""What a pool is before it is open: names, numbers, and what is refused."""

from __future__ import annotations

import re

import psycopg
import psycopg_pool
import pytest

from support.parity import (
    borrowed,
    entered,
    execute,
    fetch,
    pid,
    result,
    stat,
    waiter,
)

DEFAULTS = {
    "timeout": 30.0,
    "max_waiting": 0,
    "max_lifetime": 3600.0,
    "max_idle": 600.0,
    "reconnect_timeout": 300.0,
    "num_workers": 3,
    "conninfo": "",
    "kwargs": None,
    "closed": True,
}

OTHERS = {
    "name": "other",
    "conninfo": "host=other",
    "kwargs": {"autocommit": True},
    "timeout": 1.5,
    "max_waiting": 7,
    "max_lifetime": 60.0,
    "max_idle": 5.0,
    "reconnect_timeout": 2.0,
    "num_workers": 1,
}


def test_a_pool_holds_four_connections_unless_told_otherwise(flavour):
    pool = flavour.Pool(open=False)

    assert (4, 4) == (pool.min_size, pool.max_size)


def test_a_null_pool_holds_none_and_lends_without_limit_unless_told_otherwise(flavour):
    pool = flavour.NullPool(open=False)

    assert (0, 0) == (pool.min_size, pool.max_size)


def test_a_pool_without_max_size_does_not_grow(flavour):
    pool = flavour.Pool(min_size=2, open=False)

    assert (2, 2) == (pool.min_size, pool.max_size)


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_attribute_tells_its_default(pool_class, name):
    pool = pool_class(open=False)

    assert DEFAULTS[name] == getattr(pool, name)


def test_a_pool_does_not_return_what_is_closed_unless_told_so(flavour):
    pool = flavour.Pool(open=False)

    assert pool.close_returns is False


def test_a_pool_serves_connections_of_psycopg_unless_told_otherwise(
    flavour, pool_class
):
    pool = pool_class(open=False)

    assert flavour.Connection is pool.connection_class


@pytest.mark.parametrize("name", OTHERS)
def test_an_attribute_tells_what_was_asked(pool_class, name):
    pool = pool_class(open=False, **{name: OTHERS[name]})

    assert OTHERS[name] == getattr(pool, name)


@pytest.mark.parametrize("name", OTHERS)
def test_an_attribute_can_be_changed(pool_class, name):
    pool = pool_class(open=False)

    setattr(pool, name, OTHERS[name])

    assert OTHERS[name] == getattr(pool, name)


@pytest.mark.parametrize("name", ["min_size", "max_size", "closed"])
def test_what_only_a_method_changes_cannot_be_set(pool_class, name):
    pool = pool_class(open=False)

    with pytest.raises(AttributeError):
        setattr(pool, name, 1)


def test_a_callable_stays_the_attribute(flavour, pool_class):
    def where():
        return ""

    def kwargs():
        return {}

    pool = pool_class(where, kwargs=kwargs, open=False)

    assert where is pool.conninfo
    assert kwargs is pool.kwargs


def test_pools_without_a_name_are_numbered(pool_class):
    one, two = pool_class(open=False).name, pool_class(open=False).name

    assert re.fullmatch(r"pool-\d+", one)
    assert re.fullmatch(r"pool-\d+", two)
    assert int(one.removeprefix("pool-")) < int(two.removeprefix("pool-"))


def test_a_repr_tells_the_name(pool_class):
    pool = pool_class(name="reports", open=False)

    assert "reports" in repr(pool)
    assert pool_class.__name__ in repr(pool)


def test_a_repr_keeps_secrets(pool_class):
    pool = pool_class(
        "postgresql://me:hush@localhost/x", kwargs={"password": "hush"}, open=False
    )

    assert "hush" not in repr(pool)


@pytest.mark.parametrize(
    "sizes",
    [
        {"min_size": -1},
        {"min_size": 2, "max_size": 1},
        {"min_size": 0},
        {"min_size": 0, "max_size": 0},
        {"min_size": 0, "max_size": -1},
    ],
    ids=str,
)
def test_sizes_that_make_no_sense_are_refused(flavour, sizes):
    with pytest.raises(ValueError, match="_size"):
        flavour.Pool(open=False, **sizes)


@pytest.mark.parametrize(
    "sizes",
    [{"min_size": 1}, {"min_size": 1, "max_size": 2}, {"max_size": -1}],
    ids=str,
)
def test_a_null_pool_refuses_to_keep_connections(flavour, sizes):
    with pytest.raises(ValueError, match="_size"):
        flavour.NullPool(open=False, **sizes)


def test_a_pool_without_workers_is_refused(pool_class):
    with pytest.raises(ValueError, match="num_workers"):
        pool_class(open=False, num_workers=0)


def test_an_argument_that_nobody_knows_is_refused(pool_class):
    with pytest.raises(TypeError, match="max_sise"):
        pool_class(open=False, max_sise=3)


def test_only_the_conninfo_may_go_without_a_name(pool_class):
    with pytest.raises(TypeError):
        pool_class("", psycopg.Connection, open=False)


async def test_a_changed_conninfo_holds_for_the_next_connection(
    flavour, conninfo, nowhere
):
    pool = flavour.Pool(nowhere, min_size=0, max_size=1, open=False)
    pool.conninfo = conninfo

    async with entered(pool), entered(pool.connection()) as conn:
        assert 1 == await fetch(conn, "select 1")


async def test_changed_kwargs_hold_for_the_next_connection(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=0, max_size=2) as pool:
        pool.kwargs = {"autocommit": True}

        async with entered(pool.connection()) as conn:
            assert conn.autocommit


async def test_a_changed_connection_class_holds_for_the_next_connection(
    flavour, conninfo
):
    class Other(flavour.Connection):
        pass

    async with flavour.pool(conninfo, min_size=0, max_size=1) as pool:
        pool.connection_class = Other

        async with entered(pool.connection()) as conn:
            assert Other is type(conn)


async def test_a_changed_timeout_holds_for_the_next_borrower(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool, borrowed(pool, 1):
        pool.timeout = 0.05

        with pytest.raises(psycopg_pool.PoolTimeout):
            await result(pool.getconn())


async def test_a_changed_max_waiting_holds_for_the_next_borrower(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        waiting = await waiter(pool)
        pool.max_waiting = 1

        with pytest.raises(psycopg_pool.TooManyRequests):
            await result(pool.getconn())

        await result(pool.putconn(conn))
        await result(pool.putconn(await waiting))


async def test_a_changed_max_lifetime_holds_for_the_next_connection(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=0, max_size=1) as pool:
        pool.max_lifetime = 0.2

        async with entered(pool.connection()) as conn:
            old = pid(conn)
            await execute(conn, "select pg_sleep(0.25)")

        async with entered(pool.connection()) as conn:
            assert old != pid(conn)


async def test_a_changed_close_returns_holds_for_what_is_lent(flavour, conninfo):
    async with flavour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        pool.close_returns = True

        await result(conn.close())

        assert not conn.closed
        await stat(pool, "pool_available", 1)
