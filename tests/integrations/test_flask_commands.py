"""`flask edgepool`, and what an application's own commands may rely on."""

from __future__ import annotations

import sys

import click
import pytest
from flask import Flask
from flask.cli import FlaskGroup
from psycopg.conninfo import make_conninfo

from edgepool.flask import EdgePool

NOWHERE = "host=127.0.0.1 port=1 password=secret"


def run(app, *arguments):
    """Run what would be `flask ...`; give its exit status and output."""
    group = FlaskGroup(create_app=lambda: app, load_dotenv=False)
    ran = app.test_cli_runner().invoke(group, [*arguments])
    return ran.exit_code, ran.output


@pytest.fixture
def app(conninfo, monkeypatch):
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")  # as Flask does, and leaves it
    made = Flask("web")
    made.config.update(DATABASE_URL=conninfo, EDGEPOOL_MIN_SIZE=1)
    yield made
    for _, pool in made.extensions.get("edgepool", ()):
        pool.close()


def table_of(output):
    """Give the rows of a table as dictionaries."""
    header, *lines = output.splitlines()
    columns = [name for name in header.split("  ") if name]
    starts = [header.index(name) for name in columns] + [None]
    return [
        {
            name.strip(): line[start:end].strip()
            for name, start, end in zip(columns, starts, starts[1:], strict=False)
        }
        for line in lines
    ]


# --- status ---------------------------------------------------------------------------


def test_status_shows_each_pool(app, conninfo):
    app.config.update(EDGEPOOL_MAX_SIZE=3, EDGEPOOL_REPORTS_CONNINFO=NOWHERE)
    db, _ = EdgePool(app), EdgePool(app, name="reports")
    with app.app_context():
        db.connection.execute("select 1")
    status, output = run(app, "edgepool", "status")
    first, second = table_of(output)

    assert 0 == status
    assert ("default", "1", "3") == (first["pool"], first["min"], first["max"])
    assert ("1", "0", "1") == (first["size"], first["in use"], first["requests"])
    assert first["mean use"].endswith(" ms")
    assert ("reports", "0") == (second["pool"], second["size"])


# --- check ----------------------------------------------------------------------------


def test_check_says_what_is_there(app, server, conninfo):
    app.config.update(DIRECT_URL=conninfo)
    EdgePool(app)
    status, output = run(app, "edgepool", "check")
    pooled, direct = table_of(output)

    assert 0 == status
    assert ("default", "default, direct") == (pooled["pool"], direct["pool"])
    assert f"{server.host}:{server.port}/postgres" == pooled["address"]
    assert ("primary", "none") == (pooled["role"], pooled["pooler"])
    assert ("primary", "-") == (direct["role"], direct["pooler"])
    assert pooled["server"][:2].isdigit()
    assert pooled["round trip"].endswith(" ms")


def test_check_names_a_pooler(app, bouncer):
    """Two connections show what one does not."""
    app.config.update(DATABASE_URL=bouncer("transaction").conninfo_for())
    EdgePool(app, max_size=2)
    _, output = run(app, "edgepool", "check")

    assert "transaction" == table_of(output)[0]["pooler"]


def test_check_fails_if_one_pool_cannot_connect_and_looks_at_all(app):
    app.config.update(EDGEPOOL_REPORTS_CONNINFO=NOWHERE)
    EdgePool(app, name="reports")
    EdgePool(app)
    status, output = run(app, "edgepool", "check", "--timeout", "0.1")

    assert 1 == status
    assert "\ndefault  127.0.0.1:" in output
    assert "reports: PoolTimeout: " in output
    assert "Connection refused" in output
    assert "secret" not in output


def test_check_tells_once_why_waiting_would_not_help(app, conninfo):
    app.config.update(DATABASE_URL=make_conninfo(conninfo, dbname="nowhere"))
    EdgePool(app)
    status, output = run(app, "edgepool", "check")
    (told,) = [line for line in output.splitlines() if line.startswith("default: ")]

    assert 1 == status
    assert told.startswith("default: ConnectFailed: ")
    assert 1 == told.count('database "nowhere" does not exist')


def test_check_wants_a_time_above_0(app):
    EdgePool(app)
    status, output = run(app, "edgepool", "check", "--timeout", "0")

    assert 2 == status
    assert "0 is not in the range x>0" in output.replace("0.0", "0")


# --- an application's own commands ----------------------------------------------------


def fail():
    raise ZeroDivisionError


ENDINGS = {
    "return": lambda: None,
    "sys.exit()": sys.exit,
    "sys.exit(0)": lambda: sys.exit(0),
    "ctx.exit()": lambda: click.get_current_context().exit(),
    "sys.exit(2)": lambda: sys.exit(2),
    "abort": lambda: click.get_current_context().abort(),
    "raise": fail,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_command_did_is_kept_if_it_succeeds(app, rows, table, ending):
    db = EdgePool(app)

    @app.cli.command("work")
    def work():
        db.connection.execute(f"insert into {table} values (1)")
        ENDINGS[ending]()

    status, _ = run(app, "work")

    assert ([1] if status == 0 else []) == rows()
    assert (ending in [*ENDINGS][:4]) == (status == 0)


def test_a_command_that_raises_what_it_has_handled_has_failed(app, rows, table):
    db = EdgePool(app)

    @app.cli.command("work")
    def work():
        try:
            fail()
        except ZeroDivisionError:
            db.connection.execute(f"insert into {table} values (1)")
            raise

    status, _ = run(app, "work")

    assert 1 == status
    assert [] == rows()
