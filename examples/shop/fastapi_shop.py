"""The shop in FastAPI.

uvicorn --workers 2 fastapi_shop:app
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Annotated, Any

import payments
import queries
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from pydantic import BaseModel, PositiveInt

from edgepool import AsyncConnectionPool
from edgepool.fastapi import Borrowed, add_exception_handlers, lifespan, released

pool = AsyncConnectionPool.from_env(
    connection_class=AsyncConnection[DictRow],
    kwargs={"row_factory": dict_row},
    min_size=1,
)
app = FastAPI(lifespan=lifespan(pool))
add_exception_handlers(app)

Conn = Annotated[AsyncConnection[DictRow], Borrowed(pool)]


class Order(BaseModel):
    """What a customer wants."""

    product: int
    quantity: PositiveInt


@app.get("/products")
async def products() -> list[dict[str, Any]]:
    """Show what there is."""
    return await pool.fetch_all(queries.PRODUCTS)


@app.post("/orders", status_code=201)
async def order(wanted: Order, conn: Conn) -> dict[str, Any]:
    """Reserve, have it paid, and say so; no connection is held while it is paid."""
    async with conn.transaction():
        reserving = await conn.execute(queries.RESERVE, wanted.model_dump())
        reserved = await reserving.fetchone()
        if reserved is None:
            raise HTTPException(409, "sold out")
        total = reserved["total"]
        ordering = await conn.execute(
            queries.ORDER, [wanted.product, wanted.quantity, total]
        )
        made = await ordering.fetchone()
        assert made is not None
    async with released(conn):
        receipt = await payments.pay_async(made["id"], total)
    await conn.execute(queries.PAID, [receipt, made["id"]])
    return {"id": made["id"], "receipt": receipt}


@app.get("/orders/{number}")
async def one_order(number: int, conn: Conn) -> dict[str, Any]:
    """Show an order."""
    found = await (await conn.execute(queries.ONE_ORDER, [number])).fetchone()
    if found is None:
        raise HTTPException(404)
    return found


@app.get("/orders.csv")
async def export() -> StreamingResponse:
    """Send all orders, however many, while they come from the database."""

    async def lines() -> AsyncIterator[str]:
        async with pool.connection() as conn, conn.cursor("orders") as cursor:
            await cursor.execute(queries.ALL_ORDERS)
            async for row in cursor:
                line = io.StringIO()
                csv.writer(line).writerow(row.values())
                yield line.getvalue()

    return StreamingResponse(lines(), media_type="text/csv")
