"""What `app.config` says of a Flask application's pools, and what it must not say."""

from __future__ import annotations

import json

import psycopg
import pytest
from flask import Flask

from edgepool import AsyncConnectionPool
from edgepool.flask import EdgePool

URL = "postgresql://me:secret@127.0.0.1:1/shop"


def pool_of(extension=None, name="web", **config):
    """Give the pool that an application with this configuration has."""
    app = Flask(name)
    app.config.update(config)
    extension = extension or EdgePool()
    extension.init_app(app)
    with app.app_context():
        return extension.pool


def configure(conn):
    """Be a callback."""


def test_every_argument_of_a_pool_can_be_configured():
    pool = pool_of(
        EDGEPOOL_CONNINFO=URL,
        EDGEPOOL_DIRECT_CONNINFO={"host": "direct"},
        EDGEPOOL_MIN_SIZE="2",
        EDGEPOOL_MAX_SIZE=7,
        EDGEPOOL_TIMEOUT="1.5",
        EDGEPOOL_KWARGS={"autocommit": True},
        EDGEPOOL_CONFIGURE=configure,
        EDGEPOOL_CLOSE_RETURNS="yes",
        EDGEPOOL_NAME="main",
        SOMETHING_ELSE=1,
    )

    assert URL == pool.conninfo
    assert {"host": "direct"} == pool.direct_conninfo
    assert (2, 7, 1.5) == (pool.min_size, pool.max_size, pool.timeout)
    assert {"autocommit": True} == pool.kwargs
    assert pool.close_returns
    assert "main" == pool.name


@pytest.mark.parametrize(
    ("config", "conninfo", "direct"),
    [
        ({"DATABASE_URL": "host=a"}, "host=a", None),
        ({"DATABASE_URL": "host=a", "DIRECT_URL": "host=d"}, "host=a", "host=d"),
        ({"EDGEPOOL_CONNINFO": "host=b", "DATABASE_URL": "host=a"}, "host=b", None),
        ({"DATABASE_URL": "host=a", "EDGEPOOL_CONNINFO": ""}, "host=a", None),
        ({"DATABASE_URL": "host=a", "DIRECT_URL": None}, "host=a", None),
        ({"DATABASE_URL": {"host": "a"}}, {"host": "a"}, None),
    ],
)
def test_the_usual_keys_say_where_the_database_is(config, conninfo, direct):
    pool = pool_of(**config)

    assert (conninfo, direct) == (pool.conninfo, pool.direct_conninfo)


def test_what_the_call_gives_wins_then_the_configuration_then_the_dsn():
    pool = pool_of(
        EdgePool(min_size=1, max_size=3, timeout=1),
        DATABASE_URL=f"{URL}?pool_max_size=9&pool_timeout=9&pool_max_idle=9"
        "&pool_max_lifetime=9",
        EDGEPOOL_TIMEOUT=2,
        EDGEPOOL_MAX_IDLE=2,
    )

    assert (3, 1) == (pool.max_size, pool.timeout)
    assert (2, 9) == (pool.max_idle, pool.max_lifetime)


def test_a_bound_below_the_usual_min_size_is_all_there_is_to_say():
    pool = pool_of(DATABASE_URL=URL, EDGEPOOL_MAX_SIZE="2")

    assert (2, 2) == (pool.min_size, pool.max_size)


def test_the_call_may_give_everything():
    class Mine(psycopg.Connection):
        pass

    pool = pool_of(EdgePool(conninfo=URL, connection_class=Mine, name="reports"))

    assert (URL, Mine) == (pool.conninfo, pool.connection_class)
    assert "web-reports" == pool.name


