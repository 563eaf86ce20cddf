"""A Flask application has one connection in each request, and none in between."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import threading

import pytest
from flask import Flask, abort, stream_with_context

from edgepool import ConnectionReturned, NestedBorrow, NullConnectionPool, PoolTimeout
from edgepool.flask import EdgePool

IN_TIME = 30.0


@pytest.fixture
def make_app(conninfo, table):
    """Make applications, and close their pools in the end."""
    made = []

    def make_app(*extensions, name="web", **config):
        app = Flask(name)
        app.config.update(DATABASE_URL=conninfo, EDGEPOOL_MIN_SIZE=1, **config)
        made.append(app)
        for extension in extensions:
            extension.init_app(app)
        return app

    yield make_app
    for app in made:
        for _, pool in app.extensions.get("edgepool", ()):
            pool.close()


@pytest.fixture
def db():
    return EdgePool()


@pytest.fixture
def app(make_app, db, table):
    """An application that inserts what its path says, and then does what it says."""
    app = make_app(db)

    @app.get("/<int:number>/<ending>")
    def insert(number, ending):
        db.connection.execute(f"insert into {table} values (%s)", [number])
        return ENDINGS[ending](db)

    @app.errorhandler(LookupError)
    def missing(error):
        return "handled", 500

    return app


def committed_first(db):
    db.connection.commit()
    abort(403)


def commit_fails(db):
    db.connection.execute(db.connection.info.get_parameters()["application_name"])


ENDINGS = {
    "ok": lambda db: "fine",
    "redirect": lambda db: ("", 303, {"Location": "/"}),
    "aborted": lambda db: abort(409),
    "refused": lambda db: ({"errors": []}, 422),
    "handled": lambda db: {}["missing"],
    "unhandled": lambda db: 1 / 0,
    "a query fails": lambda db: str(db.connection.execute("select 1 / 0")),
    "stop 0": lambda db: sys.exit(0),
    "stop 1": lambda db: sys.exit(1),
    "committed first": committed_first,
}


def in_use(db, app):
    with app.app_context():
        return db.pool.statistics().in_use


# --- a request ------------------------------------------------------------------------


def test_nothing_connects_before_the_first_use(make_app, db, sessions):
    app = make_app(db)
    app.add_url_rule("/", view_func=lambda: "without a database")

    assert 200 == app.test_client().get("/").status_code
    with app.app_context():
        assert db.pool.closed
    assert 0 == sessions.count


def test_a_request_has_one_connection_and_returns_it(make_app, db):
    app = make_app(db)

    @app.get("/")
    def view():
        first, second = db.connection, db.connection
        return [first is second, db.pool.statistics().in_use]

    assert [True, 1] == app.test_client().get("/").json
    assert 0 == in_use(db, app)


@pytest.mark.parametrize(
    ("ending", "status", "kept"),
    [
        ("ok", 200, True),
        ("redirect", 303, True),
        ("aborted", 409, False),
        ("refused", 422, False),
        ("handled", 500, False),
        ("unhandled", 500, False),
        ("a query fails", 500, False),
        ("committed first", 403, True),
    ],
)
def test_what_a_request_did_is_kept_unless_it_ends_in_an_error(
    app, db, rows, ending, status, kept
):
    response = app.test_client().get(f"/1/{ending}")

    assert status == response.status_code
    assert ([1] if kept else []) == rows()
    assert 0 == in_use(db, app)


@pytest.mark.parametrize("status", [0, 1])
def test_a_worker_that_is_told_to_stop_at_once_keeps_nothing(app, db, rows, status):
    """As gunicorn's, whose handler of the signal raises SystemExit in the view."""
    with pytest.raises(SystemExit):
        app.test_client().get(f"/1/stop {status}")

    assert [] == rows()
    assert 0 == in_use(db, app)


def test_a_commit_that_fails_is_an_error_of_the_request(app, db, rows):
    @app.errorhandler(500)
    def failed(error):
        return type(error.original_exception).__name__, 500

    client = app.test_client()
    client.get("/1/ok")
    response = client.get("/1/ok")

    assert (500, "UniqueViolation") == (response.status_code, response.text)
    assert [1] == rows()
    assert 0 == in_use(db, app)


def test_the_pool_is_told_of_the_error_that_ends_a_request(make_app, db, table):
    app = make_app(db)

    @app.get("/")
    def write():
        db.connection.execute("set transaction read only")
        db.connection.execute(f"insert into {table} values (1)")

    assert 500 == app.test_client().get("/").status_code
    with app.app_context():
        assert 1 == db.pool.statistics().read_only_errors


def test_the_connection_is_returned_before_other_hooks_and_may_be_borrowed_again(
    make_app, db, table, rows
):
    """By a hook that was registered before the extension: it runs after it."""
    app = make_app()

    @app.after_request
    def audit(response):
        counts.append(db.pool.statistics().in_use)
        db.connection.execute(f"insert into {table} values (2)")
        return response

    @app.get("/")
    def view():
        db.connection.execute(f"insert into {table} values (1)")
        return ""

    counts = []
    db.init_app(app)
    app.test_client().get("/")

    assert [0] == counts
    assert [1, 2] == rows()
    assert 0 == in_use(db, app)


