"""Litestar needs no module of edgepool's: it takes pools and leases as they are."""

# Litestar reads annotations, which here name what a test has made: no __future__.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from litestar import Litestar, get
from litestar.di import Provide
from litestar.exceptions import ClientException
from litestar.response import Stream
from psycopg import AsyncConnection

from edgepool import AsyncConnectionPool
from support.asgi import Asking, served
from support.parity import eventually, fetch
from support.pg import at_rest

# The oldest release uses what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:litestar")

try:
    from litestar.di import NamedDependency
except ImportError:
    Conn = AsyncConnection
else:
    Conn = NamedDependency[AsyncConnection]


@pytest.fixture
def pool(conninfo):
    return AsyncConnectionPool(conninfo, min_size=1, max_size=1)


def application(pool, *handlers):
    """Make an application whose handlers may ask for `conn`."""

    async def borrowed() -> AsyncIterator[AsyncConnection]:
        async with pool.connection(lazy=True) as conn:
            yield conn

    return Litestar(
        route_handlers=handlers,
        dependencies={"conn": Provide(borrowed)},
        lifespan=[pool],
    )


@asynccontextmanager
async def client(app):
    async with served(app) as port, httpx.AsyncClient() as asking:
        yield lambda path: asking.get(f"http://127.0.0.1:{port}{path}")


async def test_a_pool_is_open_while_the_application_runs(pool, sessions):
    async with served(application(pool)):
        await eventually(lambda: sessions.count == 1)
    await eventually(lambda: sessions.count == 0)

    assert pool.closed


async def test_it_is_back_before_a_streamed_body_begins(pool):
    held = []

    @get("/")
    async def export(conn: Conn) -> Stream:
        held.append(pool.statistics().in_use)
        value = await fetch(conn, "select 'all of it'")
        held.append(pool.statistics().in_use)

        async def body():
            held.append(pool.statistics().in_use)
            yield value

        return Stream(body())

    async with client(application(pool, export)) as asked:
        answer = await asked("/")

    assert "all of it" == answer.text
    assert [0, 1, 0] == held


async def test_an_exception_rolls_back(pool, table, rows):
    @get("/")
    async def add(conn: Conn, refuse: bool) -> None:
        await conn.execute(f"insert into {table} values (1)")
        if refuse:
            raise ClientException("no")

    async with client(application(pool, add)) as asked:
        refused = await asked("/?refuse=true")
        added = await asked("/?refuse=false")
        await at_rest(pool, 1)

    assert [400, 200] == [refused.status_code, added.status_code]
    assert [1] == rows()


async def test_a_client_that_goes_in_the_midst_of_a_stream_ends_its_query(
    pool, sessions
):
    slow = "select pg_sleep(100)"

    async def body():
        async with pool.connection() as conn:
            yield "begun"
            await conn.execute(slow)

    @get("/")
    async def stream() -> Stream:
        return Stream(body())

    async with served(application(pool, stream)) as port:
        asking = await Asking.get(port, "/")
        await asking.until(b"begun")
        await eventually(lambda: sessions.queries == [slow])
        await asking.go()
        await at_rest(pool, 1)
        await eventually(lambda: sessions.states == {"idle": 1})
