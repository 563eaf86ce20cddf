"""Clients that go away, behind uvicorn: whatever they leave undone, nothing leaks.

Each application is tried as it is, and behind a `BaseHTTPMiddleware`, which runs it in
a task of its own.
"""

# FastAPI reads annotations, which here name what a test has made: no __future__.

import asyncio
from typing import Annotated

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

from edgepool.fastapi import Borrowed, lifespan
from support.asgi import Asking, EndsWithClient, endpoint, served
from support.parity import borrowed, eventually, execute, fetch, stat
from support.pg import COLOURS, TASKS, THREADS, at_rest

# Old releases of Starlette do not close the streams between a middleware and its app.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

SLOW = "select pg_sleep(100)"


@pytest.fixture(params=[False, True], ids=["bare", "behind a middleware"])
def behind(request):
    return request.param


def application(pool, behind, cancels=True):
    """Make an application that a client who goes away cancels."""
    app = FastAPI(lifespan=lifespan(pool))
    if behind:
        app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    if cancels:
        app.add_middleware(EndsWithClient)
    return app


async def pass_on(request, call_next):
    return await call_next(request)


async def nothing_is_left(pool, sessions, number):
    """See that all connections are idle, and that the server agrees."""
    await at_rest(pool, number)
    await eventually(lambda: sessions.states == {"idle": number})


async def test_the_query_of_a_client_that_has_gone_is_cancelled(
    conninfo, sessions, behind
):
    pool = TASKS.Pool(conninfo, min_size=1, max_size=1)
    Conn = Annotated[TASKS.Connection, Borrowed(pool)]
    app = application(pool, behind)

    @app.get("/slow")
    async def slow(conn: Conn):
        await conn.execute(SLOW)

    async with served(app) as port:
        asking = await Asking.get(port, "/slow")
        await eventually(lambda: sessions.queries == [SLOW])
        await asking.go()
        await nothing_is_left(pool, sessions, 1)


async def test_a_client_that_goes_leaves_the_queue(conninfo, sessions, behind):
    pool = TASKS.Pool(conninfo, min_size=1, max_size=1)
    Conn = Annotated[TASKS.Connection, Borrowed(pool)]
    app = application(pool, behind)

    @app.get("/ask")
    async def ask(conn: Conn):
        await conn.execute("select 1")

    async with served(app) as port:
        async with borrowed(pool, 1):
            asking = await Asking.get(port, "/ask")
            await stat(pool, "requests_waiting", 1)
            await asking.go()
            await stat(pool, "requests_waiting", 0)
        await nothing_is_left(pool, sessions, 1)


async def test_a_client_that_goes_in_the_midst_of_a_stream_ends_its_query(
    conninfo, sessions, behind
):
    pool = TASKS.Pool(conninfo, min_size=1, max_size=1)
    app = application(pool, behind, cancels=False)

    async def body():
        async with pool.connection() as conn:
            yield "begun"
            await conn.execute(SLOW)

    @app.get("/stream")
    async def stream():
        return StreamingResponse(body())

    async with served(app) as port:
        asking = await Asking.get(port, "/stream")
        await asking.until(b"begun")
        await eventually(lambda: sessions.queries == [SLOW])
        await asking.go()
        await nothing_is_left(pool, sessions, 1)


async def test_a_thread_whose_client_has_gone_returns_what_it_has(
    conninfo, sessions, admin, behind
):
    """A thread cannot be cancelled: its connection comes back when its query ends."""
    pool = THREADS.Pool(conninfo, min_size=1, max_size=1)
    Conn = Annotated[THREADS.Connection, Borrowed(pool)]
    app = application(pool, behind)
    lock = "select pg_advisory_xact_lock(20260101)"

    @app.get("/slow")
    def slow(conn: Conn):
        conn.execute(lock)

    async with served(app) as port:
        admin.execute("select pg_advisory_lock(20260101)")
        asking = await Asking.get(port, "/slow")
        await eventually(lambda: sessions.queries == [lock])
        await asking.go()
        await asyncio.sleep(0.05)  # if it gave something back, then now
        held = pool.statistics().in_use
        admin.execute("select pg_advisory_unlock(20260101)")
        await nothing_is_left(pool, sessions, 1)

    assert 1 == held


@pytest.mark.parametrize("kind", COLOURS.values(), ids=COLOURS)
async def test_downloads_hold_nothing(conninfo, kind):
    """More clients read slowly than there are connections; others are served."""
    pool = kind.Pool(conninfo, min_size=1, max_size=1)
    Conn = Annotated[kind.Connection, Borrowed(pool)]
    app, end = application(pool, behind=False), asyncio.Event()

    async def download(conn: Conn):
        first = await fetch(conn, "select 'begun'")

        async def body():
            yield first
            await end.wait()

        return StreamingResponse(body())

    async def ask(conn: Conn):
        return await execute(conn, "select 1") and "answered"

    app.get("/download")(endpoint(kind, download))
    app.get("/ask")(endpoint(kind, ask))
    async with served(app) as port:
        reading = [await Asking.get(port, "/download") for _ in range(5)]
        for asking in reading:
            await asking.until(b"begun")
        other = await Asking.get(port, "/ask")
        await other.until(b"answered")
        end.set()
        for asking in [*reading, other]:
            await asking.go()
        await at_rest(pool, 1)
