"""Bank transfers by 200 threads and by 1,000 tasks: first without a pool, then with.

Without a pool each transfer opens a connection of its own, and the server, which
accepts 30, turns most of them away. With edgepool the same transfers share ten.
In the end the books must balance.

    python examples/demo.py            about half a minute
    python examples/demo.py --quick    a few seconds

It starts a PostgreSQL of its own. If DATABASE_URL is set it uses that server instead,
in a schema that it creates and drops; expect other clients of that server to be
refused while the runs without a pool last.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from bank import ledger, report
from bank.run import Result, Run
from bank.score import Score
from bank.terminal import say
from bank.watch import Watch
from bank.workers import (
    POOL_SIZE,
    allow_open_files,
    tasks_with_pool,
    tasks_without_pool,
    threads_with_pool,
    threads_without_pool,
)
from edgepool.testing import PostgresServer

# PostgreSQL's default is 100 connections. A test server would not wait for the disk,
# a bank's does.
SERVER_SETTINGS: dict[str, str | int | float] = {
    "max_connections": 30,
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
}
TIME_CAP = 10.0  # seconds for each run, where a machine is too slow for all of it


def main() -> int:
    """Run the demo; return 0 if edgepool kept its promises and the books balance."""
    parser = argparse.ArgumentParser(description="Bank transfers, without and with.")
    parser.add_argument("--quick", action="store_true", help="make fewer transfers")
    runs = plan(parser.parse_args().quick)
    allow_open_files()

    with database() as conninfo, psycopg.connect(conninfo, autocommit=True) as admin:
        report.introduce(admin)
        ledger.create_tables(admin)
        try:
            results = [carry_out(run, conninfo, admin) for run in runs]
            books = ledger.read_books(admin)
        finally:
            ledger.drop_tables(admin)

    report.show_table(results)
    report.show_books(books)
    complaints = list(find_complaints(results, books))
    report.show_verdict(complaints)
    return 1 if complaints else 0


def plan(quick: bool) -> list[Run]:
    """List the runs: the same transfers, first without a pool and then with it."""
    each_thread, each_task = (5, 1) if quick else (25, 12)
    return [
        Run("200 threads, no pool", threads_without_pool, 200, each_thread),
        Run("200 threads, edgepool", threads_with_pool, 200, each_thread, pooled=True),
        Run("1,000 tasks, no pool", tasks_without_pool, 1000, each_task),
        Run("1,000 tasks, edgepool", tasks_with_pool, 1000, each_task, pooled=True),
    ]


@contextmanager
def database() -> Iterator[str]:
    """Provide a server: the one of DATABASE_URL, or one that ends with the demo."""
    given = os.environ.get("DATABASE_URL")
    if given:
        report.warn_of_given_server()
        yield given
        return
    say("Starting a PostgreSQL for the demo ...")
    with PostgresServer(settings=SERVER_SETTINGS) as server:
        yield server.conninfo


def carry_out(run: Run, conninfo: str, admin: Connection[Any]) -> Result:
    """Let the workers work, show how far they are, and leave no session behind."""
    report.announce(run)
    conninfo = make_conninfo(conninfo, application_name=run.session_name)
    score = Score(run.planned, TIME_CAP)
    with Watch(admin, run.session_name, score) as watch:
        run.work(conninfo, score, run.workers, run.each)
    report.conclude(score)
    watch.wait_until_gone()
    return Result(run, score, watch.peak)


def find_complaints(results: list[Result], books: ledger.Books) -> Iterator[str]:
    """Compare what has happened with what a pool and a bank promise."""
    made = sum(result.score.transfers for result in results)
    if not books.balance():
        yield "The books do not balance."
    if books.transfers != made:
        yield f"{made:,} transfers were made, but history has {books.transfers:,}."
    for result in results:
        if result.run.pooled and result.score.failures:
            yield f"{result.run.name}: {result.score.failures:,} errors."
        if result.run.pooled and result.peak > POOL_SIZE:
            yield f"{result.run.name}: {result.peak} sessions, at most {POOL_SIZE}."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    except psycopg.Error as error:
        sys.exit(f"The demo could not go on: {error}")
