"""A pool's arguments come from the call, the environment and the DSN, in this order."""

from __future__ import annotations

import inspect
import logging

import psycopg
import pytest

import edgepool
from edgepool.psycopg._dsn_parameters import ARGUMENTS
from support.parity import entered, fetch, result
from support.pg import borrow_error

POOLS = (
    edgepool.ConnectionPool,
    edgepool.AsyncConnectionPool,
    edgepool.NullConnectionPool,
    edgepool.AsyncNullConnectionPool,
)

SECRET = "hush-hush"

URL = f"postgresql://me:{SECRET}@h/shop"

# What can be written in a DSN or in a variable.
SCALARS = {
    *("int", "int | None", "float", "float | None", "bool", "bool | None"),
    *("str | None", "Nested", "Asked", "Role"),
}


@pytest.fixture(params=POOLS, ids=lambda cls: cls.__name__)
def pool_class(request):
    """Each of the four in turn."""
    return request.param


def refusal(make, *args, **kwargs):
    with pytest.raises(ValueError, match=r".") as caught:
        make(*args, **kwargs)

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_every_argument_that_can_be_written_is_known(pool_class):
    written = {
        parameter.name
        for parameter in inspect.signature(pool_class).parameters.values()
        if parameter.annotation in SCALARS or "'clean'" in parameter.annotation
    }

    assert set(ARGUMENTS) == written


# --- the DSN and the call -------------------------------------------------------------


def test_the_dsn_gives_arguments(pool_class):
    pool = pool_class(f"{URL}?pool_max_size=20&pool_timeout=5&pool_name=web")

    assert (20, 5.0, "web") == (pool.max_size, pool.timeout, pool.name)


def test_the_call_wins_over_the_dsn_with_a_default_too(pool_class):
    url = f"{URL}?pool_timeout=5&pool_max_idle=1&pool_name=web"

    pool = pool_class(url, timeout=30.0, max_idle=2.0)

    assert (30.0, 2.0, "web") == (pool.timeout, pool.max_idle, pool.name)


def test_the_dsn_may_be_given_by_name(pool_class):
    assert 5.0 == pool_class(conninfo=f"{URL}?pool_timeout=5").timeout


@pytest.mark.parametrize(
    "conninfo", [f"{URL}?pool_timeout=5", {"HOST": "h", "PASSWORD": SECRET}], ids=type
)
def test_the_attribute_is_what_was_given(pool_class, conninfo):
    pool = pool_class(conninfo)

    assert conninfo is pool.conninfo
    assert SECRET not in repr(pool)


def test_a_database_of_djangos_gives_arguments(pool_class):
    pool = pool_class({"HOST": "h", "OPTIONS": {"pool": {"max_size": 7}}})

    assert 7 == pool.max_size


@pytest.mark.parametrize("prefix", ["", "Async"])
def test_a_bound_in_the_dsn_bounds_min_size_too(prefix):
    cls = getattr(edgepool, f"{prefix}ConnectionPool")
    pool = cls(f"{URL}?connection_limit=1")

    assert (1, 1) == (pool.min_size, pool.max_size)


def test_a_larger_bound_leaves_min_size_alone():
    pool = edgepool.ConnectionPool(f"{URL}?connection_limit=9")

    assert (4, 9) == (pool.min_size, pool.max_size)


def test_a_bound_in_the_call_is_what_it_is_in_psycopg_pool():
    said = refusal(edgepool.ConnectionPool, f"{URL}?pool_timeout=1", max_size=2)

    assert said == "max_size must be greater or equal than min_size (4), not 2"