def test_give_back_commits_and_the_next_use_borrows_anew(make_app, db, table, rows):
    app = make_app(db)

    @app.get("/")
    def view():
        db.give_back()
        db.connection.execute(f"insert into {table} values (1)")
        db.give_back()
        seen.extend([rows(), db.pool.statistics().in_use])
        db.connection.execute(f"insert into {table} values (2)")
        abort(400)

    seen = []
    app.test_client().get("/")

    assert [[1], 0] == seen
    assert [1] == rows()


def test_what_is_borrowed_from_the_pool_itself_is_the_borrowers(make_app, db):
    app = make_app(db, EDGEPOOL_MAX_SIZE=2)

    @app.get("/")
    def view():
        with db.pool.connection() as conn:
            return [conn is db.connection, db.pool.statistics().in_use]

    assert [False, 2] == app.test_client().get("/").json


# --- streams --------------------------------------------------------------------------


@pytest.fixture
def streaming(make_app, db, table):
    """An application whose answer is a stream that uses the database from `from_`."""
    app = make_app(db)

    @app.get("/<int:first_use>")
    def view(first_use):
        db.connection.execute(f"insert into {table} values (1)")

        def numbers():
            for number in range(4):
                if number >= first_use:
                    db.connection.execute(f"insert into {table} values (2 + {number})")
                yield f"{number}"

        return stream_with_context(numbers())

    return app


def test_a_stream_holds_no_connection(streaming, db, rows):
    response = streaming.test_client().get("/100")
    stream = response.iter_encoded()

    assert [1] == rows()
    assert b"0" == next(stream)
    assert 0 == in_use(db, streaming)
    assert [b"1", b"2", b"3"] == list(stream)

    response.close()


def test_a_stream_that_uses_the_database_holds_a_connection_to_its_end(
    streaming, db, rows
):
    response = streaming.test_client().get("/1")
    stream = response.iter_encoded()
    held = [in_use(db, streaming) for _ in stream]
    response.close()

    assert [0, 1, 1, 1] == held
    assert 0 == in_use(db, streaming)
    assert [1, 3, 4, 5] == rows()


def test_a_stream_that_nobody_reads_to_its_end_is_rolled_back(streaming, db, rows):
    response = streaming.test_client().get("/0")
    next(response.iter_encoded())
    response.close()
    gc.collect()

    assert 0 == in_use(db, streaming)
    assert [1] == rows()


# --- contexts without a request -------------------------------------------------------


def test_a_context_commits_at_its_end(app, db, table, rows):
    with app.app_context():
        db.connection.execute(f"insert into {table} values (1)")

    assert [1] == rows()
    assert 0 == in_use(db, app)


def test_a_context_that_ends_in_an_exception_is_rolled_back(app, db, table, rows):
    with pytest.raises(ZeroDivisionError), app.app_context():
        db.connection.execute(f"insert into {table} values (1)")
        raise ZeroDivisionError

    assert [] == rows()
    assert 0 == in_use(db, app)


def test_a_context_in_the_handler_of_an_exception_is_not_rolled_back_for_that(
    app, db, table, rows
):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        with app.app_context():
            db.connection.execute(f"insert into {table} values (1)")

    assert [1] == rows()


def test_a_context_in_a_handler_is_not_rolled_back_whatever_it_handles_itself(
    app, db, table, rows
):
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        with app.app_context():
            try:
                raise LookupError
            except LookupError:
                db.connection.execute(f"insert into {table} values (1)")

    assert [1] == rows()


def test_each_of_nested_contexts_has_a_connection_of_its_own(make_app, db, table, rows):
    app = make_app(db, EDGEPOOL_MAX_SIZE=2)
    with app.app_context():
        outer = db.connection
        with app.app_context():
            assert outer is not db.connection

            db.connection.execute(f"insert into {table} values (1)")

        assert [1] == rows()
        assert outer is db.connection
        assert 1 == db.pool.statistics().in_use


def test_what_is_told_of_a_connection_names_the_program_and_not_its_integration(
    make_app, db
):
    app = make_app(db, EDGEPOOL_MAX_SIZE=1)
    with app.app_context():
        outer = db.connection
        with app.app_context(), pytest.raises(NestedBorrow) as nested:
            _ = db.connection
    with pytest.raises(ConnectionReturned) as returned:
        outer.execute("select 1")

    assert re.search(r"was borrowed at \S+/test_flask\.py:\d+,", str(nested.value))
    assert re.search(r"by what borrowed it at \S+/test_flask\.py:", str(returned.value))


