"""The shop in each framework, under its server: right answers, and right books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from edgepool.testing import PostgresServer

SHOP = Path(__file__).parents[2] / "examples" / "shop"


@pytest.fixture(scope="module", params=["flask", "django", "fastapi"])
def shop(request: pytest.FixtureRequest, server: PostgresServer) -> Iterator[Any]:
    """Open a shop on the shared server; in a database of its own."""
    sys.path.insert(0, str(SHOP))
    try:
        from servers import Shop
    finally:
        sys.path.remove(str(SHOP))
    name = f"shop_{request.param}"
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = server.conninfo_for(dbname=name)
    with psycopg.connect(url) as conn:
        conn.execute((SHOP / "schema.sql").read_text())
    with Shop(request.param, DATABASE_URL=url, EDGEPOOL_MAX_SIZE="4") as shop:
        yield shop


def ask(shop: Any, path: str, body: object = None) -> tuple[int, str]:
    """Send a request; return the status and the content."""
    request = urllib.request.Request(
        shop.url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_what_is_ordered_is_paid_and_gone(shop: Any) -> None:
    _, before = ask(shop, "/products")
    status, made = ask(shop, "/orders", {"product": 1, "quantity": 3})
    number = json.loads(made)["id"]
    _, order = ask(shop, f"/orders/{number}")
    _, after = ask(shop, "/products")
    _, everything = ask(shop, "/orders.csv")

    assert status == 201
    assert json.loads(order) == {
        "id": number,
        "product": 1,
        "quantity": 3,
        "total": 119.7,
        "state": "paid",
        "receipt": json.loads(made)["receipt"],
    }
    assert json.loads(before)[0]["stock"] - json.loads(after)[0]["stock"] == 3
    assert f"{number},1,3,119.70,paid" in everything.splitlines()


def test_what_is_not_there_cannot_be_had(shop: Any) -> None:
    before = ask(shop, "/products")

    assert ask(shop, "/orders", {"product": 4, "quantity": 6})[0] == 409
    assert ask(shop, "/orders/999999")[0] == 404
    assert ask(shop, "/products") == before


def test_the_books_balance_after_a_crowd() -> None:
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "error", str(SHOP)),
            *("flask", "django", "fastapi", "--seconds", "0.5"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    assert "The books balance" in ran.stdout