@pytest.mark.parametrize(
    ("query", "given", "said"),
    [
        (
            "connection_limit=0",
            {},
            "max_size must be at least 1, not 0"
            " (connection_limit=0 in the connection string)",
        ),
        (
            "pool_max_conns=2",
            {"min_size": 3},
            "max_size must be greater or equal than min_size (3), not 2"
            " (pool_max_conns=2 in the connection string)",
        ),
        (
            "pool_timeout=-1",
            {},
            "timeout must be at least 0, not -1.0"
            " (pool_timeout=-1 in the connection string)",
        ),
        (
            "pool_timeout=nan",
            {},
            "timeout must be at least 0, not nan"
            " (pool_timeout=nan in the connection string)",
        ),
        (
            "pool_nested=maybe",
            {},
            "nested must be 'error' or 'wait', not 'maybe'"
            " (pool_nested=maybe in the connection string)",
        ),
        (
            "pool_reset=dirty",
            {},
            "reset must be a function or 'clean', not 'dirty'"
            " (pool_reset=dirty in the connection string)",
        ),
        # The call's own is nobody else's fault.
        ("pool_timeout=1", {"timeout": -2}, "timeout must be at least 0, not -2"),
    ],
)
def test_what_is_out_of_range_is_named_as_it_was_written(query, given, said):
    assert said == refusal(edgepool.ConnectionPool, f"{URL}?{query}", **given)


def test_a_null_pool_says_what_it_cannot_keep():
    said = refusal(edgepool.NullConnectionPool, f"{URL}?pool_min_conns=2")

    assert said == (
        "null pools must have min_size = 0, not 2"
        " (pool_min_conns=2 in the connection string)"
    )


def test_a_subclass_with_a_constructor_of_its_own_may_give_arguments(pool_class):
    class Mine(pool_class):
        def __init__(self, where):
            super().__init__(where, timeout=7)

    pool = Mine(f"{URL}?pool_timeout=5&pool_max_size=8")

    assert (7, 8) == (pool.timeout, pool.max_size)


def test_a_dsn_assigned_later_is_validated(pool_class):
    pool = pool_class(URL)

    with pytest.raises(ValueError, match="mysql"):
        pool.conninfo = f"mysql://me:{SECRET}@h"

    assert pool.conninfo == URL


@pytest.mark.parametrize("conninfo", [URL, lambda: URL, {"host": "h"}], ids=type)
def test_the_direct_dsn_is_kept(pool_class, conninfo):
    assert conninfo is pool_class(direct_conninfo=conninfo).direct_conninfo


def test_the_direct_dsn_is_validated(pool_class):
    said = refusal(pool_class, direct_conninfo=f"{URL}?pool_max_sise=3")

    assert said == (
        "direct_conninfo: pool_max_sise is not a parameter of the pool;"
        " did you mean pool_max_size?"
    )
    with pytest.raises(TypeError, match=r"^direct_conninfo: .* not int$"):
        pool_class(direct_conninfo=5)


async def test_the_warning_about_open_names_the_caller():
    with pytest.warns(RuntimeWarning, match="constructor") as warned:
        pool = edgepool.AsyncConnectionPool(URL, open=True, min_size=0, max_size=1)
    await pool.close()

    assert [__file__] == [w.filename for w in warned]


# --- the environment ------------------------------------------------------------------


def test_the_environment_gives_arguments(pool_class):
    environ = {
        "DATABASE_URL": f"{URL}?pool_timeout=5&pool_max_idle=6&pool_max_waiting=7",
        "EDGEPOOL_TIMEOUT": "8",
        "EDGEPOOL_MAX_IDLE": "9",
        "PATH": "/bin",
    }

    pool = pool_class.from_env(environ=environ, max_idle=10)

    assert type(pool) is pool_class
    assert (7, 8.0, 10) == (pool.max_waiting, pool.timeout, pool.max_idle)
    assert environ["DATABASE_URL"] == pool.conninfo
    assert pool.direct_conninfo is None


def test_the_environment_is_that_of_the_process(pool_class, monkeypatch):
    monkeypatch.setenv("SHOP_URL", f"{URL}\n")
    monkeypatch.setenv("EDGEPOOL_NAME", "web")

    pool = pool_class.from_env("SHOP_URL")

    assert (URL, "web") == (pool.conninfo, pool.name)


