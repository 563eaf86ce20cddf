"""The guestbook of examples/flask, under gunicorn, as its visitors see it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from edgepool.testing._address import release_port, reserve_port
from support.parity import poll_until

if TYPE_CHECKING:
    from edgepool.testing import PostgresServer

HERE = Path(__file__).parents[2] / "examples" / "flask"
PATIENCE = 60


@pytest.fixture(scope="module")
def database(server: PostgresServer) -> Iterator[str]:
    """A database of the guestbook's own, with its tables."""
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute("create database guestbook")
        conninfo = server.conninfo_for(dbname="guestbook")
        for _ in range(2):  # the second time there is nothing to do
            flask("create-tables", conninfo)
        yield conninfo
        admin.execute("drop database guestbook with (force)")


def flask(*arguments: str) -> str:
    """Run a command of the application."""
    *command, conninfo = arguments
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "flask", "--app", "guestbook", *command],
        cwd=HERE,
        env={**os.environ, "DATABASE_URL": conninfo},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr

    return ran.stdout


@pytest.fixture(scope="module")
def visitor(database: str) -> Iterator[httpx.Client]:
    """Somebody who visits; the application ends in order when he is gone."""
    port = reserve_port()
    gunicorn = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
            *("--preload", "--workers", "2", "--threads", "4"),
            *("--log-level", "warning", "guestbook:create_app()"),
        ],
        cwd=HERE,
        env={**os.environ, "DATABASE_URL": database},
    )
    transport = httpx.HTTPTransport(retries=10)
    address = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=address, transport=transport, timeout=PATIENCE) as one:
        yield one
    gunicorn.terminate()

    assert 0 == gunicorn.wait(PATIENCE)

    release_port(port)
    poll_until(lambda: not of_guestbook(database), otherwise="a session is left")


def of_guestbook(database: str) -> int:
    """Count the sessions of the application."""
    query = (
        "select count(*) from pg_stat_activity"
        " where datname = 'guestbook' and pid <> pg_backend_pid()"
    )
    with psycopg.connect(database) as conn:
        (count,) = conn.execute(query).fetchone() or (0,)
    return int(count)


def sign(visitor: httpx.Client, name: str, text: str) -> httpx.Response:
    return visitor.post("/", data={"name": name, "text": text})


def test_what_a_visitor_writes_is_there_for_the_next_one(
    visitor: httpx.Client,
) -> None:
    before = visitor.get("/").text
    signed = sign(visitor, "Ada", "A <lovely> place")
    after = visitor.get("/").text

    assert (303, "/") == (signed.status_code, signed.headers["Location"])
    assert "lovely" not in before
    assert "<p>A &lt;lovely&gt; place</p>" in after
    assert "<small>Ada, " in after


@pytest.mark.parametrize(("name", "text"), [("", "x"), ("Eve", ""), ("Eve", "x" * 501)])
def test_an_entry_that_says_nothing_or_too_much_is_refused(
    visitor: httpx.Client, name: str, text: str
) -> None:
    before = visitor.get("/entries.csv").text

    assert 422 == sign(visitor, name, text).status_code
    assert before == visitor.get("/entries.csv").text


def test_all_entries_can_be_had(visitor: httpx.Client, database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute(
            "insert into entries (name, text)"
            " select 'Grace', 'No ' || n from generate_series(1, 5000) n"
        )
    entries = [*csv.reader(visitor.get("/entries.csv").text.splitlines())]
    graces = [text for _, _, name, text in entries if name == "Grace"]

    assert [f"No {n}" for n in range(1, 5001)] == graces


def test_check_finds_the_database(visitor: httpx.Client, database: str) -> None:
    assert "/guestbook " in flask("edgepool", "check", database)


def test_the_example_serves_a_crowd() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(HERE), "--seconds", "0.5"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout
    assert "\nread " in ran.stdout
    assert " 0 errors, never more than " in ran.stdout
    assert "gunicorn has ended, and has left 0 sessions.\n" in ran.stdout
