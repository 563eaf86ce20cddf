"""What adapters do, fake and real ones: so a fake tells the truth about PostgreSQL.

Each promise of `edgepool.Adapter` and `Watchful` once, for four adapters.
"""

from __future__ import annotations

import asyncio
from threading import Event, Thread

import psycopg
import pytest
from drivers.world import call, run_blocking

from edgepool import AsyncConnectionPool, ConnectionPool
from edgepool._core import Entry, Tether
from edgepool.testing import AsyncFakeAdapter, FakeAdapter, FakeServer


class Fake:
    """Sessions of a fake server."""

    def __init__(self, adapter):
        self.server = FakeServer()
        self.adapter = adapter(self.server)

    async def connect(self):
        return await call(self.adapter.connect)

    def now(self, session):
        return session

    async def use(self, session):
        session.dirty = True

    def kill(self, session):
        self.server.kill(session)

    async def wait_for_the_server(self, session):
        self.server.hang("check")
        await call(self.adapter.check, session)

    def is_waited_for(self, session):
        return self.server.under_way("check") == 1

    def refuse(self):
        self.server.down()


class Real:
    """Connections to a PostgreSQL server."""

    def __init__(self, pool_class, conninfo, admin):
        # Who keeps the adapter must keep the pool.
        self.pool = pool_class(conninfo, open=False)
        self.adapter = self.pool._adapter
        self._admin = admin

    async def connect(self):
        """Connect, and lend it, so that it can be used."""
        self._entry = entry = Entry(0.0, 0.0, False)
        entry.tether = Tether(entry, lambda tether: None)
        entry.resource = conn = await call(self.adapter.connect)
        self.adapter.introduce(entry, conn)
        conn.pgconn = conn.pgconn.find()
        return conn

    def now(self, conn):
        """Give the object that stands for it by now."""
        return self._entry.resource

    async def use(self, conn):
        await call(conn.execute, "select 1")

    def kill(self, conn):
        pid = conn.info.backend_pid
        self._admin.execute("select pg_terminate_backend(%s, 10000)", [pid])

    async def wait_for_the_server(self, conn):
        await call(conn.execute, "select pg_sleep(1000)")

    def is_waited_for(self, conn):
        query = "select wait_event = 'PgSleep' from pg_stat_activity where pid = %s"
        (waits,) = self._admin.execute(query, [conn.info.backend_pid]).fetchone()
        return waits

    def refuse(self):
        self.pool.conninfo = "host=127.0.0.1 port=1 user=x dbname=x"


@pytest.fixture(params=["fake-threads", "fake-tasks", "real-threads", "real-tasks"])
def kind(request):
    return request.param


@pytest.fixture
def other_side(request, kind):
    if kind.startswith("fake"):
        return Fake(FakeAdapter if kind == "fake-threads" else AsyncFakeAdapter)
    conninfo, admin = map(request.getfixturevalue, ("conninfo", "admin"))
    pool_class = ConnectionPool if kind == "real-threads" else AsyncConnectionPool
    return Real(pool_class, conninfo, admin)


@pytest.fixture
def run(kind):
    return run_blocking if kind.endswith("threads") else asyncio.run


def test_a_new_resource_is_clean_and_alive(run, other_side):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()

        assert adapter.is_clean(resource)
        assert adapter.is_alive(resource)
        await call(adapter.check, resource)
        resource = other_side.now(resource)
        assert adapter.is_clean(resource)

        await call(adapter.close, resource)

    run(test())


def test_a_used_resource_is_clean_after_a_reset(run, other_side):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()
        await other_side.use(resource)

        assert not adapter.is_clean(resource)
        assert adapter.is_alive(resource)
        assert await call(adapter.reset, resource)
        resource = other_side.now(resource)
        assert adapter.is_clean(resource)

        await call(adapter.close, resource)

    run(test())


def test_a_resource_that_the_server_has_ended_is_not_alive(run, other_side):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()
        other_side.kill(resource)

        assert not adapter.is_alive(resource)

        await call(adapter.close, resource)

    run(test())


def test_a_check_of_a_resource_that_the_server_has_ended_fails(run, other_side):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()
        other_side.kill(resource)

        with pytest.raises((OSError, psycopg.OperationalError)):
            await call(adapter.check, resource)

        await call(adapter.close, resource)

    run(test())


def test_a_resource_that_the_borrower_has_closed_is_neither_clean_nor_alive(
    run, other_side
):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()
        await call(resource.close)

        assert not adapter.is_clean(resource)
        assert not adapter.is_alive(resource)

        await call(adapter.close, resource)

    run(test())


def test_a_closed_resource_is_not_alive(run, other_side):
    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()

        await call(adapter.close, resource)

        assert not adapter.is_alive(resource)

    run(test())


def test_who_waits_for_the_server_is_cut_off_by_an_abort(run, other_side):
    def abort_from_another_thread(resource):
        glance = Event()
        while not other_side.is_waited_for(resource):
            glance.wait(0.001)
        other_side.adapter.abort(resource)

    async def test():
        adapter = other_side.adapter
        resource = await other_side.connect()
        aborting = Thread(target=abort_from_another_thread, args=[resource])
        aborting.start()

        with pytest.raises((OSError, psycopg.OperationalError)):
            await other_side.wait_for_the_server(resource)

        aborting.join()

        assert not adapter.is_alive(resource)

        await call(adapter.close, resource)

    run(test())


def test_a_connect_that_is_refused_raises(run, other_side):
    async def test():
        other_side.refuse()

        with pytest.raises((ConnectionRefusedError, psycopg.OperationalError)):
            await call(other_side.adapter.connect)

    run(test())