@pytest.mark.parametrize(
    ("url", "environ", "sizes"),
    [
        ("", {"MAX_SIZE": "2"}, (2, 2)),
        ("pool_max_size=9", {"MAX_SIZE": "2"}, (2, 2)),
        ("pool_max_size=2", {"MAX_SIZE": "9"}, (4, 9)),
        ("pool_min_size=1", {"MAX_SIZE": "2"}, (1, 2)),
        ("pool_max_size=2", {"MIN_SIZE": "1"}, (1, 2)),
        ("pool_max_size=2", {"MIN_SIZE": ""}, (2, 2)),
        ("", {"MIN_SIZE": "3", "MAX_SIZE": "none"}, (3, 3)),
    ],
)
def test_a_bound_in_the_environment_bounds_min_size_too(url, environ, sizes):
    variables = {f"EDGEPOOL_{name}": value for name, value in environ.items()}

    pool = edgepool.ConnectionPool.from_env(
        environ={"DATABASE_URL": f"{URL}?{url}", **variables}
    )

    assert sizes == (pool.min_size, pool.max_size)


@pytest.mark.parametrize(
    ("direct", "environ", "expected"),
    [
        (None, {"DIRECT_URL": "host=direct"}, "host=direct"),
        (None, {"DIRECT_URL": " "}, None),
        ("UNPOOLED", {"UNPOOLED": "host=direct", "DIRECT_URL": "no"}, "host=direct"),
    ],
)
def test_the_direct_dsn_is_in_the_environment(pool_class, direct, environ, expected):
    pool = pool_class.from_env(environ={"DATABASE_URL": URL, **environ}, direct=direct)

    assert expected == pool.direct_conninfo


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "the environment variable DATABASE_URL is not set"),
        ({"DATABASE_URL": " "}, "the environment variable DATABASE_URL is empty"),
        (
            {"DATABASE_URL": URL, "EDGEPOOL_MAX_SISE": "3"},
            "EDGEPOOL_MAX_SISE is not an argument of the pool;"
            " did you mean EDGEPOOL_MAX_SIZE?",
        ),
        (
            {"DATABASE_URL": URL, "EDGEPOOL_KWARGS": "3"},
            "EDGEPOOL_KWARGS is not an argument of the pool",
        ),
        (
            {"DATABASE_URL": URL, "EDGEPOOL_MAX_SIZE": "many"},
            "EDGEPOOL_MAX_SIZE must be a whole number, not 'many'",
        ),
        (
            {"DATABASE_URL": f"{URL}?pool_max_size=3", "EDGEPOOL_MAX_SIZE": "0"},
            "max_size must be at least 1, not 0"
            " (EDGEPOOL_MAX_SIZE=0 in the environment)",
        ),
        (
            {"DATABASE_URL": f"{URL}?pool_timeout=-1", "EDGEPOOL_MAX_SIZE": "9"},
            "timeout must be at least 0, not -1.0"
            " (pool_timeout=-1 in the connection string)",
        ),
    ],
)
def test_a_variable_that_cannot_be_is_named(environ, said):
    assert said == refusal(edgepool.ConnectionPool.from_env, environ=environ)


def test_a_direct_variable_that_was_named_must_be_there(pool_class):
    environ = {"DATABASE_URL": URL}

    said = refusal(pool_class.from_env, environ=environ, direct="DIRECT_URL")

    assert said == "the environment variable DIRECT_URL is not set"


# --- with a server --------------------------------------------------------------------


async def asked(pool, query):
    async with entered(pool), entered(pool.connection()) as conn:
        return await fetch(conn, query)


async def test_a_url_with_parameters_connects(colour, server):
    pool = colour.Pool(f"{server.url}?pool_max_size=1&application_name=dsn")

    assert "dsn" == await asked(pool, "show application_name")


async def test_a_url_of_prismas_connects(colour, server):
    url = f"{server.url}?schema=My%20shop&connection_limit=1&socket_timeout=7"

    async with entered(colour.Pool(url)) as pool, entered(pool.connection()) as conn:
        assert '"My shop"' == await fetch(conn, "show search_path")
        assert "7s" == await fetch(conn, "show statement_timeout")


