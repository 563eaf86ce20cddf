"""What an engine with edgepool's pool is told, and in whose words."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import create_async_engine

import edgepool
from edgepool.sqlalchemy import EdgePool, create_engine
from support.engines import (
    PID,
    closed,
    driver,
    engine,
    engine_of,
    pid,
    pool_of,
    poolclass,
    told,
    url,
    waited,
)
from support.parity import result

PSYCOPG = "postgresql+psycopg://localhost/shop"
ONE = text("select 1")


# --- sizes and the like ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (5, 0, 15, 30.0)),
        ({"pool_size": 3}, (3, 0, 13, 30.0)),
        ({"pool_size": 3, "max_overflow": 1}, (3, 0, 4, 30.0)),
        ({"pool_timeout": 2}, (5, 0, 15, 2)),
        ({"edge": {"max_size": 7}}, (7, 0, 7, 30.0)),
        ({"edge": {"min_size": 2, "timeout": 3}}, (5, 2, 15, 3)),
        (
            {"edge": {"min_size": 2, "max_size": 4}, "pool_use_lifo": True},
            (4, 2, 4, 30),
        ),
    ],
)
def test_words_of_queue_pool_and_of_edgepool(arguments, expected):
    made = sa.create_engine(PSYCOPG, poolclass=EdgePool, **arguments)
    edge = made.pool.edge

    assert expected == (made.pool.size(), edge.min_size, edge.max_size, edge.timeout)

    again = made.pool.recreate()
    assert again.edge is not edge
    assert expected == (
        again.size(),
        *(getattr(again.edge, n) for n in ("min_size", "max_size", "timeout")),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_size": 0}, "pool_size must be at least 1, not 0"),
        ({"max_overflow": -1}, "max_overflow must be at least 0, not -1"),
        ({"pool_size": "5"}, "pool_size must be a whole number, not '5'"),
        ({"max_overflow": 1.5}, "max_overflow must be a whole number, not 1.5"),
        ({"pool_recycle": "60"}, "pool_recycle must be a number, not '60'"),
        ({"pool_use_lifo": False}, "pool_use_lifo must be True"),
        ({"pool_size": 3, "edge": {"max_size": 3}}, "pool_size and max_size"),
        ({"pool_timeout": 3, "edge": {"timeout": 3}}, "pool_timeout and timeout"),
        ({"edge": {"conninfo": "x"}}, "conninfo is not for the pool of an engine"),
        ({"edge": {"kwargs": {}}}, "the engine's connect_args"),
        ({"edge": {"min_size": 9, "max_size": 3}}, "max_size must be greater or equal"),
        (
            {"edge": {"min_size": 20}},
            r"^min_size must be at most pool_size \+ max_overflow \(15\), not 20$",
        ),
        ({"creator": lambda: None}, "creator has no effect"),
        ({"edge": edgepool.ConnectionPool(), "pool_size": 3}, "pool_size is the bus"),
        ({"edge": edgepool.ConnectionPool(), "pool_timeout": 3}, "pool_timeout is the"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        sa.create_engine(PSYCOPG, poolclass=EdgePool, **arguments)


def test_the_error_for_what_is_no_url_keeps_the_secret():
    with pytest.raises(ValueError, match="not a connection string") as caught:
        create_engine("host=a password=hush b")

    assert "hush" not in str(caught.value)


def test_the_wrong_kind_is_refused():
    with pytest.raises(TypeError, match=r"must be an edgepool\.ConnectionPool, or"):
        sa.create_engine(
            PSYCOPG, poolclass=EdgePool, edge=edgepool.AsyncConnectionPool()
        )
    with pytest.raises(TypeError, match="max_sise"):
        sa.create_engine(PSYCOPG, poolclass=EdgePool, edge={"max_sise": 3})
    with pytest.raises(ValueError, match="must begin with postgresql\\+psycopg://"):
        sa.create_engine("sqlite://", poolclass=EdgePool)
    with pytest.raises(ValueError, match="nothing says where to connect"):
        EdgePool()
    with pytest.raises(ValueError, match="AsyncEdgePool for create_async_engine"):
        create_async_engine(PSYCOPG, poolclass=EdgePool)


# --- where to connect -----------------------------------------------------------------


@told
def test_a_pool_in_the_words_of_sqlalchemy(colour, conninfo):
    made = engine_of(
        colour,
        url(conninfo, colour).difference_update_query(["application_name"]),
        poolclass=poolclass(colour),
        edge={"max_size": 1},
        connect_args={"application_name": "args", "prepare_threshold": 3},
    )
    with made.connect() as conn:
        assert "args" == conn.scalar(text("show application_name"))
        assert 3 == driver(conn).prepare_threshold
    made.dispose()


@told
def test_do_connect_listeners_change_the_arguments_of_each_connect(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    names = iter(["first", "second"])

    @event.listens_for(made, "do_connect")
    def connect(dialect, record, args, kwargs):
        record.info["name"] = kwargs["application_name"] = next(names)

    for name in ("first", "second"):
        with made.connect() as conn:
            assert name == conn.scalar(text("show application_name"))
        # Which does not connect, so it does not ask.
        made.dispose()


def test_do_connect_listeners_are_not_asked_before_a_connect():
    asked = []

    def connect(*arguments):
        asked.append(1)

    event.listen(sa.Engine, "do_connect", connect)
    try:
        sa.create_engine(PSYCOPG, poolclass=EdgePool).dispose()
    finally:
        event.remove(sa.Engine, "do_connect", connect)

    assert [] == asked


@told
def test_do_connect_listeners_do_not_connect(colour, conninfo):
    made = engine(colour, conninfo)
    event.listen(made, "do_connect", lambda *_: "mine")

    with pytest.raises(exc.OperationalError, match="edgepool opens the connection"):
        made.connect()
    made.dispose()


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgres://u:p%40@h:1/d?sslmode=disable", "u:***@h:1/d?sslmode=disable"),
        ("postgresql+psycopg2://u@h/d", "u@h/d"),
        ("host=h dbname=d user=u", "u@h/d"),
        ({"host": "h", "port": 2}, "h:2"),
        ({"ENGINE": "django.db.backends.postgresql", "NAME": "d", "HOST": "h"}, "h/d"),
        ("postgresql://a:1,b:2/d", "/d?host=a%2Cb&port=1%2C2"),
        ("dbname=d host=/run/pg port=3", "/d?host=%2Frun%2Fpg&port=3"),
        (sa.make_url("postgresql+psycopg://u@h/d"), "u@h/d"),
    ],
)
def test_the_short_way_takes_any_dsn(dsn, expected):
    made = create_engine(dsn)

    assert f"postgresql+psycopg://{expected}" == str(made.url)
    assert (0, 15) == (made.pool.edge.min_size, made.pool.edge.max_size)


def test_the_dsn_may_say_what_the_pool_is_like():
    dsn = "postgresql://h/d?pool_max_size=3&pool_timeout=2&pgbouncer=true"
    made = create_engine(dsn, timeout=1, pool_reset_on_return=None)
    edge = made.pool.edge

    assert (3, 1) == (edge.max_size, edge.timeout)
    assert 6 == create_engine(dsn, pool_size=4, max_overflow=2).pool.edge.max_size
    assert "postgresql+psycopg://h/d" == str(made.url)

    stock = sa.create_engine(
        "postgresql+psycopg://h/d?pool_max_size=3", poolclass=EdgePool
    )
    assert 3 == stock.pool.edge.max_size
    with pytest.raises(ValueError, match="pool_max_size=0 in the dictionary"):
        sa.create_engine(f"{PSYCOPG}?pool_max_size=0", poolclass=EdgePool)


def test_the_short_way_refuses_what_is_contradictory():
    with pytest.raises(ValueError, match="max_size: the business of the pool"):
        create_engine(PSYCOPG, edge=edgepool.ConnectionPool(), max_size=3)
    with pytest.raises(TypeError, match="no_argument"):
        create_engine(PSYCOPG, no_argument=3)
    with pytest.raises(ValueError, match="mysql:// is not the address"):
        create_engine("mysql://h/d")


@told
def test_the_dsn_in_the_url_is_the_one_that_is_connected_to(colour, conninfo, server):
    given = conninfo_to_dict(conninfo)
    made = engine(colour, f"{server.url}?application_name=url&pool_max_size=1")
    with made.connect() as conn:
        assert "url" == conn.scalar(text("show application_name"))
        assert given["dbname"] == conn.scalar(text("select current_database()"))
    assert 1 == made.pool.edge.max_size
    made.dispose()


# --- a pool that others use too -------------------------------------------------------


@told
def test_engines_that_share_a_pool_have_their_own_listeners(colour, conninfo):
    pool = pool_of(colour, conninfo, min_size=0, max_size=1)
    one = engine(colour, conninfo, edge=pool, isolation_level="SERIALIZABLE")
    two = engine(colour, conninfo, edge=pool, isolation_level="AUTOCOMMIT")
    came = []
    event.listen(one, "connect", lambda *_: came.append("one"))
    event.listen(two, "connect", lambda *_: came.append("two"))
    pids = set()
    for _ in range(3):
        for made, expected in ((one, "serializable"), (two, "read committed")):
            with made.connect() as conn:
                pids.add(conn.scalar(PID))
                isolation = conn.scalar(text("show transaction_isolation"))
                handlers = driver(conn)._notice_handlers
                assert (expected, 1) == (isolation, len(handlers))
                assert (made is two) == driver(conn).autocommit

    assert 1 == len(pids)
    assert ["one", "two"] == came

    # And who uses it directly finds nothing of theirs.
    conn = waited(result(pool.getconn()))
    assert ([], False) == (conn._notice_handlers, conn.autocommit)
    waited(result(pool.putconn(conn)))
    closed(pool)


@told
def test_what_a_shared_pool_sets_for_others_is_not_the_engines(colour, conninfo):
    kwargs = {"autocommit": True, "row_factory": dict_row}
    pool = pool_of(colour, conninfo, min_size=0, max_size=1, kwargs=kwargs)
    made = engine(colour, conninfo, edge=pool)
    for _ in range(2):
        with made.connect() as conn:
            conn.execute(text("create temp table undone ()"))
            conn.rollback()
            found = conn.execute(text("select to_regclass('undone'), 1")).one()
            assert (None, 1) == tuple(found)

    conn = waited(result(pool.getconn()))
    assert (True, dict_row) == (conn.autocommit, conn.row_factory)
    waited(result(pool.putconn(conn)))
    closed(pool)


HSTORE = text("""select '"a"=>"1"'::hstore""")


@pytest.fixture
def hstore(admin):
    """A type that looks like hstore, of which the test server has none."""
    admin.execute("""create type hstore as enum ('"a"=>"1"')""")
    yield
    admin.execute("drop type hstore")


@told
def test_the_dialect_adapts_on_connections_of_others(colour, conninfo, hstore):
    def configure(conn):
        conn.prepare_threshold = 9

    async def configure_too(conn):
        configure(conn)

    pool = pool_of(
        colour,
        conninfo,
        min_size=0,
        max_size=2,
        configure=configure_too if colour.asynchronous else configure,
    )
    made = engine(
        colour, conninfo, edge=pool, json_deserializer=lambda data: ["mine", len(data)]
    )
    value = text("select '{\"a\": 1}'::json").columns(x=sa.JSON)
    with made.connect() as one, made.connect() as two:
        for conn in (one, two):
            assert ["mine", 8] == conn.scalar(value)
            assert {"a": "1"} == conn.scalar(HSTORE)
            assert 9 == driver(conn).prepare_threshold
    closed(pool)


@told
def test_hstore_on_connections_that_were_open_before_it_was_looked_up(
    colour, conninfo, hstore
):
    made = engine(colour, conninfo, min_size=3, max_size=3)
    conns = [made.connect() for _ in range(3)]

    assert [{"a": "1"}] * 3 == [c.scalar(HSTORE) for c in conns]
    for conn in conns:
        conn.close()
    made.dispose()


@told
def test_a_pool_instance(colour, conninfo):
    pool = pool_of(colour, conninfo, min_size=0, max_size=1)
    made = engine_of(colour, "postgresql+psycopg://", pool=poolclass(colour)(edge=pool))

    assert pid(made) == pid(made)
    assert made.pool.edge is pool
    closed(pool)