def test_flask_reads_the_environment_into_the_same_keys(monkeypatch):
    variables = {
        "DATABASE_URL": URL,
        "EDGEPOOL_MAX_SIZE": "6",
        "EDGEPOOL_MAX_CONNECTING": "none",
        "EDGEPOOL_KWARGS": json.dumps({"autocommit": True}),
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"FLASK_{name}", value)
    app = Flask("web")
    app.config.from_prefixed_env()
    db = EdgePool(app)
    with app.app_context():
        assert (6, {"autocommit": True}) == (db.pool.max_size, db.pool.kwargs)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "set DATABASE_URL or EDGEPOOL_CONNINFO in app.config"),
        (
            {"EDGEPOOL_MAX_SIZE": 0},
            r"max_size must be at least 1, not 0 \(EDGEPOOL_MAX_SIZE=0 in app.config\)",
        ),
        (
            {"EDGEPOOL_TIMEOUT": "5s"},
            "EDGEPOOL_TIMEOUT must be a number of seconds, not '5s'",
        ),
        (
            {"EDGEPOOL_MAX_SISE": 3},
            "EDGEPOOL_MAX_SISE in app.config is not an argument of a pool;"
            " did you mean EDGEPOOL_MAX_SIZE",
        ),
        (
            {"EDGEPOOL_CONNINFO": "mysql://me:secret@db/shop"},
            r"is not the address of a PostgreSQL.*\(EDGEPOOL_CONNINFO in app.config\)",
        ),
        (
            {"EDGEPOOL_DIRECT_CONNINFO": "mysql://me:secret@db/shop"},
            r"direct_conninfo: .*\(EDGEPOOL_DIRECT_CONNINFO in app.config\)",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_once_by_its_key(config, message):
    usual = {"DATABASE_URL": URL} if config else {}
    with pytest.raises(ValueError, match=message) as refused:
        pool_of(**usual, **config)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"EDGEPOOL_MAX_SIZE": [3]},
            r"max_size must be a number, not \[3\] \(EDGEPOOL_MAX_SIZE=\[3\] in app",
        ),
        (
            {"EDGEPOOL_CONFIGURE": "configure"},
            r"configure must be a function, .*\(EDGEPOOL_CONFIGURE in app.config\)",
        ),
        (
            {"DATABASE_URL": 5432},
            r"conninfo must be a string.*not int \(DATABASE_URL in app.config\)",
        ),
    ],
)
def test_what_is_of_another_kind_is_refused_at_once_by_its_key(config, message):
    with pytest.raises(TypeError, match=message):
        pool_of(**{"DATABASE_URL": URL, **config})


# --- several pools --------------------------------------------------------------------


def test_each_pool_reads_its_own_keys():
    app = Flask("web")
    app.config.update(
        DATABASE_URL=URL,
        EDGEPOOL_MAX_SIZE=5,
        EDGEPOOL_REPORTS_CONNINFO="host=reports",
        EDGEPOOL_REPORTS_MAX_SIZE=6,
    )
    db, reports = EdgePool(app), EdgePool(app, name="reports")
    with app.app_context():
        assert (URL, 5) == (db.pool.conninfo, db.pool.max_size)
        assert ("host=reports", 6) == (reports.pool.conninfo, reports.pool.max_size)


def test_the_usual_keys_are_not_those_of_another_pool():
    with pytest.raises(ValueError, match="set EDGEPOOL_REPORTS_CONNINFO in app"):
        pool_of(EdgePool(name="reports"), DATABASE_URL=URL, DIRECT_URL=URL)


def test_a_key_of_no_pool_is_refused_at_the_first_use():
    """Before that, the pool that it belongs to may be added yet."""
    app = Flask("web")
    app.config.update(DATABASE_URL=URL, EDGEPOOL_REPORT_MAX_SIZE=3)
    app.config.update(EDGEPOOL_REPORTS_CONNINFO="host=reports")
    db, _ = EdgePool(app), EdgePool(app, name="reports")
    message = "EDGEPOOL_REPORT_MAX_SIZE.*did you mean EDGEPOOL_REPORTS_MAX_SIZE"
    with app.app_context():
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                _ = db.connection


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("default", "reconnect"), "EDGEPOOL_RECONNECT_TIMEOUT"),
        (("a_direct", "a"), "EDGEPOOL_A_DIRECT_CONNINFO"),
    ],
)
def test_two_pools_never_read_the_same_key(names, key):
    app = Flask("web")
    app.config.update(DATABASE_URL=URL)
    one, other = (EdgePool(conninfo=URL, name=name) for name in names)
    one.init_app(app)
    with pytest.raises(ValueError, match=f"would both read {key}: give one of them"):
        other.init_app(app)


@pytest.mark.parametrize("name", ["", "2nd", "read-only", "a b", 2])
def test_a_name_can_be_part_of_a_key(name):
    with pytest.raises(ValueError, match=f"name must be a letter.*not {name!r}"):
        EdgePool(name=name)


@pytest.mark.parametrize("pool_class", [AsyncConnectionPool, "ConnectionPool"])
def test_a_pool_of_another_kind_is_refused(pool_class):
    with pytest.raises(TypeError, match=r"^pool_class must be edgepool\.Conn.*, not "):
        EdgePool(pool_class=pool_class)
