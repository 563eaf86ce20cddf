"""Behind a pooler that shares sessions, the pool says what will not work there."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from psycopg.conninfo import conninfo_to_dict

from edgepool.psycopg._detection import (
    Detection,
)
from support.parity import entered, execute, result
from support.pg import at_rest


def messages(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "edgepool.pooler"]


def asking(way, colour, conninfo, threshold):
    """Make the arguments that ask for a threshold, in one of several ways."""
    kwargs = {"prepare_threshold": threshold}

    async def give():
        return kwargs

    async def configure(conn):
        conn.prepare_threshold = threshold

    return {
        "kwargs": {"conninfo": conninfo, "kwargs": kwargs},
        "kwargs callable": {"conninfo": conninfo, "kwargs": colour.callback(give)},
        "dictionary": {"conninfo": {**conninfo_to_dict(conninfo), **kwargs}},
        "configure": {"conninfo": conninfo, "configure": colour.callback(configure)},
    }[way]


ways = pytest.mark.parametrize(
    "way", ["kwargs", "kwargs callable", "dictionary", "configure"]
)


@ways
@pytest.mark.parametrize("threshold", [0, 5])
async def test_a_threshold_that_was_asked_for_is_not_used(
    colour, bouncer, caplog, way, threshold
):
    conninfo = bouncer("transaction").conninfo_for()
    arguments = asking(way, colour, conninfo, threshold)
    with caplog.at_level(logging.WARNING, "edgepool.pooler"):
        async with colour.pool(**arguments, min_size=3, name="mine") as pool:
            await at_rest(pool, 3)
            async with entered(pool.connection()) as conn:
                assert conn.prepare_threshold is None

    assert messages(caplog) == [
        f"mine: prepare_threshold={threshold} is not used: this pooler may mix up the"
        " prepared statements of its clients"
    ]


@ways
async def test_but_it_is_if_the_user_knows_what_is_there(colour, bouncer, caplog, way):
    arguments = asking(way, colour, bouncer("transaction").conninfo_for(), 0)
    arguments["pooler"] = "transaction"
    async with colour.pool(**arguments, min_size=2, name="mine") as pool:
        await at_rest(pool, 2)
        async with entered(pool.connection()) as conn:
            assert conn.prepare_threshold == 0

    assert messages(caplog) == [
        "mine: prepare_threshold=0 as asked for, though this pooler may mix up the"
        " prepared statements of its clients"
    ]


async def test_what_is_for_sessions_is_warned_of_once(colour, bouncer, caplog):
    pooler = bouncer("transaction", ignore_startup_parameters="options")
    arguments = {"reset": "clean", "kwargs": {"options": "-c statement_timeout=5s"}}
    async with colour.pool(
        pooler.conninfo_for(), min_size=3, name="mine", **arguments
    ) as pool:
        await at_rest(pool, 3)

    assert messages(caplog) == [
        "mine: reset='clean' does nothing: behind this pooler, the next transaction"
        " has another session",
        "mine: the connection parameter options is for a session: behind this pooler,"
        " set it for the role, or in each transaction",
    ]


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (b"", 0),
        (b"endpoint=ep-cool-name", 0),  # tells some poolers where to
        (b"-c search_path=mine", 1),
        (b"endpoint=ep-cool-name --search_path=mine", 1),
    ],
)
def test_options_that_set_nothing_are_not_warned_of(caplog, options, warnings):
    detection = Detection("transaction", lambda: "mine")

    detection.warn_of_sessions(SimpleNamespace(options=options), reset=None)

    assert len(messages(caplog)) == warnings


LASTING = [
    ("set search_path to mine", "set"),
    ("SET SESSION statement_timeout = '5s'", "SET"),
    ("select 1; set work_mem = '1MB'", "set"),
    ("select set_config('search_path', 'mine', false)", "set_config"),
    ("listen news", "listen"),
    ("create temporary table mine (n int)", "create temporary"),
    ("prepare mine as select 1", "prepare"),
    ("select pg_advisory_lock(1)", "pg_advisory_lock"),
    ("select pg_try_advisory_lock(1)", "pg_try_advisory_lock"),
]
PASSING = [
    "set local search_path to mine",
    "set transaction read only",
    "set session characteristics as transaction read only",
    "set timezone to 'UTC'",
    "set time zone 'UTC'",
    "select set_config('TimeZone', 'UTC', false)",
    "select set_config('search_path', 'mine', true)",
    "select pg_advisory_xact_lock(1)",
]


def configuring(colour, *statements):
    """Make a `configure` that executes something."""

    async def configure(conn):
        for statement in statements:
            await execute(conn, statement)
        await result(conn.commit())

    return colour.callback(configure)


@pytest.mark.parametrize(("statement", "word"), LASTING, ids=lambda s: s)
async def test_what_configure_leaves_on_a_session_is_warned_of(
    colour, bouncer, caplog, statement, word
):
    conninfo = bouncer("transaction").conninfo_for()
    configure = configuring(colour, statement)
    async with colour.pool(
        conninfo,
        min_size=1,
        configure=configure,
        pooler="transaction",
        name="mine",
    ) as pool:
        await at_rest(pool, 1)
        await result(pool.drain())
        await at_rest(pool, 1)

    assert messages(caplog) == [
        f"mine: configure leaves something on the session ({word}): behind this pooler,"
        " the next transaction has another one"
    ]


async def test_what_configure_does_not_leave_is_not(colour, bouncer, caplog):
    conninfo = bouncer("transaction").conninfo_for()
    configure = configuring(colour, *PASSING)
    async with colour.pool(
        conninfo, min_size=2, configure=configure, pooler="transaction"
    ) as pool:
        await at_rest(pool, 2)

    assert messages(caplog) == []


async def test_configure_may_set_what_it_likes_where_sessions_are_ones_own(
    colour, bouncer, caplog
):
    conninfo = bouncer("session").conninfo_for()
    configure = configuring(colour, "set search_path to mine")
    async with colour.pool(conninfo, min_size=2, configure=configure) as pool:
        await at_rest(pool, 2)

    assert messages(caplog) == []


@pytest.mark.parametrize("says", ["pgbouncer=true", "pgbouncer=false"])
async def test_what_the_dsn_says_counts_if_there_is_a_pooler(
    colour, server, bouncer, says
):
    found = []
    for port in (server.port, bouncer("session").port):
        dsn = f"postgresql://{server.user}@127.0.0.1:{port}/postgres?{says}"
        async with colour.pool(dsn, min_size=1) as pool:
            await at_rest(pool, 1)
            found.append(pool.statistics().pooler)

    modes = {"pgbouncer=true": "transaction", "pgbouncer=false": "undetermined"}
    assert found == ["none", modes[says]]
