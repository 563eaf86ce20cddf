"""The flavours, and what the server says of the pools of one test."""

from __future__ import annotations

import gc
import inspect
import socket
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support.parity import FLAVOURS


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a parity test as its flavour asks: in an event loop, or without any."""
    flavour = pyfuncitem.funcargs.get("flavour")
    if flavour is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    flavour.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    gc.collect(1)  # what the finalisers of young objects warn of belongs to this test
    return True


@pytest.fixture(params=FLAVOURS, ids=str)
def flavour(request):
    return request.param


@pytest.fixture(params=["Pool", "NullPool"])
def pool_class(request, flavour):
    """Both kinds of pool, for what is true of both (with `min_size=0`)."""
    return getattr(flavour, request.param)


@pytest.fixture
def sessions(admin, conninfo):
    """Ask the server for the backends that serve this test, oldest first."""
    query = (
        "select pid from pg_stat_activity"
        " where application_name = %s order by backend_start, pid"
    )
    name = conninfo_to_dict(conninfo)["application_name"]

    def pids():
        return [pid for (pid,) in admin.execute(query, [name])]

    return pids


@pytest.fixture
def end_session(admin):
    """End a backend as an administrator would, and wait until it is gone."""

    def end(backend_pid):
        query = "select pg_terminate_backend(%s, 10000)"
        (ended,) = admin.execute(query, [backend_pid]).fetchone()

        assert ended

    return end


@pytest.fixture
def nowhere():
    """A server that refuses every connection at once: nobody listens at its port."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield make_conninfo(
            host="127.0.0.1", port=held.getsockname()[1], dbname="x", password="hush"
        )


@pytest.fixture(scope="session")
def guarded():
    """A server that asks the role `locked` for its password, which is `right`."""
    from edgepool.testing import PostgresServer

    hba = """
        local all all trust
        host all locked 127.0.0.1/32 scram-sha-256
        host all all 127.0.0.1/32 trust
    """
    with PostgresServer(hba=hba) as server:
        with psycopg.connect(server.conninfo) as admin:
            admin.execute("create role locked login password 'right'")
        yield server.conninfo
