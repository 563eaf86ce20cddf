"""The examples are what a newcomer runs first: they work, as programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from edgepool.testing import PostgresServer

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 100  # seconds; the quick demo takes 6


def run_example(
    name: str, *options: str, database_url: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run an example as a newcomer does, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *options],
        env={**os.environ, "DATABASE_URL": database_url, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture(scope="module")
def quick_demo() -> subprocess.CompletedProcess[str]:
    """Run the short demo once, for all tests that read what it says."""
    return run_example("demo.py", "--quick")


def row_of_table(output: str, name: str) -> list[str]:
    """Return the cells that the table has for a run."""
    rows = [line for line in output.splitlines() if line.startswith(f"{name}  ")]
    assert len(rows) == 1, output

    return rows[0].removeprefix(name).replace(" ms", "").replace(",", "").split()


@pytest.mark.parametrize("name", ["quickstart.py", "quickstart_async.py"])
def test_a_quickstart_prints_what_it_asked_for_and_nothing_else(
    name: str, conninfo: str
) -> None:
    ran = run_example(name, database_url=conninfo)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.split(", ")) == 3


def test_the_demo_ends_well(quick_demo: subprocess.CompletedProcess[str]) -> None:
    assert (quick_demo.returncode, quick_demo.stderr) == (0, ""), quick_demo.stdout
    assert "\nThe books balance" in quick_demo.stdout
    assert "\nedgepool: no errors, never more than 10 sessions." in quick_demo.stdout


@pytest.mark.parametrize("who", ["200 threads", "1,000 tasks"])
def test_without_a_pool_the_server_refuses_connections(
    who: str, quick_demo: subprocess.CompletedProcess[str]
) -> None:
    cells = row_of_table(quick_demo.stdout, f"{who}, no pool")
    peak, errors = int(cells[-2]), int(cells[-1])

    assert "times: FATAL: sorry, too many clients already" in quick_demo.stdout
    assert errors > 0
    assert 10 < peak < 30


@pytest.mark.parametrize("who", ["200 threads", "1,000 tasks"])
def test_with_the_pool_ten_sessions_make_all_transfers(
    who: str, quick_demo: subprocess.CompletedProcess[str]
) -> None:
    done, *_, peak, errors = row_of_table(quick_demo.stdout, f"{who}, edgepool")

    assert [done, peak, errors] == ["1000", "10", "0"]


def test_the_demo_leaves_a_given_database_as_it_was(
    own_server: Callable[..., PostgresServer],
) -> None:
    server = own_server(settings={"max_connections": 20})
    with psycopg.connect(server.conninfo, autocommit=True) as conn:
        conn.execute("CREATE TABLE pgbench_history AS SELECT 42 AS delta")

        ran = run_example("demo.py", "--quick", database_url=server.url)
        kept = conn.execute(
            "SELECT relnamespace::regnamespace::text, relname FROM pg_class"
            " WHERE relname LIKE 'pgbench%'"
        ).fetchall()
        history = conn.execute("SELECT delta FROM pgbench_history").fetchall()

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert kept == [("public", "pgbench_history")]
    assert history == [(42,)]


def test_the_demo_says_in_a_line_that_there_is_no_server() -> None:
    ran = run_example("demo.py", database_url="host=127.0.0.1 port=1")

    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "The demo could not go on: " in ran.stderr
