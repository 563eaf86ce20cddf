"""The application of examples/fastapi, under uvicorn, over HTTP; and its program."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from support.asgi import served

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi"
PATIENCE = 100  # seconds; it takes 8


@pytest.fixture
def application(
    conninfo: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The application, with tables of the test's own."""
    schema = conninfo.rpartition("=")[2].replace("-", "_")
    own = make_conninfo(conninfo, options=f"-c search_path={schema}")
    admin.execute(f"create schema {schema}")  # type: ignore[call-overload]
    with psycopg.connect(own) as conn:
        conn.execute((EXAMPLE / "schema.sql").read_bytes())
    monkeypatch.setenv("DATABASE_URL", own)
    monkeypatch.syspath_prepend(EXAMPLE)
    yield importlib.import_module("app")
    del sys.modules["app"]
    admin.execute(f"drop schema {schema} cascade")  # type: ignore[call-overload]


@asynccontextmanager
async def visited(application: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the application; gives a client of it."""
    async with (
        served(application.app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def take(client: httpx.AsyncClient, value: float) -> int:
    answer = await client.post("/readings", json={"sensor": "cellar", "value": value})
    return answer.status_code


async def test_what_is_taken_is_shown(application: ModuleType) -> None:
    async with visited(application) as client:
        taken = [await take(client, value) for value in (10, 20)]
        shown = await client.get("/sensors/cellar")

    assert [201, 201] == taken
    assert {"mean": 15.0} == shown.json()


async def test_of_a_broken_sensor_nothing_is_kept(application: ModuleType) -> None:
    async with visited(application) as client:
        taken = await take(client, 1e9)
        kept = await client.get("/sensors")

    assert 422 == taken
    assert {} == kept.json()


async def test_an_unknown_sensor_is_not_found(application: ModuleType) -> None:
    async with visited(application) as client:
        assert 404 == (await client.get("/sensors/attic")).status_code


async def test_a_download_holds_no_connection(
    application: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held_up(lines: list[str]) -> AsyncIterator[str]:
        yield lines[0]
        begun.set()
        await on.wait()
        yield lines[1]

    begun, on = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(application, "slowly", held_up)
    async with visited(application) as client:
        for value in (1, 2):
            await take(client, value)
        downloading = asyncio.create_task(client.get("/readings.csv"))
        await begun.wait()
        held = application.pool.statistics().in_use
        on.set()
        downloaded = await downloading

    assert 0 == held
    assert "cellar,1.0\ncellar,2.0\n" == downloaded.text


def test_the_program_measures_and_prints() -> None:
    ran: Any = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert "Taken: 20; 422: The sensor is broken." == lines[0]
    rows = [line.rsplit(maxsplit=6)[1:3] for line in lines[3:5]]
    assert [["200", "0"]] * 2 == rows
    sessions = int(lines[5].split()[3])
    assert 0 < sessions <= 6