def test_a_request_within_a_context_returns_its_connection(app, db, rows):
    """As in the fixture of many test suites; the request may share that context."""
    app.testing = True
    client = app.test_client()
    with app.app_context():
        client.get("/1/ok")

        assert [1] == rows()
        with pytest.raises(ZeroDivisionError):
            client.get("/2/unhandled")
        assert 0 == db.pool.statistics().in_use
        assert [1] == rows()


def test_outside_of_a_context_flask_says_so(app, db):
    with pytest.raises(RuntimeError, match="outside of application context"):
        _ = db.connection


# --- several --------------------------------------------------------------------------


def test_a_request_may_use_several_pools(make_app, conninfo, table, rows):
    db, reports = EdgePool(), EdgePool(name="reports")
    app = make_app(db, reports, EDGEPOOL_REPORTS_CONNINFO=conninfo)

    @app.get("/")
    def view():
        assert db.connection is not reports.connection
        for each, number in ((db, 1), (reports, 2)):
            each.connection.execute(f"insert into {table} values (%s)", [number])
        return [db.pool.name, reports.pool.name]

    assert ["web", "web-reports"] == app.test_client().get("/").json
    assert [1, 2] == rows()


@pytest.mark.parametrize("first", ["db", "reports"])
def test_where_one_commit_fails_what_follows_is_rolled_back(
    make_app, conninfo, table, rows, first
):
    db, reports = EdgePool(), EdgePool(name="reports")
    app = make_app(db, reports, EDGEPOOL_REPORTS_CONNINFO=conninfo)

    @app.get("/")
    def view():
        one, two = (db, reports) if first == "db" else (reports, db)
        one.connection.execute(f"insert into {table} values (1), (1)")
        two.connection.execute(f"insert into {table} values (2)")
        return ""

    assert 500 == app.test_client().get("/").status_code
    assert [] == rows()
    assert [0, 0] == [in_use(each, app) for each in (db, reports)]


def test_one_extension_serves_several_applications(make_app, db):
    one, two = make_app(db, name="one"), make_app(db, name="two")
    with one.app_context(), two.app_context():
        name = db.pool.name
    with one.app_context():
        assert ["two", "one"] == [name, db.pool.name]


def test_an_application_refuses_a_second_one_of_the_same_name(app, db):
    with pytest.raises(RuntimeError, match="has an EdgePool called 'default' already"):
        db.init_app(app)
    with pytest.raises(RuntimeError, match="has an EdgePool called 'default' already"):
        EdgePool(app)


def test_an_extension_that_does_not_know_the_application_says_so(app, make_app):
    other = EdgePool()
    with app.app_context(), pytest.raises(RuntimeError, match="call its init_app"):
        _ = other.connection
    with make_app().app_context(), pytest.raises(RuntimeError, match="init_app"):
        _ = other.pool


def test_it_may_be_a_null_pool(make_app, db, sessions):
    db = EdgePool(pool_class=NullConnectionPool, min_size=0)
    app = make_app(db)
    with app.app_context():
        db.connection.execute("select 1")

        assert isinstance(db.pool, NullConnectionPool)
        assert 1 == sessions.count


# --- async views ----------------------------------------------------------------------


def test_an_async_view_has_one_connection_even_in_threads(make_app, db, table, rows):
    app = make_app(db)

    @app.get("/<int:status>")
    async def view(status):
        def use():
            together.wait(IN_TIME)
            return id(db.connection)

        seen = await asyncio.gather(*(asyncio.to_thread(use) for _ in range(2)))
        db.connection.execute(f"insert into {table} values (%s)", [status])
        return {"connections": len({*seen, id(db.connection)})}, status

    together = threading.Barrier(2)
    client = app.test_client()

    assert {"connections": 1} == client.get("/200").json
    assert {"connections": 1} == client.get("/500").json
    assert [200] == rows()
    assert 0 == in_use(db, app)


def test_the_thread_of_an_async_view_that_is_over_is_not_taken_for_another_one(
    make_app, db
):
    """Its number is free before the connection is returned."""
    app = make_app(db, EDGEPOOL_MAX_SIZE=1)

    @app.get("/")
    async def view():
        db.connection.execute("select 1")
        numbers.append(threading.get_ident())
        threads.append(threading.current_thread())
        return ""

    @app.after_request
    def meanwhile(response):
        threads.pop().join(IN_TIME)
        with app.app_context():
            thread = threading.Thread(target=borrow, args=[db.pool])
        thread.start()
        thread.join()
        return response

    def borrow(pool):
        numbers.append(threading.get_ident())
        with pytest.raises(PoolTimeout) as refused, pool.connection(timeout=0.01):
            pass
        errors.append(refused.type)

    threads, numbers, errors = [], [], []
    for _ in range(5):
        app.test_client().get("/")

    assert any(one == two for one, two in zip(numbers[::2], numbers[1::2], strict=True))
    assert NestedBorrow not in errors
    assert [PoolTimeout] * 5 == errors
