"""The function behind a pooler: it is served from few sessions, also after a freeze."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from edgepool import NullConnectionPool
from support.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from types import ModuleType

    from edgepool.testing import PostgresServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "serverless"
PATIENCE = 200  # seconds; it takes 15, of which most is for 24 interpreters to start


@pytest.fixture
def schema(admin: psycopg.Connection, conninfo: str) -> str:
    """A conninfo for a schema of the test's own."""
    name = conninfo.rpartition("=")[2].replace("-", "_")
    admin.execute(f"CREATE SCHEMA {name}")  # type: ignore[call-overload]
    return make_conninfo(conninfo, options=f"-c search_path={name}")


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLE)
    return importlib.import_module("migrate")


def test_a_fleet_is_served_from_few_sessions() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    rows = [line.rsplit(maxsplit=3)[1:] for line in ran.stdout.splitlines()[2:5]]

    assert (ran.returncode, ran.stderr) == (0, "")
    assert [["48", "0"]] * 3 == [row[:2] for row in rows]
    peaks = [int(row[2]) for row in rows]
    assert peaks[0] > 4
    assert 0 < peaks[1] <= 4
    assert 0 < peaks[2] <= 4


def test_a_migration_is_applied_once(schema: str, migration: ModuleType) -> None:
    pool = NullConnectionPool("port=1", direct_conninfo=schema)

    assert migration.migrate(pool) == ["visits"]
    assert migration.migrate(pool) == []


def test_a_migration_by_itself_says_what_it_did(schema: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "migrate.py")],
        env={**os.environ, "DATABASE_URL": "host=127.0.0.1", "DIRECT_URL": schema},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "migrated: visits\n", "")


def test_a_migration_refuses_to_go_through_the_pooler(
    server: PostgresServer, migration: ModuleType
) -> None:
    with PgBouncer(server, "transaction") as pooler:
        pooled = pooler.conninfo_for()
        pool = NullConnectionPool(pooled, direct_conninfo=pooled)

        with pytest.raises(psycopg.OperationalError, match="leads to a pooler"):
            migration.migrate(pool)
