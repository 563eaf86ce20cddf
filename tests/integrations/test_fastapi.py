"""A connection for a request: borrowed late, returned early; FastAPI's part in it.

The applications are called without a server; `test_fastapi_served.py` has one. Each
test is run twice: by an endpoint that is a task, and by one that runs in a thread.
"""

# FastAPI reads annotations, which here name what a test has made: no __future__.

import asyncio
import importlib
import random
import re
import sys
import threading
import time
from collections import Counter
from typing import Annotated

import anyio.to_thread
import fastapi
import psycopg
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse

import edgepool
from edgepool.fastapi import Borrowed, add_exception_handlers, lifespan, released
from support.asgi import client, endpoint
from support.conservation import conserved
from support.parity import entered, execute, fetch, result
from support.pg import COLOURS, THREADS, application_name, at_rest, beside

HAS_SCOPES = edgepool.fastapi._EARLY != {}


@pytest.fixture(params=COLOURS.values(), ids=COLOURS)
def kind(request):
    """Endpoints that are tasks, and those that run in threads."""
    return request.param


@pytest.fixture
def made(kind, conninfo):
    """An application with a pool, and what declares a connection of it."""
    return Made(kind, conninfo)


class Made:
    def __init__(self, kind, conninfo, **arguments):
        self.kind = kind
        self.pool = kind.Pool(conninfo, **{"min_size": 1, "max_size": 2, **arguments})
        self.app = FastAPI(lifespan=lifespan(self.pool))
        self.Conn = Annotated[kind.Connection, Borrowed(self.pool)]

    def get(self, function):
        """Have the path of a coroutine function's name be served by it."""
        self.app.get(f"/{function.__name__}")(endpoint(self.kind, function))
        return function

    async def status(self, path):
        """Ask once; tell how that was answered when all was over."""
        async with client(self.app) as asking:
            answer = await asking.get(path)
            await at_rest(self.pool, 1)
        return answer.status_code

    @property
    def in_use(self):
        return self.pool.statistics().in_use


# returned early


async def test_it_is_back_before_a_streamed_body_begins(made):
    Conn, held = made.Conn, []

    async def export(conn: Conn):
        value = await fetch(conn, "select 'all of it'")
        held.append(made.in_use)

        def body():
            held.append(made.in_use)
            yield value

        return StreamingResponse(body())

    made.get(export)
    async with client(made.app) as asking:
        answer = await asking.get("/export")

    assert "all of it" == answer.text
    assert [1, 0] == held


async def test_it_is_committed_before_the_answer_begins(made, rows, table):
    Conn, seen = made.Conn, []

    async def add(conn: Conn):
        await execute(conn, f"insert into {table} values (1)")

    class Watching:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            async def watched(message):
                seen.append((message["type"], rows(), made.in_use))
                await send(message)

            await self.app(scope, receive, watched)

    made.get(add)
    made.app.add_middleware(Watching)
    async with client(made.app) as asking:
        await asking.get("/add")

    assert ("http.response.start", [1], 0) == seen[0]


async def test_what_the_commit_raises_is_an_error_of_the_request(made, rows, table):
    Conn = made.Conn

    @made.get
    async def add(conn: Conn):
        await execute(conn, f"insert into {table} values (1), (1)")
        return "done"

    assert 500 == await made.status("/add")
    assert [] == rows()


async def test_it_is_back_before_background_tasks(made):
    Conn, errors = made.Conn, []

    async def work(conn):
        try:
            await execute(conn, "select 1")
        except psycopg.Error as error:
            errors.append(error)

    async def start(conn: Conn, tasks: BackgroundTasks):
        await execute(conn, "select 1")
        tasks.add_task(endpoint(made.kind, work), conn)

    made.get(start)
    async with client(made.app) as asking:
        await asking.get("/start")

    (error,) = errors
    assert isinstance(error, edgepool.ConnectionReturned)
    # Where the endpoint's first statement is.
    assert re.search(
        r"by what borrowed it at \S+/(parity|test_fastapi)\.py:", str(error)
    )


