"""Pools that live as long as an application; what it answers if there is none to lend.

All of this is FastAPI's too.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

import edgepool
from edgepool.starlette import add_exception_handlers, lifespan
from support.asgi import client, served
from support.parity import borrowed, entered, eventually, fetch, waiter
from support.pg import COLOURS


@pytest.fixture(params=COLOURS.values(), ids=COLOURS)
def kind(request):
    """A pool of asyncio, and one of threads."""
    return request.param


# the life of a pool


async def test_a_pool_is_open_while_the_application_runs(kind, conninfo, sessions):
    pool = kind.Pool(conninfo, min_size=2, open=False)
    app = Starlette(lifespan=lifespan(pool))

    async with client(app):
        await eventually(lambda: sessions.count == 2)
    await eventually(lambda: sessions.count == 0)

    assert pool.closed


async def test_an_application_may_start_again(kind, conninfo):
    pool = kind.Pool(conninfo, min_size=0, max_size=1)
    app = Starlette(lifespan=lifespan(pool))

    for _ in range(2):
        async with client(app), entered(pool.connection()) as conn:
            await fetch(conn, "select 1")

    assert pool.closed


async def test_pools_are_closed_in_the_order_of_a_stack(conninfo):
    closed = []

    class Noted(edgepool.AsyncConnectionPool):
        async def close(self, timeout=5.0):
            closed.append(self.name)
            await super().close(timeout)

    pools = [Noted(conninfo, min_size=0, max_size=1, name=name) for name in "ab"]

    async with client(Starlette(lifespan=lifespan(*pools))):
        assert not any(pool.closed for pool in pools)

    assert ["b", "a"] == closed


async def test_it_is_a_part_of_another_lifespan(conninfo):
    pool = edgepool.AsyncConnectionPool(conninfo, min_size=0, max_size=1)

    @asynccontextmanager
    async def mine(app):
        async with lifespan(pool)(app):
            await pool.wait()
            yield {"answer": 42}

    async def answer(request):
        return JSONResponse([request.state.answer, pool.closed])

    app = Starlette(routes=[Route("/", answer)], lifespan=mine)
    async with served(app) as port, httpx.AsyncClient() as asking:
        answered = await asking.get(f"http://127.0.0.1:{port}/")

    assert [42, False] == answered.json()
    assert pool.closed


async def test_to_close_a_pool_of_threads_does_not_block_the_loop(conninfo):
    pool = edgepool.ConnectionPool(conninfo, min_size=0, max_size=1)

    async with client(Starlette(lifespan=lifespan(pool))):
        conn = pool.getconn()
        # If it did, nobody would come to return it.
        asyncio.get_running_loop().call_later(0.1, pool.putconn, conn)

    assert 0 == pool.get_stats().get("returns_bad", 0)


@pytest.mark.parametrize("what", ["port=1", None, edgepool.ConnectionPool], ids=repr)
def test_only_pools_are_taken(what):
    with pytest.raises(TypeError, match=r"takes edgepool's pools, not"):
        lifespan(what)


def test_no_pool_is_none_too_few():
    with pytest.raises(TypeError, match="at least one pool"):
        lifespan()


# what it answers


class Asked:
    """An application that borrows a connection for each request, and how it answers."""

    def __init__(self, conninfo, patience=None, **arguments):
        self.patience = patience
        arguments = {"min_size": 0, "max_size": 1, **arguments}
        self.pool = edgepool.AsyncConnectionPool(conninfo, **arguments)
        self.app = Starlette(
            routes=[Route("/", self.answer), WebSocketRoute("/socket", self.talk)],
            lifespan=lifespan(self.pool),
        )
        add_exception_handlers(self.app, retry_after=7)

    async def answer(self, request):
        async with self.pool.connection(self.patience) as conn:
            return JSONResponse(await fetch(conn, "select 42"))

    async def talk(self, socket):
        await socket.accept()
        async with self.pool.connection(self.patience):
            await socket.close()

    async def get(self):
        async with client(self.app) as asking:
            return await asking.get("/")


def is_unavailable(answer):
    assert {"detail": "Service Unavailable"} == answer.json()
    return (answer.status_code, answer.headers["retry-after"]) == (503, "7")


async def test_it_is_unavailable_when_no_connection_comes_in_time(conninfo):
    asked = Asked(conninfo, patience=0)

    async with client(asked.app) as asking, borrowed(asked.pool, 1):
        answer = await asking.get("/")

    assert is_unavailable(answer)


async def test_it_is_unavailable_when_too_many_wait(conninfo):
    asked = Asked(conninfo, max_waiting=1)

    async with client(asked.app) as asking:
        async with borrowed(asked.pool, 1):
            waiting = await waiter(asked.pool)
            answer = await asking.get("/")
        await asked.pool.putconn(await waiting)

    assert is_unavailable(answer)


async def test_it_is_available_when_one_is_there(conninfo):
    answer = await Asked(conninfo).get()

    assert (200, 42) == (answer.status_code, answer.json())


async def test_what_patience_does_not_mend_is_an_error(conninfo):
    wrong = make_conninfo(conninfo, dbname="no_such_database")

    assert 500 == (await Asked(wrong).get()).status_code


async def test_to_wait_for_oneself_is_an_error(conninfo):
    class Nested(Asked):
        async def answer(self, request):
            async with self.pool.connection():
                return await super().answer(request)

    assert 500 == (await Nested(conninfo).get()).status_code


async def test_a_websocket_is_told_to_come_again(conninfo):
    asked, sent = Asked(conninfo, patience=0), []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/socket", "headers": [], "query_string": b""}
    async with lifespan(asked.pool)(asked.app), borrowed(asked.pool, 1):
        await asked.app(scope, receive, send)

    assert ["websocket.accept", "websocket.close"] == [m["type"] for m in sent]
    assert 1013 == sent[-1]["code"]


@pytest.mark.parametrize("value", [-1, 0.5, "1"])
def test_when_to_come_again_is_a_number_of_seconds(value):
    with pytest.raises(ValueError, match=f"whole number of at least 0, not {value!r}"):
        add_exception_handlers(Starlette(), retry_after=value)
