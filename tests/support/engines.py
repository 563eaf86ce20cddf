"""SQLAlchemy's engines, for tests that are told once: for threads and for asyncio.

SQLAlchemy is written once itself, for threads; for asyncio it runs in a greenlet. So
are these tests: `told` runs a test's body where an engine of the colour works, and
in there all of them are used through their synchronous face.
"""

from __future__ import annotations

from functools import wraps

import psycopg_pool
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only, greenlet_spawn

import edgepool
import edgepool.sqlalchemy as ours
from support.parity import eventually, in_event_loop, result, run_blocking

PID = text("select pg_backend_pid()")


def told(test):
    """Run the body of a test in a thread, or in the greenlet of a task."""

    @wraps(test)
    async def run(colour, **arguments):
        if colour.asynchronous:
            await greenlet_spawn(test, colour, **arguments)
        else:
            test(colour, **arguments)

    return run


def waited(coroutine):
    """Wait, in the body of a test, for what suspends if there is an event loop."""
    return await_only(coroutine) if in_event_loop() else run_blocking(coroutine)


def wait_until(predicate):
    return waited(eventually(predicate))


def synchronous(engine):
    """Give the face of an engine that both kinds have."""
    return getattr(engine, "sync_engine", engine)


def poolclass(colour):
    return ours.AsyncEdgePool if colour.asynchronous else ours.EdgePool


def engine(colour, conninfo, **arguments):
    """Make an engine with edgepool's pool, the short way."""
    create = ours.create_async_engine if colour.asynchronous else ours.create_engine
    return synchronous(create(conninfo, **arguments))


def engine_of(colour, url, **arguments):
    """Make an engine as SQLAlchemy does."""
    create = create_async_engine if colour.asynchronous else create_engine
    return synchronous(create(url, **arguments))


def url(conninfo, colour):
    """Give SQLAlchemy's URL of a server."""
    return engine(colour, conninfo).url


def stock(colour, conninfo, **arguments):
    """Make an engine, and the pool behind it, as SQLAlchemy's documentation has it."""
    kind = "AsyncConnectionPool" if colour.asynchronous else "ConnectionPool"
    pool = getattr(psycopg_pool, kind)(
        conninfo, close_returns=True, open=False, **arguments
    )
    opened(pool, wait=True)
    creator = {"async_creator" if colour.asynchronous else "creator": pool.getconn}
    made = engine_of(colour, "postgresql+psycopg://", poolclass=NullPool, **creator)
    return made, pool


def pool_of(colour, conninfo, **arguments):
    """Make a pool of edgepool's, for an engine or several."""
    kind = "AsyncConnectionPool" if colour.asynchronous else "ConnectionPool"
    return getattr(edgepool, kind)(conninfo, **arguments)


def opened(pool, **arguments):
    """Open a pool of either colour, in the body of a test."""
    waited(result(pool.open(**arguments)))


def closed(pool):
    """Close a pool of either colour, in the body of a test."""
    waited(result(pool.close()))


def pid(made):
    """Check a connection out; tell which of the server's processes is behind it."""
    with made.connect() as conn:
        return conn.scalar(PID)


def driver(conn):
    """Give psycopg's connection behind one of SQLAlchemy's."""
    return conn.connection.driver_connection
