"""A primary hands over to its standby, or dies, while a pool of it is in use."""

from __future__ import annotations

import time

import pytest

from edgepool import PoolTimeout
from edgepool.testing import PostgresServer
from support import replication
from support.conservation import conserved
from support.parity import (
    PATIENCE,
    entered,
    eventually,
    execute,
    fetch,
    pause,
    result,
)
from support.pg import at_rest, beside, borrow_error, error_of, load, more, past_grace
from support.pgbouncer import PgBouncer

NAME = "app"
SIZE = 4
WORKERS = 8

# Each row says which server it was written to, also in a copy of it.
WRITE = "insert into written values (inet_server_port())"
WRITTEN = "select count(*) from written"

MAKE = "create table if not exists made (n int)"

AUTOCOMMIT = {"autocommit": True}


TABLE = "create table written (port int)"


@pytest.fixture
def servers():
    with replication.pair(TABLE) as started:
        yield started


@pytest.fixture(scope="module")
def standby():
    """The standby of a primary, for tests that leave both as they are."""
    with replication.pair(TABLE) as started:
        yield started.standby


def rows(server, where="true"):
    ((count,),) = replication.execute(server, f"{WRITTEN} where {where}")
    return count


async def port(pool):
    async with entered(pool.connection()) as conn:
        return await fetch(conn, "select inet_server_port()")


@pytest.mark.parametrize("kwargs", [None, AUTOCOMMIT], ids=["block", "autocommit"])
async def test_writers_follow_a_primary_that_hands_over(
    colour, servers, caplog, kwargs
):
    old, new = servers.primary, servers.standby
    conninfo = servers.conninfo(application_name=NAME)
    async with colour.pool(
        conninfo, role="primary", min_size=SIZE, kwargs=kwargs
    ) as pool:
        async with load(pool, WORKERS, WRITE) as busy:
            await more(busy, 100)
            await beside(servers.hand_over)
            await eventually(lambda: not replication.sessions(old, NAME))
            purged = rows(old)
            errors = len(busy.errors)
            await beside(servers.promote)
            await more(busy, 100)

        await conserved(pool, new, NAME)

        # Who was writing at that moment is told, once for each connection, if the pool
        # has not been told before; and nobody while there is no primary: he waits.
        assert set(busy.kinds()) <= {"ReadOnlySqlTransaction"}
        assert len(busy.errors) == errors <= SIZE
        assert (purged, 0) == (rows(old), replication.sessions(old, NAME))
        # Nothing that somebody was told is written is lost, nor written twice.
        assert busy.done == rows(new)
        assert busy.done - purged == rows(new, f"port = {new.port}")

    assert [
        f"{pool.name}: the server is no primary any more: replacing all connections"
    ] == [line for line in caplog.messages if "replacing" in line]


async def test_writers_follow_a_primary_that_dies(colour, servers):
    new = servers.standby
    conninfo = servers.conninfo(application_name=NAME)
    async with colour.pool(conninfo, role="primary", min_size=SIZE) as pool:
        async with load(pool, WORKERS, WRITE) as busy:
            await more(busy, 100)
            await beside(servers.primary.kill)
            # All have found it dead: nobody is served by what is only a standby yet.
            await eventually(lambda: pool.statistics().waiting == WORKERS)
            errors = len(busy.errors)
            await beside(servers.promote)
            await more(busy, 100)

        assert len(busy.errors) == errors <= SIZE
        assert new.port == await port(pool)

        await conserved(pool, new, NAME)


async def test_readers_leave_a_standby_that_is_promoted(colour, servers, caplog):
    old, new = servers.primary, servers.standby
    conninfo = servers.conninfo(application_name=NAME)
    async with colour.pool(conninfo, role="standby", min_size=2) as pool:
        assert new.port == await port(pool)
        await at_rest(pool, 2)
        assert 0 == replication.sessions(old, NAME)

        await beside(servers.promote)
        # It is told with the answer.
        assert new.port == await port(pool)
        await past_grace()
        error, _ = await borrow_error(pool, 0.5)

        assert isinstance(error, PoolTimeout)
        assert "not in hot standby" in str(error.__cause__)
        await eventually(lambda: not replication.sessions(new, NAME))

    told = f"{pool.name}: the server is no standby any more: replacing all connections"

    assert 1 == caplog.messages.count(told)


# --- a server alone that takes no writes for a while ----------------------------------


@pytest.fixture(scope="module")
def running():
    with PostgresServer() as server:
        yield server


@pytest.fixture
def alone(running):
    """A server, and a function that has it take writes, or none."""

    def takes_writes(yes):
        value = "off" if yes else "on"
        setting = f"alter system set default_transaction_read_only = {value}"
        replication.execute(running, setting)
        replication.execute(running, "select pg_reload_conf()")

    running.takes_writes = takes_writes
    yield running
    takes_writes(True)


