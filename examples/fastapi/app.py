"""Readings of sensors: an application that takes them, and gives them away.

    DATABASE_URL=postgresql://... uvicorn app:app

Copy these lines. The tables are in `schema.sql`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection, Connection
from pydantic import BaseModel

from edgepool import AsyncConnectionPool, ConnectionPool
from edgepool.fastapi import Borrowed, add_exception_handlers, lifespan

LIMIT = 1000.0

# Made once for each process; they connect to nothing before the application starts.
pool = AsyncConnectionPool.from_env(max_size=4, timeout=5)
threads = ConnectionPool.from_env(min_size=1, max_size=2, timeout=5)

app = FastAPI(lifespan=lifespan(pool, threads))
add_exception_handlers(app)  # 503 if no connection becomes available

Conn = Annotated[AsyncConnection, Borrowed(pool)]
ThreadConn = Annotated[Connection, Borrowed(threads)]


class Reading(BaseModel):
    """What a sensor has read."""

    sensor: str
    value: float


@app.post("/readings", status_code=201)
async def take(reading: Reading, conn: Conn) -> Reading:
    """Take a reading: all of it, or nothing."""
    await conn.execute(
        "INSERT INTO sensors (name, readings) VALUES (%s, 1)"
        " ON CONFLICT (name) DO UPDATE SET readings = sensors.readings + 1",
        [reading.sensor],
    )
    if abs(reading.value) > LIMIT:
        raise HTTPException(422, "The sensor is broken.")  # and nothing is kept
    await conn.execute(
        "INSERT INTO readings VALUES (%s, %s)", [reading.sensor, reading.value]
    )
    return reading  # committed before this is sent


@app.get("/sensors")
def sensors(conn: ThreadConn) -> dict[str, int]:
    """Count the readings of each; in a thread, as FastAPI does without `async`."""
    return dict(conn.execute("SELECT name, readings FROM sensors ORDER BY name"))


@app.get("/sensors/{name}")
async def sensor(name: str, conn: Conn) -> dict[str, float]:
    """Show the mean of a sensor's readings."""
    cursor = await conn.execute(
        "SELECT avg(value) FROM readings WHERE sensor = %s", [name]
    )
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        raise HTTPException(404, "There is no such sensor.")
    return {"mean": row[0]}


@app.get("/readings.csv")
async def download(conn: Conn) -> StreamingResponse:
    """Give all readings away, to a client that is slow."""
    cursor = await conn.execute("SELECT sensor, value FROM readings")
    lines = [f"{name},{value}\n" for name, value in await cursor.fetchall()]
    # The connection is back before the first line is sent.
    return StreamingResponse(slowly(lines), media_type="text/csv")


async def slowly(lines: list[str]) -> AsyncIterator[str]:
    """Give lines one by one, as a network far away takes them."""
    for line in lines:
        yield line
        await asyncio.sleep(0.1)
