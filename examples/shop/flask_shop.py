"""The shop in Flask.

gunicorn --preload --workers 2 --threads 8 flask_shop:app
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from typing import Any

import payments
import queries
from flask import Flask, Response, abort, request, stream_with_context
from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from edgepool.flask import EdgePool

app = Flask(__name__)
app.config.update(
    DATABASE_URL=os.environ["DATABASE_URL"],
    EDGEPOOL_MAX_SIZE=int(os.environ.get("EDGEPOOL_MAX_SIZE", "4")),
)
db = EdgePool(
    app,
    connection_class=Connection[DictRow],
    kwargs={"row_factory": dict_row},
    min_size=1,
)


@app.get("/products")
def products() -> list[DictRow]:
    """Show what there is."""
    return db.pool.fetch_all(queries.PRODUCTS)


@app.post("/orders")
def order() -> tuple[dict[str, Any], int]:
    """Reserve, have it paid, and say so; no connection is held while it is paid."""
    wanted = request.get_json()
    reserved = db.connection.execute(queries.RESERVE, wanted).fetchone()
    if reserved is None:
        abort(409, "sold out")
    total = reserved["total"]
    made = db.connection.execute(
        queries.ORDER, [wanted["product"], wanted["quantity"], total]
    ).fetchone()
    assert made is not None
    db.give_back()
    receipt = payments.pay(made["id"], total)
    db.connection.execute(queries.PAID, [receipt, made["id"]])
    return {"id": made["id"], "receipt": receipt}, 201


@app.get("/orders/<int:number>")
def one_order(number: int) -> DictRow:
    """Show an order."""
    return db.pool.fetch_one(queries.ONE_ORDER, [number]) or abort(404)


@app.get("/orders.csv")
def export() -> Response:
    """Send all orders, however many, while they come from the database."""

    def lines() -> Iterator[str]:
        with db.connection.cursor("orders") as cursor:
            for row in cursor.execute(queries.ALL_ORDERS):
                line = io.StringIO()
                csv.writer(line).writerow(row.values())
                yield line.getvalue()

    return Response(stream_with_context(lines()), mimetype="text/csv")
