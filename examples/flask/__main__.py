"""Open the guestbook under gunicorn, and have it visited by a crowd.

    python examples/flask

Starts a PostgreSQL on this machine, for as long as it takes. With `--serve` there is no
crowd, but an address to visit.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import quantiles

import psycopg
from load import ACTS, Visitor

from edgepool.testing import PostgresServer

HERE = Path(__file__).parent
WORKERS = 2
THREADS = 8
VISITORS = 16


def main() -> None:
    """Start what is needed, serve, and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5, help="of the visit")
    parser.add_argument("--serve", action="store_true", help="serve until Ctrl-C")
    options = parser.parse_args()
    with (
        PostgresServer() as server,
        psycopg.connect(server.conninfo, autocommit=True) as admin,
    ):
        with gunicorn(server.url) as port:
            if options.serve:
                print(f"http://127.0.0.1:{port}/")
                with suppress(KeyboardInterrupt):
                    signal.pause()
            else:
                visit(admin, port, options.seconds)
        time.sleep(0.1)  # a server process takes a moment to end
        print("gunicorn has ended, and has left", sessions(admin), "sessions.")


@contextmanager
def gunicorn(database_url: str) -> Iterator[int]:
    """Run the application under gunicorn, during the block; give its port."""
    environment = {**os.environ, "DATABASE_URL": database_url}
    create = [sys.executable, "-m", "flask", "--app", "guestbook", "create-tables"]
    subprocess.run(create, cwd=HERE, env=environment, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}"),
            *("--preload", "--workers", str(WORKERS), "--threads", str(THREADS)),
            *("--log-level", "warning", "guestbook:create_app()"),
        ],
        cwd=HERE,
        env=environment,
    )
    try:
        while not answers(port):
            if server.poll() is not None:
                sys.exit("gunicorn does not run: see above")
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    """Tell whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def sessions(admin: psycopg.Connection) -> int:
    """Count the sessions of others."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    (count,) = admin.execute(query).fetchone() or (0,)
    return int(count)


def visit(admin: psycopg.Connection, port: int, seconds: float) -> None:
    """Have the visitors come, and print what they have seen."""
    until = time.monotonic() + seconds
    visitors = [Visitor(port, number, until) for number in range(VISITORS)]
    for visitor in visitors:
        visitor.start()
    peak = 0
    while time.monotonic() < until:
        peak = max(peak, sessions(admin))
        time.sleep(0.02)
    for visitor in visitors:
        visitor.join()

    print(f"{'':<10}{'requests':>9}{'per second':>12}{'median':>11}{'99 %':>11}")
    for act in ACTS:
        times = [each for visitor in visitors for each in visitor.times[act]]
        # Two of them are needed to say anything.
        cuts = quantiles(times, n=100) if len(times) > 1 else [0.0] * 99
        print(
            f"{act:<10}{len(times):>9,}{len(times) / seconds:>12,.0f}"
            f"{cuts[49] * 1000:>8.1f} ms{cuts[98] * 1000:>8.1f} ms"
        )
    errors = [error for visitor in visitors for error in visitor.errors]
    print(
        f"{VISITORS} visitors, {WORKERS} workers with {THREADS} threads each:"
        f" {len(errors)} errors, never more than {peak} sessions."
    )
    for error in errors[:5]:
        print("  ", error)


if __name__ == "__main__":
    main()
