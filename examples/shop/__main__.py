"""Open a shop in Flask, Django or FastAPI, send customers in, and do the accounts.

    python examples/shop flask
    python examples/shop django fastapi --customers 32 --seconds 10

Starts a PostgreSQL on this machine, for as long as it takes.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from load import Report, load
from servers import COMMANDS, WORKERS, Shop

from edgepool.testing import PostgresServer

SCHEMA = Path(__file__).with_name("schema.sql").read_text()
POOL_SIZE = 4


class Watch:
    """How many sessions the shop had at the database, at most."""

    def __init__(self) -> None:
        self.peak = 0


@contextmanager
def watching(admin: psycopg.Connection) -> Iterator[Watch]:
    """Count the sessions during the block."""
    watch, over = Watch(), threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            (sessions,) = admin.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ).fetchone() or (0,)
            watch.peak = max(watch.peak, sessions)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield watch
    finally:
        over.set()
        looking.join()


def accounts(admin: psycopg.Connection) -> list[str]:
    """Say what is wrong in the books: nothing, if the shop is right."""
    wrong = admin.execute(
        """
        SELECT name, stocked - stock, coalesce(sum(quantity), 0)
        FROM products
        LEFT JOIN orders ON product_id = products.id AND state = 'paid'
        GROUP BY products.id
        HAVING stocked - stock <> coalesce(sum(quantity), 0)
        """
    ).fetchall()
    return [f"{name}: {gone} are gone, {sold} are paid" for name, gone, sold in wrong]


def visit(framework: str, server: PostgresServer, options: argparse.Namespace) -> bool:
    """Open a shop for a while; print a line about it; tell whether all is well."""
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS orders, products")
        admin.execute(SCHEMA)
        shop = Shop(
            framework, DATABASE_URL=server.url, EDGEPOOL_MAX_SIZE=str(POOL_SIZE)
        )
        with shop, watching(admin) as watch:
            report = load(shop.url, options.customers, options.seconds)
        wrong = accounts(admin)
    tell(framework, report, watch.peak)
    bad = [f"{kind}: {n} x {status}" for (kind, status), n in unexpected(report)]
    for line in [*bad, *wrong]:
        print("  ", line)
    return not bad and not wrong and watch.peak <= WORKERS * POOL_SIZE


def unexpected(report: Report) -> list[tuple[tuple[str, int | str], int]]:
    """Give the answers that a shop must not give."""
    return sorted(report.unexpected().items(), key=str)


def tell(framework: str, report: Report, peak: int) -> None:
    """Print the line of a shop."""
    orders = report.answers["order", 201]
    per_second = len(report.times) / report.seconds
    half, most = (1000 * report.percentile(share) for share in (0.5, 0.99))
    print(
        f"{framework:<10}{len(report.times):>9}{per_second:>8.0f}/s"
        f"{half:>8.1f}{most:>8.1f}{orders:>8}{peak:>10}"
    )


def main() -> int:
    """Visit the shops that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("framework", nargs="+", choices=sorted(COMMANDS))
    parser.add_argument("--customers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()

    print(
        f"{WORKERS} workers with a pool of {POOL_SIZE},"
        f" {options.customers} customers, {options.seconds:g} s each"
    )
    print(f"{'':<10}{'requests':>9}{'':>10}{'p50 ms':>8}{'p99 ms':>8}", end="")
    print(f"{'orders':>8}{'sessions':>10}")
    with PostgresServer() as server:
        well = [visit(name, server, options) for name in options.framework]
    if all(well):
        print("The books balance, and there were never more sessions than allowed.")
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
