"""What the integrations with web frameworks take and give, as type checkers see it."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Request
from psycopg import AsyncConnection, Connection
from starlette.applications import Starlette

from edgepool import AsyncConnectionPool, ConnectionPool
from edgepool.fastapi import Borrowed, add_exception_handlers, lifespan, released

tasks: AsyncConnectionPool[AsyncConnection] = AsyncConnectionPool("")
threads: ConnectionPool[Connection] = ConnectionPool("")

app = FastAPI(lifespan=lifespan(tasks, threads))
add_exception_handlers(app)
plain = Starlette(lifespan=lifespan(tasks))
add_exception_handlers(plain, retry_after=5)


def pool_of(request: Request) -> AsyncConnectionPool[AsyncConnection]:
    return tasks


Conn = Annotated[AsyncConnection, Borrowed(tasks)]
ThreadConn = Annotated[Connection, Borrowed(threads)]
Given = Annotated[AsyncConnection, Borrowed(pool_of, timeout=2)]


@app.get("/")
async def in_task(conn: Conn, given: Given) -> None:
    await conn.execute("")
    await given.execute("")
    async with released(conn):
        pass
    with released(conn):  # type: ignore[attr-defined]  # pyright: ignore
        pass


@app.get("/thread")
def in_thread(conn: ThreadConn) -> None:
    conn.execute("")
    with released(conn):
        pass
    released(threads)  # type: ignore[call-overload]  # pyright: ignore
