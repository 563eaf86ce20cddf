"""A pytest plugin: servers, pools and faults as fixtures.

For those who ask for it, in their top-level `conftest.py`:

    pytest_plugins = ["edgepool.testing.plugin"]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from edgepool import AsyncConnectionPool, ConnectionPool

from ._faults import Faults
from ._per_loop import PoolPerLoop
from ._server import PostgresServer
from ._transactional_pools import AsyncTransactionalPool, TransactionalPool

AsyncPools: TypeAlias = (
    "Callable[[], AsyncConnectionPool[psycopg.AsyncConnection[Any]]]"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have a setting for a database of one's own."""
    parser.addini(
        "edgepool_dsn",
        "The database to test with. By default an embedded PostgreSQL is started.",
        default="",
    )


@pytest.fixture(scope="session")
def edgepool_server() -> Generator[PostgresServer, None, None]:
    """An embedded PostgreSQL server; each process of pytest-xdist has its own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def edgepool_database(request: pytest.FixtureRequest) -> Generator[str, None, None]:
    """The connection string of the database to test with.

    That of `edgepool_dsn`; under pytest-xdist, one beside it for each process, which is
    made anew and dropped in the end. Without a setting, that of `edgepool_server`.
    """
    dsn: str = request.config.getini("edgepool_dsn")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not dsn:
        server: PostgresServer = request.getfixturevalue("edgepool_server")
        yield server.conninfo
    elif worker is None:
        yield dsn
    else:
        name = f"{conninfo_to_dict(dsn).get('dbname') or 'edgepool'}_{worker}"
        drop = SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name))
        create = SQL("CREATE DATABASE {}").format(Identifier(name))
        _execute(dsn, drop, create)
        yield make_conninfo(dsn, dbname=name)
        _execute(dsn, drop)


def _execute(dsn: str, *statements: Any) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)


@pytest.fixture
def edgepool_faults(edgepool_database: str) -> Generator[Faults, None, None]:
    """Faults between the server and the pools of this test."""
    with Faults(edgepool_database) as faults:
        yield faults


@pytest.fixture
def edgepool_conninfo(request: pytest.FixtureRequest, edgepool_database: str) -> str:
    """What the pools of a test connect with; through `edgepool_faults`, if asked."""
    if "edgepool_faults" not in request.fixturenames:
        return edgepool_database
    faults: Faults = request.getfixturevalue("edgepool_faults")
    return faults.conninfo()


@pytest.fixture
def edgepool_arguments() -> dict[str, Any]:
    """The arguments of the pools, to be overridden."""
    return {"min_size": 1, "max_size": 10}


@pytest.fixture
def edgepool_pool(
    edgepool_conninfo: str, edgepool_arguments: dict[str, Any]
) -> Generator[ConnectionPool[psycopg.Connection[Any]], None, None]:
    """A pool for threads. What is committed stays."""
    with ConnectionPool(edgepool_conninfo, **edgepool_arguments) as pool:
        yield pool


@pytest.fixture
def edgepool_transactional_pool(
    edgepool_conninfo: str, edgepool_arguments: dict[str, Any]
) -> Generator[TransactionalPool[psycopg.Connection[Any]], None, None]:
    """A pool for threads whose work is rolled back after the test."""
    with TransactionalPool(edgepool_conninfo, **edgepool_arguments) as pool:
        yield pool


@pytest.fixture
def edgepool_async_pool(
    edgepool_conninfo: str, edgepool_arguments: dict[str, Any]
) -> Generator[AsyncPools, None, None]:
    """A function that returns the pool of the running event loop."""
    pools = PoolPerLoop(
        lambda: AsyncConnectionPool(edgepool_conninfo, **edgepool_arguments)
    )
    yield pools
    pools.close()


@pytest.fixture
def edgepool_async_transactional_pool(
    edgepool_conninfo: str, edgepool_arguments: dict[str, Any]
) -> Generator[AsyncPools, None, None]:
    """A function that returns the running loop's pool, whose work is rolled back."""
    pools = PoolPerLoop(
        lambda: AsyncTransactionalPool(edgepool_conninfo, **edgepool_arguments)
    )
    yield pools
    pools.close()
