"""What every test may ask for: PostgreSQL servers, and to be `async def`.

Imports lazily: the core's tests use none of it and start at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import psycopg

    from edgepool.testing import PostgresServer

_test_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a framework sets for all, as Litestar does, and what the docs show."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for name, logger in root.manager.loggerDict.items():
        if name.startswith("edgepool") and isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One server for all tests that leave it as they found it."""
    from edgepool.testing import PostgresServer

    with PostgresServer(settings={"max_connections": 100}) as running:
        yield running


@pytest.fixture
def conninfo(server: PostgresServer) -> str:
    """Connect to the shared server, under an application_name of this test's own."""
    return server.conninfo_for(application_name=f"test-{next(_test_numbers)}")


@pytest.fixture
def admin(server: PostgresServer) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the shared server, beside what is tested."""
    import psycopg

    conninfo = server.conninfo_for(application_name="admin")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        yield connection


@pytest.fixture
def own_server() -> Iterator[Callable[..., PostgresServer]]:
    """Start servers that the test may stop, kill and freeze: `own_server(**kwargs)`."""
    from edgepool.testing import PostgresServer

    with contextlib.ExitStack() as servers:

        def start(**kwargs: Any) -> PostgresServer:
            return servers.enter_context(PostgresServer(**kwargs))

        yield start


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in an event loop of its own.

    Instead of a plugin: these fifteen lines have no modes, scopes or versions.
    Fixtures are made outside the loop.
    """
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None

    accepted = inspect.signature(test).parameters
    arguments = {n: v for n, v in pyfuncitem.funcargs.items() if n in accepted}
    # Debug mode would slow down what is timed, so PYTHONDEVMODE must not turn it on.
    asyncio.run(test(**arguments), debug=False)

    # A coroutine never awaited, a transport never closed: warned of in this test, not
    # in the one that happens to run when the collector does. The young objects only:
    # all of them take 20 ms.
    gc.collect(1)
    return True