@pytest.mark.parametrize("error", [HTTPException(409), ValueError("no")], ids=repr)
async def test_an_exception_rolls_back(made, rows, table, error):
    Conn = made.Conn

    async def add(conn: Conn):
        await execute(conn, f"insert into {table} values (1)")
        raise error

    made.get(add)
    async with client(made.app) as asking:
        answer = await asking.get("/add")
        await at_rest(made.pool, 1)

    assert getattr(error, "status_code", 500) == answer.status_code
    assert [] == rows()


async def test_an_answer_that_cannot_be_made_rolls_back(made, rows, table):
    Conn = made.Conn

    @made.get
    async def add(conn: Conn) -> int:
        await execute(conn, f"insert into {table} values (1)")
        return "not a number"

    assert 500 == await made.status("/add")
    assert [] == rows()


# borrowed late


async def test_nothing_is_borrowed_for_an_endpoint_that_asks_nothing(made):
    Conn = made.Conn

    async def ping(conn: Conn):
        return made.in_use

    made.get(ping)
    async with client(made.app) as asking:
        answer = await asking.get("/ping")

    assert 0 == answer.json()
    assert 0 == made.pool.get_stats().get("requests_num", 0)


async def test_nothing_is_borrowed_before_the_first_statement(made):
    Conn, held = made.Conn, []

    async def ask(conn: Conn):
        held.append(made.in_use)
        await execute(conn, "select 1")
        held.append(made.in_use)

    made.get(ask)
    async with client(made.app) as asking:
        await asking.get("/ask")

    assert [0, 1] == held


async def test_it_waits_no_longer_than_it_was_told(kind, conninfo):
    made = Made(kind, conninfo, max_size=1, nested="wait")
    Own = Annotated[kind.Connection, Borrowed(made.pool, timeout=0)]
    Conn = made.Conn

    async def ask(one: Conn, other: Own):
        await execute(one, "select 1")
        await execute(other, "select 1")

    made.get(ask)
    add_exception_handlers(made.app)
    async with client(made.app) as asking:
        answer = await asking.get("/ask")

    assert 503 == answer.status_code


# one for a request, and from where


async def test_all_parameters_of_a_request_share_one(made):
    Conn, Same = made.Conn, Annotated[made.kind.Connection, Borrowed(made.pool)]

    async def user(conn: Same):
        return await fetch(conn, "select pg_current_xact_id()::text")

    User = Annotated[str, Depends(endpoint(made.kind, user))]

    async def ask(conn: Conn, user: User):
        return user == await fetch(conn, "select pg_current_xact_id()::text")

    made.get(ask)
    async with client(made.app) as asking:
        answer = await asking.get("/ask")

    assert answer.json() is True


async def test_a_dependency_with_an_end_may_use_it_there(made, rows, table):
    Conn = made.Conn

    async def audited(conn: Conn):
        yield
        await fetch(conn, f"insert into {table} values (2) returning x")

    def audited_in_thread(conn: Conn):
        yield
        conn.execute(f"insert into {table} values (2)")

    chosen = audited if made.kind.asynchronous else audited_in_thread
    scope = {"scope": "function"} if HAS_SCOPES else {}

    async def add(conn: Conn, audit: Annotated[None, Depends(chosen, **scope)]):
        await execute(conn, f"insert into {table} values (1)")

    made.get(add)
    async with client(made.app) as asking:
        await asking.get("/add")

    assert [1, 2] == rows()


async def test_a_request_may_use_several_pools(made, conninfo):
    other = made.kind.Pool(conninfo, min_size=0, max_size=1)
    Conn, Other = made.Conn, Annotated[made.kind.Connection, Borrowed(other)]

    async def ask(conn: Conn, another: Other):
        query = "select pg_backend_pid()"
        return [await fetch(conn, query), await fetch(another, query)]

    made.get(ask)
    async with lifespan(other)(made.app), client(made.app) as asking:
        pids = (await asking.get("/ask")).json()

    assert 2 == len(set(pids))


