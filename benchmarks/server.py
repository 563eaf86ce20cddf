"""The PostgreSQL that all peers are measured on, and the operator's hand in it.

One server for the whole run: ``DATABASE_URL`` if that is set, or else one that is
started here and listens on the loopback interface.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from typing_extensions import LiteralString

from edgepool.testing import PostgresServer

from .model import Unavailable

SETTINGS = {"max_connections": 100, "autovacuum": "off"}
"""Room for every row, and no process that wakes up during a measurement."""

POLL = 0.002
GONE_WITHIN = 10.0


class Server:
    """Where to connect, and what an operator can do to the pools' sessions."""

    def __init__(self, conninfo: str, process: Any = None) -> None:
        self._admin = make_conninfo(conninfo, application_name="benchmark operator")
        self._application = f"benchmark {os.getpid()}"
        self._process = process
        self.conninfo = make_conninfo(conninfo, application_name=self._application)

    def version(self) -> str:
        """Return the server's version, as it says it."""
        with self._operator() as conn:
            return str(conn.execute("SHOW server_version").fetchall()[0][0])

    def terminate_sessions(self) -> None:
        """End the pools' sessions, as an operator would, and wait until they are gone.

        Those that were there: a pool may have opened others by then.
        """
        with self._operator() as conn:
            # In the select list: as a condition it may run before the name is tested,
            # and end everybody's sessions.
            ended = conn.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s",
                [self._application],
            ).fetchall()
            self._wait_until_none(conn, "pid = ANY(%s)", [pid for pid, _ in ended])

    def settle(self) -> None:
        """Wait until the last sample's sessions have ended on the server as well."""
        with self._operator() as conn:
            self._wait_until_none(conn, "application_name = %s", self._application)

    def _operator(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._admin, autocommit=True)

    def _wait_until_none(
        self, conn: psycopg.Connection[Any], which: LiteralString, value: object
    ) -> None:
        deadline = time.monotonic() + GONE_WITHIN
        query = "SELECT count(*) FROM pg_stat_activity WHERE " + which
        while (left := conn.execute(query, [value]).fetchone()) != (0,):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{left} sessions did not end in {GONE_WITHIN} s")
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop the server; its clients are told that it is shutting down."""
        if self._process is None:
            raise Unavailable("the server at DATABASE_URL is not ours to restart")
        self._process.stop()

    def start(self) -> None:
        """Start the server again, on the same port."""
        self._process.start()


@contextmanager
def running_server() -> Iterator[Server]:
    """Give the server of this run."""
    if url := os.environ.get("DATABASE_URL"):
        yield Server(url)
        return

    with PostgresServer(settings=SETTINGS) as process:
        yield Server(process.conninfo, process)
