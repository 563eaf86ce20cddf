"""The ledger: pgbench's four tables, its transaction, and the check of the books.

Everything lives in the schema `edgepool_demo`, so that the tables of a real pgbench
in the same database are never touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection

# pgbench asks for at least as many branches as there are clients; with fewer, the
# transfers would wait for each other's branch instead of for a connection.
BRANCHES = 50
TELLERS = BRANCHES * 10
ACCOUNTS = BRANCHES * 1_000  # pgbench has 100,000 per branch: too many to fill at once

CREATE_TABLES = """
    CREATE TABLE edgepool_demo.pgbench_branches (
        bid int PRIMARY KEY, bbalance int, filler char(88));
    CREATE TABLE edgepool_demo.pgbench_tellers (
        tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
    CREATE TABLE edgepool_demo.pgbench_accounts (
        aid int PRIMARY KEY, bid int, abalance int, filler char(84));
    CREATE TABLE edgepool_demo.pgbench_history (
        tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
"""

FILL_BRANCHES = """
    INSERT INTO edgepool_demo.pgbench_branches (bid, bbalance)
    SELECT bid, 0 FROM generate_series(1, %s) bid
"""

FILL_TELLERS = """
    INSERT INTO edgepool_demo.pgbench_tellers (tid, bid, tbalance)
    SELECT tid, (tid - 1) / 10 + 1, 0 FROM generate_series(1, %s) tid
"""

FILL_ACCOUNTS = """
    INSERT INTO edgepool_demo.pgbench_accounts (aid, bid, abalance, filler)
    SELECT aid, (aid - 1) / 1000 + 1, 0, '' FROM generate_series(1, %s) aid
"""

# "What Is the 'Transaction' Actually Performed in pgbench?", in PostgreSQL's manual,
# less its BEGIN and END, which are psycopg's to send.
TRANSACTION = (
    """
    UPDATE edgepool_demo.pgbench_accounts
    SET abalance = abalance + %(delta)s WHERE aid = %(aid)s
    """,
    """
    SELECT abalance FROM edgepool_demo.pgbench_accounts WHERE aid = %(aid)s
    """,
    """
    UPDATE edgepool_demo.pgbench_tellers
    SET tbalance = tbalance + %(delta)s WHERE tid = %(tid)s
    """,
    """
    UPDATE edgepool_demo.pgbench_branches
    SET bbalance = bbalance + %(delta)s WHERE bid = %(bid)s
    """,
    """
    INSERT INTO edgepool_demo.pgbench_history (tid, bid, aid, delta, mtime)
    VALUES (%(tid)s, %(bid)s, %(aid)s, %(delta)s, CURRENT_TIMESTAMP)
    """,
)

READ_BOOKS = """
    SELECT (SELECT sum(abalance) FROM edgepool_demo.pgbench_accounts),
           (SELECT sum(tbalance) FROM edgepool_demo.pgbench_tellers),
           (SELECT sum(bbalance) FROM edgepool_demo.pgbench_branches),
           (SELECT coalesce(sum(delta), 0) FROM edgepool_demo.pgbench_history),
           (SELECT count(*) FROM edgepool_demo.pgbench_history)
"""

Transfer = dict[str, int]


@dataclass(frozen=True)
class Books:
    """The four sums that each transfer changes alike, and how many transfers."""

    accounts: int
    tellers: int
    branches: int
    history: int
    transfers: int

    def balance(self) -> bool:
        """Tell whether each transfer is in all four tables or in none."""
        return self.accounts == self.tellers == self.branches == self.history


def create_tables(conn: Connection[Any]) -> None:
    """Create the schema and fill its tables; all balances are zero."""
    try:
        conn.execute("CREATE SCHEMA edgepool_demo")
    except psycopg.errors.DuplicateSchema:
        raise SystemExit(
            "The schema edgepool_demo exists already: another demo runs on this server,"
            " or was killed.\nIf it was killed: DROP SCHEMA edgepool_demo CASCADE"
        ) from None
    conn.execute(CREATE_TABLES)
    conn.execute(FILL_BRANCHES, [BRANCHES])
    conn.execute(FILL_TELLERS, [TELLERS])
    conn.execute(FILL_ACCOUNTS, [ACCOUNTS])
    conn.execute("ANALYZE edgepool_demo.pgbench_accounts")


def drop_tables(conn: Connection[Any]) -> None:
    """Leave the database as it was."""
    conn.execute("SET lock_timeout = '10s'")
    conn.execute("DROP SCHEMA edgepool_demo CASCADE")


def random_transfers(seed: int, count: int) -> Iterator[Transfer]:
    """Draw transfers as pgbench does: the same ones for the same seed."""
    draw = Random(seed).randint
    for _ in range(count):
        yield {
            "aid": draw(1, ACCOUNTS),
            "tid": draw(1, TELLERS),
            "bid": draw(1, BRANCHES),
            "delta": draw(-5000, 5000),
        }


def make_transfer(conn: Connection[Any], transfer: Transfer) -> None:
    """Run pgbench's transaction, less the commit."""
    for statement in TRANSACTION:
        conn.execute(statement, transfer)


async def make_transfer_async(conn: AsyncConnection[Any], transfer: Transfer) -> None:
    """Run pgbench's transaction, less the commit."""
    for statement in TRANSACTION:
        await conn.execute(statement, transfer)


def read_books(conn: Connection[Any]) -> Books:
    """Read all sums in one statement, so in one snapshot."""
    row = conn.execute(READ_BOOKS).fetchone()
    assert row is not None
    return Books(*row)