async def test_a_dependency_may_give_the_pool(made):
    async def pool_of(request: Request):
        return request.app.state.pool

    Conn = Annotated[made.kind.Connection, Borrowed(pool_of)]

    async def ask(conn: Conn):
        return await fetch(conn, "select 6 * 7")

    made.get(ask)
    made.app.state.pool = made.pool
    async with client(made.app) as asking:
        answer = await asking.get("/ask")

    assert 42 == answer.json()
    assert 0 == made.in_use


async def test_tests_may_put_another_pool_in_its_place(made):
    Conn = made.Conn
    real = made.kind.Pool("port=1", min_size=0, max_size=1)
    Real = Annotated[made.kind.Connection, Borrowed(real)]

    async def ask(conn: Real):
        return await fetch(conn, "select 6 * 7")

    made.get(ask)
    mine = Conn.__metadata__[0].dependency
    made.app.dependency_overrides[Borrowed(real).dependency] = mine
    async with client(made.app) as asking:
        answer = await asking.get("/ask")

    assert 42 == answer.json()


async def test_it_is_no_parameter_of_the_api(made):
    Conn = made.Conn

    async def ask(conn: Conn):
        """Answer."""

    made.get(ask)
    asked = made.app.openapi()["paths"]["/ask"]["get"]

    assert "parameters" not in asked
    assert "requestBody" not in asked


async def test_a_websocket_has_it_from_its_first_statement_to_its_end(made):
    Conn, held, sent = made.Conn, [], []

    async def talk(socket: WebSocket, conn: Conn):
        await socket.accept()
        held.append(made.in_use)
        if made.kind.asynchronous:
            await socket.send_json(await fetch(conn, "select 42"))
        else:
            ask = endpoint(made.kind, fetch)
            await socket.send_json(
                await anyio.to_thread.run_sync(ask, conn, "select 42")
            )
        held.append(made.in_use)

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message.get("text"))

    made.app.websocket("/talk")(talk)
    scope = {"type": "websocket", "path": "/talk", "headers": [], "query_string": b""}
    async with lifespan(made.pool)(made.app):
        await made.app(scope, receive, send)
        await at_rest(made.pool, 1)

    assert [0, 1] == held
    assert "42" in sent


# given back in between


async def test_others_have_what_is_released(made, rows, table):
    Conn, held = made.Conn, []

    async def buy(conn: Conn):
        await execute(conn, f"insert into {table} values (1)")
        await result(conn.commit())
        async with entered(released(conn)):
            held.append(made.in_use)
            with pytest.raises(edgepool.ConnectionReturned):
                await execute(conn, "select 1")
        await execute(conn, f"insert into {table} values (2)")
        held.append(made.in_use)

    made.get(buy)
    async with client(made.app) as asking:
        answer = await asking.get("/buy")

    assert (200, [0, 1]) == (answer.status_code, held)
    assert [1, 2] == rows()


async def test_nothing_is_released_that_is_not_committed(made, rows, table):
    Conn = made.Conn

    async def buy(conn: Conn):
        await execute(conn, f"insert into {table} values (1)")
        with pytest.raises(psycopg.ProgrammingError, match="commit or roll back first"):
            async with entered(released(conn)):
                pytest.fail("it was released")
        await execute(conn, f"insert into {table} values (2)")

    made.get(buy)
    async with client(made.app) as asking:
        await asking.get("/buy")

    assert [1, 2] == rows()


async def test_only_what_is_borrowed_late_is_released(made):
    kept, Conn = [], made.Conn

    async def ask(conn: Conn):
        kept.append(conn)

    made.get(ask)
    async with client(made.app) as asking:
        await asking.get("/ask")
        with pytest.raises(edgepool.ConnectionReturned):
            released(kept[0])
        async with entered(made.pool.connection()) as conn:
            with pytest.raises(
                ValueError, match="takes a connection that is borrowed at"
            ):
                released(conn)


