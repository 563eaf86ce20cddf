"""Run the function as a platform does: first without a pooler, then behind PgBouncer.

    python examples/serverless

Starts a PostgreSQL and a PgBouncer on this machine, for as long as it takes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from instances import Fleet
from migrate import migrate
from pooler import SIZE, Pooler

from edgepool import NullConnectionPool
from edgepool.testing import PostgresServer

INSTANCES = 12
EACH = 4


class Watch:
    """How many sessions the functions had at the database, at most."""

    def __init__(self) -> None:
        self.peak = 0


@contextmanager
def watching(direct: str) -> Iterator[Watch]:
    """Count the sessions during the block, on a connection of its own."""
    watch, over = Watch(), threading.Event()
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )

    def look() -> None:
        with psycopg.connect(direct, autocommit=True) as conn:
            while not over.wait(0.003):
                (sessions,) = conn.execute(query).fetchone() or (0,)
                watch.peak = max(watch.peak, sessions)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield watch
    finally:
        over.set()
        looking.join()


def serve(what: str, fleet: Fleet, direct: str) -> None:
    """Have the fleet serve, and print a line about it."""
    with watching(direct) as watch:
        answers = fleet.requests(EACH)
    errors = [answer["error"] for answer in answers if "error" in answer]
    print(f"{what:<40}{len(answers):>9}{len(errors):>8}{watch.peak:>15}")
    for error in errors[:3]:
        print("  ", error)


def main() -> None:
    """Start what is needed, migrate, and serve."""
    with (
        PostgresServer(settings={"max_connections": INSTANCES + 10}) as server,
        Pooler(server.conninfo) as pooler,
    ):
        direct, pooled = server.url, pooler.url
        pool = NullConnectionPool(pooled, direct_conninfo=direct)
        print("Migrated through DIRECT_URL:", *migrate(pool))
        print(f"{'':<40}{'requests':>9}{'errors':>8}{'peak sessions':>15}")

        with Fleet(INSTANCES, {"DATABASE_URL": direct}) as fleet:
            serve(f"{INSTANCES} instances, no pooler", fleet, direct)

        with Fleet(INSTANCES, {"DATABASE_URL": pooled, "DIRECT_URL": direct}) as fleet:
            serve(f"{INSTANCES} instances, PgBouncer", fleet, direct)
            fleet.freeze()
            pooler.stop()
            pooler.start()
            fleet.thaw()
            serve("thawed, and PgBouncer was restarted", fleet, direct)
    print(f"The pooler's bound is {SIZE} sessions, for as many instances as there are.")


if __name__ == "__main__":
    main()
