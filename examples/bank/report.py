"""What the demo says: before, between and after its runs."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from bank.ledger import Books
from bank.run import Result, Run
from bank.score import Score
from bank.terminal import BOLD, DIM, GREEN, RED, milliseconds, paint, say
from bank.workers import POOL_SIZE

KINDS_SHOWN = 3
COLUMNS = "{:<22}{:>8}{:>13}{:>10}{:>10}{:>8}{:>9}"


def warn_of_given_server() -> None:
    """Say what the demo does to a server that others use."""
    say("Using the server of DATABASE_URL, in a schema that is dropped at the end.")
    say("Its other clients may be refused during the runs without a pool.")


def introduce(admin: Connection[Any]) -> None:
    """Say what the demo is about, and which server this is."""
    row = admin.execute(
        "SELECT current_setting('server_version'), current_setting('max_connections')"
    ).fetchone()
    assert row is not None
    version, max_connections = row
    say()
    say("Bank transfers: pgbench's tables, pgbench's transaction", BOLD)
    say(f"PostgreSQL {version} accepts {max_connections} connections,")
    say("one of which watches the others.")


def announce(run: Run) -> None:
    """Say what comes now."""
    manner = (
        f"the transfers share {POOL_SIZE} connections"
        if run.pooled
        else "each transfer opens a connection of its own"
    )
    say()
    say(f"{paint(run.name, BOLD)}: {manner}")


def conclude(score: Score) -> None:
    """Say what went wrong in a run: its most frequent errors, once each."""
    for kind, count in score.errors.most_common(KINDS_SHOWN):
        say(f"  {count:,} times: {kind}", RED)
    if score.attempts < score.planned:
        say(f"  The time was up after {score.attempts:,} of {score.planned:,}.", DIM)


def show_table(results: list[Result]) -> None:
    """Compare the runs."""
    say()
    head = ("", "done", "transfers/s", "wait p50", "wait p99", "peak", "errors")
    say(COLUMNS.format(*head), BOLD)
    for result in results:
        show_row(result)
    say("wait: for a connection; without a pool, to open it. peak: of sessions.", DIM)
    if not any(result.score.failures for result in results):
        say("This server accepts so many connections that it refused none.")


def show_row(result: Result) -> None:
    """Show what one run has come to."""
    score = result.score
    row = COLUMNS.format(
        result.run.name,
        f"{score.transfers:,}",
        f"{score.rate:,.0f}",
        milliseconds(score.wait(50)),
        milliseconds(score.wait(99)),
        result.peak,
        f"{score.failures:,}",
    )
    say(row, RED if score.failures else GREEN)


def show_books(books: Books) -> None:
    """Show the sums that must be equal."""
    say()
    say("The books", BOLD)
    say(f"  sum of accounts {books.accounts:>14,}")
    say(f"  sum of tellers  {books.tellers:>14,}")
    say(f"  sum of branches {books.branches:>14,}")
    say(f"  sum of history  {books.history:>14,}  in {books.transfers:,} transfers")


def show_verdict(complaints: list[str]) -> None:
    """End with what a pool and a bank promise, or with what they broke."""
    say()
    for complaint in complaints:
        say(f"FAILED: {complaint}", RED)
    if not complaints:
        say("The books balance: each transfer is in all four tables or in none.", GREEN)
        say(f"edgepool: no errors, never more than {POOL_SIZE} sessions.", GREEN)
