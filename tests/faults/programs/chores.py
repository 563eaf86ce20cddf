"""A worker of procrastinate's, with a pool that it is handed.

DATABASE_URL says where to.
"""

from __future__ import annotations

import asyncio
import os

from procrastinate import App, PsycopgConnector

from edgepool import AsyncConnectionPool

app = App(connector=PsycopgConnector())


@app.task(name="echo")
async def echo(number):
    """Write down who has done this."""
    query = "insert into done values (%s, %s, pg_backend_pid())"
    async with app.connector.pool.connection() as conn:
        await conn.execute(query, [number, os.getpid()])


async def main():
    pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=4)
    async with pool, app.open_async(pool):
        # Whoever does not hear of a job would find it in an hour.
        await app.run_worker_async(concurrency=8, fetch_job_polling_interval=3600)


if __name__ == "__main__":
    asyncio.run(main())