async def test_a_url_of_sqlalchemys_connects(colour, server):
    _, _, rest = server.url.partition("://")
    pool = colour.Pool(f"postgresql+asyncpg://{rest}?application_name=a+b")

    assert "a b" == await asked(pool, "show application_name")


async def test_a_database_of_djangos_connects(colour, server):
    there = psycopg.conninfo.conninfo_to_dict(server.conninfo)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": there["dbname"],
        "USER": there["user"],
        "HOST": str(server.directory),
        "PORT": server.port,
        "TIME_ZONE": "Asia/Kathmandu",
        "OPTIONS": {"isolation_level": 3, "pool": {"max_size": "1"}},
    }

    async with (
        entered(colour.Pool({"default": database})) as pool,
        entered(pool.connection()) as conn,
    ):
        assert "Asia/Kathmandu" == await fetch(conn, "show timezone")
        assert "repeatable read" == await fetch(conn, "show transaction_isolation")
        assert await fetch(conn, "select inet_server_addr()") is None  # a Unix socket


async def test_the_first_of_several_hosts_may_be_away(colour, server):
    there = psycopg.conninfo.conninfo_to_dict(server.conninfo)
    url = (
        f"postgresql://{there['user']}@127.0.0.1:1,127.0.0.1:{server.port}"
        f"/{there['dbname']}?pool_max_size=1"
    )

    assert server.port == await asked(colour.Pool(url), "select inet_server_port()")


async def test_a_statement_cache_of_0_prepares_nothing(colour, server):
    url = f"{server.url}?statement_cache_size=0"

    async with entered(colour.Pool(url)) as pool, entered(pool.connection()) as conn:
        assert conn.prepare_threshold is None


async def test_kwargs_win_over_the_dsn(colour, server):
    url = f"{server.url}?statement_cache_size=0&application_name=dsn"
    pool = colour.Pool(url, kwargs={"prepare_threshold": 3, "application_name": "mine"})

    async with entered(pool), entered(pool.connection()) as conn:
        assert 3 == conn.prepare_threshold
        assert "mine" == await fetch(conn, "show application_name")


async def test_the_environment_connects(colour, server):
    environ = {"DATABASE_URL": server.url, "EDGEPOOL_MAX_SIZE": "1"}
    pool = colour.Pool.from_env(environ=environ)

    assert server.port == await asked(pool, "select inet_server_port()")


async def test_what_a_function_returns_comes_too_late_for_the_pool(
    colour, server, caplog
):
    caplog.set_level(logging.WARNING, logger="edgepool")
    url = f"{server.url}?pool_max_size=9&schema=shop&password={SECRET}"
    pool = colour.Pool(colour.callback(_returns(url)), min_size=2, max_size=2)

    async with entered(pool):
        await result(pool.wait())
        async with entered(pool.connection()) as conn:
            assert '"shop"' == await fetch(conn, "show search_path")

    assert 2 == pool.max_size
    assert [
        f"{pool.name}: no effect in what conninfo returns, give it to the pool:"
        " pool_max_size=9 in the connection string"
    ] == [record.getMessage() for record in caplog.records]


async def test_what_a_function_returns_may_be_refused(colour):
    url = f"{URL}?pool_max_sise=3"
    pool = colour.Pool(colour.callback(_returns(url)), min_size=1)

    async with entered(pool):
        error, _ = await borrow_error(pool)

    assert isinstance(error, edgepool.ConnectFailed)
    assert "pool_max_sise is not a parameter" in str(error.__cause__)
    assert SECRET not in f"{error} {error.__cause__!r}"


def _returns(value):
    async def function():
        return value

    return function


async def test_a_dsn_assigned_later_is_read_for_the_next_connection(
    colour, server, caplog
):
    pool = colour.Pool("host=nowhere.invalid", min_size=0, max_size=1)
    pool.conninfo = f"{server.url}?pool_max_size=9&schema=shop&password={SECRET}"

    assert '"shop"' == await asked(pool, "show search_path")
    assert 1 == pool.max_size
    assert [
        f"{pool.name}: no effect in another conninfo, give it to the pool:"
        " pool_max_size=9 in the connection string"
    ] == caplog.messages
