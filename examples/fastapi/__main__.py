"""Run the application under uvicorn, ask it, and measure what downloads do to it.

    python examples/fastapi

Starts a PostgreSQL and a uvicorn on this machine, for as long as it takes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psycopg
from psycopg.conninfo import make_conninfo

from edgepool.testing import PostgresServer

HERE = Path(__file__).parent
HOST = "127.0.0.1"
NAME = "application"

READINGS = 20
DOWNLOADS = 40
REQUESTS = 200
CLIENTS = 2


@contextmanager
def served(url: str) -> Iterator[str]:
    """Serve the application; gives its address."""
    with socket.create_server((HOST, 0)) as found:
        port = found.getsockname()[1]
    # What `EDGEPOOL_...` variables say here is not meant for the application's pools.
    here = {k: v for k, v in os.environ.items() if not k.startswith("EDGEPOOL_")}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE)),
            *("--host", HOST, "--port", str(port), "--log-level", "warning"),
        ],
        env={**here, "DATABASE_URL": url},
    )
    try:
        while process.poll() is None:
            try:
                socket.create_connection((HOST, port)).close()
            except OSError:
                time.sleep(0.01)
            else:
                break
        else:
            raise SystemExit("uvicorn does not start.")
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def downloading(client: httpx.AsyncClient, number: int) -> AsyncIterator[None]:
    """Have so many clients download during the block: until the last line."""

    async def download(begun: asyncio.Event) -> int:
        async with client.stream("GET", "/readings.csv") as answer:
            begun.set()
            return len([line async for line in answer.aiter_lines()])

    begins = [asyncio.Event() for _ in range(number)]
    downloads = [asyncio.create_task(download(begun)) for begun in begins]
    for begun in begins:
        await begun.wait()
    yield
    lines = await asyncio.gather(*downloads)
    assert lines == [READINGS] * number


async def ask(client: httpx.AsyncClient, what: str) -> None:
    """Have some clients ask as fast as they can, and print a line about it."""
    took: list[float] = []
    errors = 0

    async def work() -> None:
        nonlocal errors
        for number in range(REQUESTS // CLIENTS):
            started = time.perf_counter()
            answer = await client.get(f"/sensors/{number % 5}")
            took.append((time.perf_counter() - started) * 1000)
            errors += answer.is_error

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    median, worst = statistics.median(took), max(took)
    print(f"{what:<28}{len(took):>9}{errors:>8}{median:>10.1f} ms{worst:>8.1f} ms")


async def visit(address: str, direct: str) -> None:
    """Use the application."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        for number in range(READINGS):
            reading = {"sensor": str(number % 5), "value": number}
            taken = await client.post("/readings", json=reading)
            assert taken.status_code == 201
        broken = {"sensor": "0", "value": 1e9}
        refused = await client.post("/readings", json=broken)
        print(f"Taken: {READINGS}; {refused.status_code}: {refused.json()['detail']}")
        print("Kept:", (await client.get("/sensors")).json())

        print(f"{'':<28}{'requests':>9}{'errors':>8}{'median':>13}{'worst':>11}")
        await ask(client, "nobody downloads")
        async with downloading(client, DOWNLOADS):
            await ask(client, f"{DOWNLOADS} download")
    with psycopg.connect(direct) as conn:
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME]
        ).fetchone()
    (sessions,) = row or (0,)
    print(f"The application has {sessions} sessions; its pools may have 6 together.")


def main() -> None:
    """Start what is needed, and visit the application."""
    with PostgresServer() as server:
        url = make_conninfo(server.conninfo, application_name=NAME)
        with psycopg.connect(server.conninfo) as conn:
            conn.execute((HERE / "schema.sql").read_bytes())
        with served(url) as address:
            asyncio.run(visit(address, server.conninfo))


if __name__ == "__main__":
    main()