async def test_a_request_that_is_cancelled_while_it_holds_none_leaves_nothing(
    made, conninfo, server
):
    Conn, away, over = made.Conn, threading.Event(), threading.Event()

    async def buy(conn: Conn):
        await fetch(conn, "select 1")
        await result(conn.commit())
        async with entered(released(conn)):
            away.set()
            if made.kind.asynchronous:
                await asyncio.Event().wait()
            over.wait()
        await fetch(conn, "select 1")

    made.get(buy)
    async with client(made.app) as asking:
        answering = asyncio.ensure_future(asking.get("/buy"))
        await beside(away.wait)
        answering.cancel()
        over.set()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await conserved(made.pool, server, application_name(conninfo))


# cancelled


async def test_requests_that_are_cancelled_at_any_time_leave_nothing(
    made, conninfo, server
):
    """As a middleware with a deadline does it, or the shutdown of a server."""
    Conn, ended = made.Conn, Counter()
    seed = time.time_ns()
    print(f"seed {seed}")
    dice = random.Random(seed)

    async def ask(conn: Conn):
        await execute(conn, "select pg_sleep(0.002)")
        return await fetch(conn, "select pg_current_xact_id()::text")

    async def one(asking):
        answering = asyncio.ensure_future(asking.get("/ask"))
        await asyncio.sleep(dice.random() * patience)
        answering.cancel()
        try:
            ended[(await answering).status_code] += 1
        except asyncio.CancelledError:
            ended["cancelled"] += 1

    made.get(ask)
    patience = 0.03
    async with client(made.app) as asking:
        for _ in range(20):
            answered = ended[200]
            await asyncio.gather(*(one(asking) for _ in range(10)))
            if ended[200] == answered:  # it takes longer where much else is going on
                patience *= 2
        await conserved(made.pool, server, application_name(conninfo))

    assert {200, "cancelled"} == set(ended)


# threads


async def test_requests_that_wait_do_not_keep_one_from_being_returned(conninfo):
    """All of FastAPI's threads wait for a connection; to commit takes one more."""
    made = Made(THREADS, conninfo, max_size=1)
    Conn = made.Conn

    async def ask(conn: Conn):
        return await fetch(conn, "select pg_current_xact_id()::text")

    made.get(ask)
    threads = anyio.to_thread.current_default_thread_limiter()
    threads.total_tokens = 2
    answers = []
    async with client(made.app) as asking, anyio.create_task_group() as group:

        async def one():
            answers.append((await asking.get("/ask")).status_code)

        for _ in range(10):
            group.start_soon(one)

    assert [200] * 10 == answers


# refusals


@pytest.mark.parametrize("what", ["port=1", None], ids=repr)
def test_only_a_pool_of_connections_is_taken(what):
    with pytest.raises(TypeError, match="a pool of connections, not"):
        Borrowed(what)


@pytest.mark.parametrize("timeout", ["5", float("nan")], ids=repr)
def test_a_timeout_is_a_number_when_it_is_declared(timeout):
    with pytest.raises(
        (TypeError, ValueError),
        match=f"^timeout must be a number of seconds, not {timeout!r}$",
    ):
        Borrowed(edgepool.ConnectionPool("", open=False), timeout=timeout)


@pytest.mark.parametrize("version", ["0.118.0", "0.120.4"])
def test_a_fastapi_that_would_hold_it_for_too_long_is_refused(monkeypatch, version):
    monkeypatch.setattr(fastapi, "__version__", version)
    monkeypatch.delitem(sys.modules, "edgepool.fastapi")

    with pytest.raises(ImportError, match=f"does not work with FastAPI {version}"):
        importlib.import_module("edgepool.fastapi")