async def until_told(conn):
    """Use a connection until its server has told that it takes no writes."""
    deadline = time.monotonic() + PATIENCE
    while conn.info.parameter_status("default_transaction_read_only") != "on":
        assert time.monotonic() < deadline
        await execute(conn, "select 1")


async def test_idle_connections_are_replaced_when_a_check_tells(colour, alone):
    conninfo = alone.conninfo_for(application_name=NAME)
    async with colour.pool(conninfo, role="primary", min_size=3) as pool:
        await at_rest(pool, 3)
        await beside(alone.takes_writes, False)
        while replication.sessions(alone, NAME):  # they may yet have to hear of it
            await result(pool.check())
            await pause(0.005)

        await beside(alone.takes_writes, True)
        async with entered(pool.connection()) as conn:
            await execute(conn, MAKE)

        await conserved(pool, alone, NAME)


async def test_a_pool_that_nobody_uses_is_told_by_its_own_checks(colour, alone):
    conninfo = alone.conninfo_for(application_name=NAME)
    async with colour.pool(
        conninfo, role="primary", min_size=2, check_after=0.05
    ) as pool:
        await at_rest(pool, 2)
        await beside(alone.takes_writes, False)
        await eventually(lambda: not replication.sessions(alone, NAME))
        await beside(alone.takes_writes, True)
        await at_rest(pool, 2)

        assert 0 == pool.statistics().requests

        await conserved(pool, alone, NAME)


async def test_a_reader_that_was_told_has_the_next_one_served_elsewhere(colour, alone):
    conninfo = alone.conninfo_for(application_name=NAME)
    async with colour.pool(conninfo, role="primary", min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await beside(alone.takes_writes, False)
            await until_told(conn)
        await past_grace()
        error, _ = await borrow_error(pool, 0.3)

        assert "session is read-only" in str(error.__cause__)

        await beside(alone.takes_writes, True)
        await conserved(pool, alone, NAME)


async def test_what_getconn_gave_is_looked_at_as_well(colour, alone):
    conninfo = alone.conninfo_for(application_name=NAME)
    async with colour.pool(conninfo, role="primary", min_size=2) as pool:
        await at_rest(pool, 2)
        conn = await result(pool.getconn())
        await beside(alone.takes_writes, False)
        await until_told(conn)
        await result(pool.putconn(conn))

        await eventually(lambda: not pool.statistics().size)

        await beside(alone.takes_writes, True)
        await conserved(pool, alone, NAME)


@pytest.mark.parametrize("role", ["any", "standby"])
async def test_without_that_role_a_connection_is_kept(colour, standby, role):
    conninfo = standby.conninfo_for(application_name=NAME)
    async with colour.pool(conninfo, role=role, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            mine = conn.info.backend_pid

        async def write():
            async with entered(pool.connection()) as conn:
                await execute(conn, WRITE)

        error = await error_of(write())

        assert "25006" == error.sqlstate
        assert mine == await fetch_pid(pool)

        await conserved(pool, standby, NAME)


async def fetch_pid(pool):
    async with entered(pool.connection()) as conn:
        return await fetch(conn, "select pg_backend_pid()")


@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_behind_a_pooler_that_does_not_tell_an_error_does(colour, alone, mode):
    with PgBouncer(alone, mode) as bouncer:
        async with colour.pool(
            bouncer.conninfo_for(), role="primary", min_size=1, kwargs=AUTOCOMMIT
        ) as pool:
            await at_rest(pool, 1)
            await beside(alone.takes_writes, False)

            async def write():
                while True:  # it may yet have to hear of it
                    async with entered(pool.connection(0.5)) as conn:
                        await execute(conn, MAKE)

            # What it said when the first one came is what it says to all.
            assert "25006" == (await error_of(write())).sqlstate
            await eventually(lambda: 2 == pool.statistics().connects)

            await conserved(pool, bouncer)


@pytest.mark.parametrize("said", ["set transaction read only", None], ids=["sql", "py"])
async def test_a_transaction_that_was_to_be_read_only_is_nobodys_fault(
    colour, alone, said
):
    conninfo = alone.conninfo_for(application_name=NAME)
    async with colour.pool(conninfo, role="primary", min_size=1) as pool:
        mine = await fetch_pid(pool)

        async def write():
            async with entered(pool.connection()) as conn:
                if said is not None:
                    await execute(conn, said)
                elif colour.asynchronous:
                    await conn.set_read_only(True)
                else:
                    conn.read_only = True
                await execute(conn, "create table never (n int)")

        error = await error_of(write())

        assert "25006" == error.sqlstate
        assert mine == await fetch_pid(pool)

        await conserved(pool, alone, NAME)
