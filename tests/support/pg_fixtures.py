"""Threads and tasks, the server's view of a test's sessions, and a proxy before it.

For the conftest of whoever tests against a real server: all that `__all__` names.
"""

from __future__ import annotations

import gc
import inspect
import itertools
from contextlib import ExitStack

import psycopg
import pytest

from support import tls
from support.pg import COLOURS, Sessions, application_name
from support.pg_proxy import Proxy
from support.pgbouncer import PgBouncer

__all__ = [
    "bouncer",
    "colour",
    "guarded",
    "proxy",
    "pytest_pyfunc_call",
    "role",
    "sessions",
    "tls_server",
]

_numbers = itertools.count(1)


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


@pytest.fixture
def bouncer(server):
    """Start poolers before the shared server: `bouncer("transaction", **settings)`."""
    with ExitStack() as started:

        def start(mode, **settings):
            return started.enter_context(PgBouncer(server, mode, **settings))

        yield start


@pytest.fixture(scope="session")
def guarded():
    """A server that asks members of `guarded` for their password."""
    from edgepool.testing import PostgresServer

    hba = """
        local all all trust
        host all +guarded 127.0.0.1/32 scram-sha-256
        host all all 127.0.0.1/32 trust
    """
    with PostgresServer(hba=hba) as server:
        with psycopg.connect(server.conninfo) as conn:
            conn.execute("create role guarded")
        yield server


@pytest.fixture(scope="session")
def tls_server():
    """A server that speaks TLS; see `support.tls.conninfo`."""
    running = tls.server(max_connections=50)
    yield running
    running.close()


class Role:
    """A role that the guarded server asks for its password."""

    def __init__(self, server, name):
        self._server = server
        self.name = name
        self._execute(f"create role {name} login in role guarded")

    def _execute(self, query):
        with psycopg.connect(self._server.conninfo) as conn:
            conn.execute(query)

    def set_password(self, password):
        self._execute(f"alter role {self.name} password '{password}'")

    def set_limit(self, sessions):
        """Set how many sessions the role may have; -1 is no limit."""
        self._execute(f"alter role {self.name} connection limit {sessions}")

    def conninfo(self, **parameters):
        return self._server.conninfo_for(user=self.name, **parameters)


@pytest.fixture
def role(guarded):
    """A role of the test's own; its password is `right`."""
    made = Role(guarded, f"role_{next(_numbers)}")
    made.set_password("right")
    return made
