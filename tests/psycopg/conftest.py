"""Threads and tasks, the server's view of a test's sessions, and a proxy before it."""

from __future__ import annotations

import gc
import inspect

import psycopg
import pytest

from support.pg import COLOURS, Sessions, application_name
from support.pg_proxy import Proxy


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test as its colour asks: in an event loop, or without any."""
    colour = pyfuncitem.funcargs.get("colour")
    if colour is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    colour.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    gc.collect(1)  # what the finalisers of young objects warn of belongs to this test
    return True


@pytest.fixture(params=COLOURS.values(), ids=COLOURS)
def colour(request):
    """Threads, then asyncio; the same test for both."""
    return request.param


@pytest.fixture
def sessions(admin, conninfo):
    """What the shared server knows of this test's sessions."""
    return Sessions(admin, application_name(conninfo))


@pytest.fixture
def proxy(conninfo):
    """A proxy before the shared server; `proxy.conninfo()` leads through it."""
    running = Proxy(conninfo)
    yield running
    running.close()


@pytest.fixture(scope="session")
def guarded():
    """A server that asks the role `locked` for its password."""
    from edgepool.testing import PostgresServer

    hba = """
        local all all trust
        host all locked 127.0.0.1/32 scram-sha-256
        host all all 127.0.0.1/32 trust
    """
    with PostgresServer(hba=hba) as server:
        with psycopg.connect(server.conninfo) as admin:
            admin.execute("create role locked login password 'right'")
        yield server
