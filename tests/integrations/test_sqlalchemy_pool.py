"""An engine with edgepool's pool, as SQLAlchemy's users know engines."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa
from psycopg.types.json import set_json_loads
from sqlalchemy import event, exc, text
from sqlalchemy.orm import Session

import edgepool
from support.engines import (
    PID,
    closed,
    driver,
    engine,
    engine_of,
    opened,
    pid,
    pool_of,
    told,
    url,
    wait_until,
)
from support.parity import PATIENCE

POOL_EVENTS = (
    *("first_connect", "connect", "checkout", "checkin", "reset", "invalidate"),
    *("soft_invalidate", "close", "detach", "close_detached"),
)
ONE = text("select 1")
END = text("select pg_terminate_backend(pg_backend_pid())")


def queue_pool(colour, conninfo, **arguments):
    return engine_of(colour, url(conninfo, colour), **arguments)


# --- what is done once, and what is put back ------------------------------------------


@told
def test_what_connect_listeners_set_holds_for_every_checkout(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, isolation_level="REPEATABLE READ")
    seen = []

    @event.listens_for(made, "connect")
    def connected(connection, record):
        conn = record.driver_connection
        conn.add_notice_handler(seen.append)
        conn.prepare_threshold = 7
        set_json_loads(lambda data: "listener's", conn)
        record.info["connected"] = time.monotonic()

    infos = set()
    for _ in range(3):
        with made.connect() as conn:
            mine = driver(conn)
            infos.add(conn.connection.info["connected"])
            isolation = conn.scalar(text("show transaction_isolation"))
            raw = conn.connection.cursor()
            raw.execute("select '{}'::jsonb")
            found = (isolation, mine.prepare_threshold, raw.fetchone()[0])
            raw.execute("do $$ begin raise notice 'x'; end $$")
            # Not for the next one.
            mine.prepare_threshold = 3
            mine.add_notice_handler(seen.append)
            set_json_loads(lambda data: "borrower's", mine)

        assert ("repeatable read", 7, "listener's") == found

    assert 1 == len(infos)
    assert 3 == len(seen)
    made.dispose()


@told
def test_autocommit_for_a_connection_is_not_the_next_ones(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    with made.connect() as conn:
        conn = conn.execution_options(isolation_level="AUTOCOMMIT")
        conn.execute(text("create temp table t (x int)"))
        assert driver(conn).autocommit

    with made.connect() as conn:
        conn.execute(text("insert into t values (1)"))
        mine = driver(conn)
        assert (False, None) == (mine.autocommit, mine.isolation_level)
        conn.rollback()
        assert 0 == conn.scalar(text("select count(*) from t"))
    made.dispose()


@told
def test_an_engine_in_autocommit(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, isolation_level="AUTOCOMMIT")
    for _ in range(3):
        with made.connect() as conn:
            conn.execute(ONE)
            assert "IDLE" == driver(conn).info.transaction_status.name
    made.dispose()


@told
def test_after_a_clean_up_a_connection_is_connected_anew(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, reset="clean")
    connected = []

    @event.listens_for(made, "connect")
    def connect(connection, record):
        connected.append(record.driver_connection.info.backend_pid)
        cursor = connection.cursor()
        cursor.execute("set application_name = 'listener'")
        connection.commit()

    for _ in range(3):
        with made.connect() as conn:
            assert "listener" == conn.scalar(text("show application_name"))
            conn.execute(text("set application_name = 'borrower'"))
            conn.commit()

    assert 3 == len(connected)
    assert 1 == len(set(connected))
    made.dispose()


# --- events -------------------------------------------------------------------------


def told_of(made):
    """Use an engine in all ways that there are events for; tell which came."""
    came = []

    def listener(name):
        return lambda *arguments: came.append(name)

    for name in POOL_EVENTS:
        event.listen(made, name, listener(name))
    for _ in range(2):
        with made.connect() as conn:
            conn.execute(ONE)
            conn.commit()
    came.append("- rolled back -")
    with made.connect() as conn:
        conn.execute(ONE)
    came.append("- soft -")
    raw = made.raw_connection()
    raw.invalidate(soft=True)
    raw.close()
    with made.connect() as conn:
        conn.execute(ONE)
    came.append("- hard -")
    with made.connect() as conn:
        conn.invalidate()
        conn.execute(ONE)
    came.append("- broken -")
    with made.connect() as conn, pytest.raises(exc.OperationalError):
        conn.execute(END)
    came.append("- detached -")
    with made.connect() as conn:
        conn.detach()
        conn.execute(ONE)
    return came


@pytest.mark.filterwarnings("ignore:.*deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@told
def test_the_events_are_those_of_queue_pool(colour, conninfo):
    theirs = queue_pool(colour, conninfo, pool_size=1, max_overflow=0)
    ours = engine(colour, conninfo, max_size=1)
    # What was detached from the other one is not closed, but dropped, for asyncio.
    more = ["close_detached"] if colour.asynchronous else []

    assert [*told_of(theirs), *more] == told_of(ours)
    wait_until(lambda: ours.pool.checkedout() == 0)
    for made in (theirs, ours):
        made.dispose()


@told
def test_an_error_of_a_connect_listener_costs_no_place(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)

    @event.listens_for(made, "connect")
    def connect(connection, record):
        if len(failed) < 3:
            raise LookupError

    failed = []
    for _ in range(3):
        with pytest.raises(LookupError):
            made.connect()
        failed.append(1)

    assert pid(made)
    made.dispose()


@told
def test_a_checkout_listener_may_ask_for_another_connection(colour, conninfo):
    made = engine(colour, conninfo, max_size=2)
    connected, refused = [], []

    @event.listens_for(made, "connect")
    def connect(connection, record):
        record.info["pid"] = record.driver_connection.info.backend_pid
        connected.append(1)

    with made.connect() as first, made.connect() as second:
        pids = {first.scalar(PID), second.scalar(PID)}

    @event.listens_for(made, "checkout")
    def checkout(connection, record, proxy):
        if not refused:
            refused.append(record.driver_connection.info.backend_pid)
            raise exc.DisconnectionError

    # Mostly the other one, whose listeners have been called; or one that is new.
    with made.connect() as conn:
        served = conn.scalar(PID)
        assert served == conn.connection.info["pid"]
    assert served not in refused
    assert len({*pids, served}) == len(connected)
    made.dispose()


# --- what becomes of connections ------------------------------------------------------


@told
def test_what_the_server_has_ended_is_not_served(colour, conninfo, sessions):
    made = engine(colour, conninfo, max_size=2)
    with made.connect() as first, made.connect() as second:
        before = {first.scalar(PID), second.scalar(PID)}
    sessions.terminate()

    with made.connect() as first, made.connect() as second:
        after = {first.scalar(PID), second.scalar(PID)}

    assert not before & after
    made.dispose()


@told
def test_one_that_breaks_does_not_cost_the_others(colour, conninfo):
    made = engine(colour, conninfo, max_size=2)
    with made.connect() as first:
        with made.connect() as second:
            kept = second.scalar(PID)
        with pytest.raises(exc.OperationalError) as caught:
            first.execute(END)
        assert caught.value.connection_invalidated
        first.rollback()
        assert kept == first.scalar(PID)
    made.dispose()


@told
def test_who_says_that_the_pool_is_bad_has_it_replaced(colour, conninfo, sessions):
    made = engine(colour, conninfo, min_size=3, max_size=3)

    @event.listens_for(made, "handle_error")
    def handle(context):
        context.is_disconnect = True

    with made.connect() as conn:
        # The engine has not seen the others yet.
        wait_until(lambda: sessions.count == 3)
        before = set(sessions.pids)
        with pytest.raises(exc.ProgrammingError):
            conn.execute(text("select no_column"))

    wait_until(lambda: not before & set(sessions.pids))
    made.dispose()


@told
def test_what_is_invalidated_in_mid_query_is_cancelled(colour, conninfo, sessions):
    made = engine(colour, conninfo, max_size=1)
    raw = made.raw_connection()
    raw.driver_connection.pgconn.send_query(b"select pg_sleep(60)")
    wait_until(lambda: "select pg_sleep(60)" in sessions.queries)
    raw.invalidate()

    wait_until(lambda: "select pg_sleep(60)" not in sessions.queries)
    assert pid(made)
    made.dispose()


@told
def test_pre_ping(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, pool_pre_ping=True)
    pings = []
    do_ping = made.dialect.do_ping
    made.dialect.do_ping = lambda conn: pings.append(1) or do_ping(conn)
    before = pid(made)

    assert before == pid(made)
    assert [1] == pings

    made.dialect.do_ping = lambda conn: False

    assert before != pid(made)
    made.dispose()


@told
def test_recycle(colour, conninfo):
    pool = pool_of(colour, conninfo, min_size=0, max_size=1)
    # Older than 0 seconds is every connection that was used before.
    made = engine(colour, conninfo, edge=pool, pool_recycle=0)
    connected = []
    event.listen(made, "connect", lambda *_: connected.append(1))

    pids = [pid(made) for _ in range(4)]

    assert 4 == len(set(pids)) == len(connected)
    closed(pool)


@told
def test_recycle_is_the_lifetime_of_idle_connections_too(colour, conninfo):
    made = engine(colour, conninfo, pool_recycle=7)

    assert 7 == made.pool.edge.max_lifetime


@told
def test_a_detached_connection_keeps_its_place_until_it_is_closed(
    colour, conninfo, sessions
):
    made = engine(colour, conninfo, max_size=1)
    conn = made.connect()
    conn.detach()
    conn.execute(ONE)

    made.pool.edge.timeout = 0.05
    with pytest.raises(exc.TimeoutError):
        made.connect()
    made.pool.edge.timeout = PATIENCE
    conn.close()
    assert pid(made)
    assert 1 == sessions.count
    made.dispose()


@told
def test_a_detached_connection_that_breaks_gives_its_place_back(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, timeout=PATIENCE)
    with made.connect() as conn:
        conn.detach()
        with pytest.raises(exc.OperationalError) as kept:
            conn.execute(END)

        assert pid(made)
    assert kept.value.connection_invalidated
    made.dispose()


@told
def test_a_detached_connection_that_is_found_broken_at_the_end_gives_its_place_back(
    colour, conninfo, caplog
):
    made = engine(colour, conninfo, max_size=1, timeout=PATIENCE)
    conn = made.connect()
    conn.detach()
    conn.connection.dbapi_connection.close()
    conn.close()

    assert pid(made)
    assert "the connection is closed" in caplog.text  # SQLAlchemy says so itself
    made.dispose()


@told
def test_dispose_closes_what_is_idle_now_and_the_rest_on_return(
    colour, conninfo, sessions
):
    made = engine(colour, conninfo, min_size=2, max_size=4)
    with made.connect() as conn:
        mine = conn.scalar(PID)
        wait_until(lambda: made.pool.checkedin() == 1)
        made.dispose()
        wait_until(lambda: sessions.pids == [mine])
        assert 1 == conn.scalar(ONE)
    wait_until(lambda: sessions.count == 0)

    # And it can be used again.
    assert mine != pid(made)
    wait_until(lambda: sessions.count == 2)
    made.dispose()
    wait_until(lambda: sessions.count == 0)


@told
def test_dispose_leaves_a_pool_of_yours_alone(colour, conninfo, sessions):
    pool = pool_of(colour, conninfo, min_size=0, max_size=2)
    made = engine(colour, conninfo, edge=pool)
    before = pid(made)
    made.dispose()

    assert not pool.closed
    assert before == pid(made)
    assert made.pool.edge is pool
    closed(pool)
    wait_until(lambda: sessions.count == 0)


# --- numbers and errors ---------------------------------------------------------------


@told
def test_the_numbers_are_those_of_queue_pool(colour, conninfo):
    theirs = queue_pool(colour, conninfo, pool_size=2, max_overflow=1)
    ours = engine(colour, conninfo, pool_size=2, max_overflow=1)

    def numbers():
        return [
            (
                *(p.status(), p.size(), p.checkedin()),
                *(p.checkedout(), p.overflow(), p.timeout()),
            )
            for p in (theirs.pool, ours.pool)
        ]

    for held in range(4):
        conns = [made.connect() for made in (theirs, ours) for _ in range(held)]
        assert numbers()[0] == numbers()[1]
        for conn in conns:
            conn.close()
    for made in (theirs, ours):
        made.dispose()


@told
def test_who_waits_in_vain_gets_a_timeout(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    with made.connect():
        made.pool.edge.timeout = 0.05
        with pytest.raises(exc.TimeoutError) as caught:
            made.connect()

    assert isinstance(caught.value.__cause__, edgepool.PoolTimeout)
    assert "3o7r" == caught.value.code
    assert "1 in use" in str(caught.value)
    made.dispose()


@told
def test_a_server_that_cannot_be_reached_is_an_operational_error(colour, conninfo):
    made = engine(colour, "postgresql://127.0.0.1:1/nowhere", min_size=1, timeout=0.05)
    edge = made.pool.edge
    opened(edge)
    wait_until(lambda: edge.statistics().connect_errors)
    with pytest.raises(exc.OperationalError) as caught:
        made.connect()

    assert isinstance(caught.value.orig, edgepool.PoolTimeout)
    made.dispose()


@told
def test_what_waiting_cannot_help_is_an_operational_error_at_once(colour, conninfo):
    made = engine(colour, sa.make_url(url(conninfo, colour)).set(database="nowhere"))
    with pytest.raises(exc.OperationalError, match="nowhere") as caught:
        made.connect()

    assert isinstance(caught.value.orig, edgepool.ConnectFailed)
    made.dispose()


# --- transactions ---------------------------------------------------------------------


@told
def test_sessions_savepoints_and_two_phases(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    with Session(made) as session, session.begin():
        session.execute(text("create temp table t (x int)"))
        with pytest.raises(exc.ProgrammingError), session.begin_nested():
            session.execute(text("insert into no_table values (1)"))
        session.execute(text("insert into t values (1)"))
    with Session(made) as session:
        assert [1] == session.scalars(text("select x from t")).all()
        session.execute(text("insert into t values (2)"))
    with made.connect() as conn:
        transaction = conn.begin_twophase()
        assert 1 == conn.scalar(text("select count(*) from t"))
        transaction.rollback()
    with made.connect() as conn:
        streaming = conn.execution_options(stream_results=True, max_row_buffer=2)
        rows = streaming.execute(text("select * from generate_series(1, 10)"))
        assert [1, 2, 3] == [rows.fetchone()[0] for _ in range(3)]
        rows.close()
    assert 0 == made.pool.checkedout()
    made.dispose()


@pytest.mark.parametrize(("reset", "rows"), [("rollback", 0), ("commit", 1), (None, 0)])
@told
def test_reset_on_return(colour, conninfo, reset, rows):
    made = engine(colour, conninfo, max_size=1, pool_reset_on_return=reset)
    with made.begin() as conn:
        conn.execute(text("create temp table t (x int)"))
    raw = made.raw_connection()
    raw.cursor().execute("insert into t values (1)")
    raw.close()

    # Also without a reset nobody finds somebody else's transaction.
    with made.connect() as conn:
        assert rows == conn.scalar(text("select count(*) from t"))
    made.dispose()


def prepared(conn):
    """Tell what the server has prepared in a session."""
    names = conn.scalars(text("select name from pg_prepared_statements"))
    return [name.encode() for name in names]


@told
def test_what_only_reads_keeps_its_prepared_statements(colour, conninfo):
    made = engine(colour, conninfo, max_size=1, connect_args={"prepare_threshold": 2})
    for _ in range(3):
        with made.connect() as conn:
            conn.scalar(text("select 42 + cast(:n as int)"), {"n": 1})
    with made.connect() as conn:
        mine = driver(conn)
        (kept,) = mine._prepared._names.values()
        assert [kept] == prepared(conn)

    # But what was changed may be what they refer to.
    with made.connect() as conn:
        conn.execute(text("create temp table undone ()"))
    with made.connect() as conn:
        assert [] == prepared(conn)
    made.dispose()


@told
def test_a_rollback_that_psycopg_forbids_is_forbidden(colour, conninfo):
    made = engine(colour, conninfo, max_size=1)
    with made.connect() as conn:
        conn.execute(ONE)
        mine = driver(conn)
        mine._num_transactions = 1
        with pytest.raises(exc.ProgrammingError, match="Explicit rollback"):
            conn.rollback()
        mine._num_transactions = 0
    made.dispose()


@told
def test_a_session_that_ends_before_its_rollback_is_invalidated(
    colour, conninfo, sessions
):
    made = engine(colour, conninfo, max_size=1)
    with made.connect() as conn:
        before = conn.scalar(PID)
        sessions.terminate(before)
        with pytest.raises(exc.OperationalError) as caught:
            conn.rollback()
        assert caught.value.connection_invalidated
    assert before != pid(made)
    made.dispose()


@told
def test_there_is_no_round_trip_more_than_with_queue_pool(colour, conninfo, proxy):
    def asked(made):
        def use(commit):
            with made.connect() as conn:
                conn.execute(ONE)
                if commit:
                    conn.commit()

        use(True)
        with proxy.recording() as messages:
            for commit in (True, False):
                use(commit)
            raw = made.raw_connection()
            raw.cursor().execute("select 1")
            raw.close()
        made.dispose()
        # Ours asks, in the same round trip, whether there is anything to undo.
        return [
            (kind, body.rpartition(b"; ")[-1])
            for kind, body in messages
            if kind in "QPS"
        ]

    theirs = queue_pool(colour, proxy.conninfo(), pool_size=1, max_overflow=0)
    ours = engine(colour, proxy.conninfo(), max_size=1)

    assert asked(theirs) == asked(ours)
