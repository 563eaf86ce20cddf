"""The same with asyncio: the pool lives as long as the application does.

Run it with `DATABASE_URL=postgresql://... python examples/quickstart_async.py`.
"""

import asyncio
import os

from edgepool import AsyncConnectionPool


async def largest_tables(pool: AsyncConnectionPool, count: int) -> list[str]:
    async with pool.connection() as conn:  # commits at the end, rolls back on an error
        query = "SELECT relname FROM pg_class ORDER BY relpages DESC LIMIT %s"
        return [name async for (name,) in await conn.execute(query, [count])]


async def main() -> None:
    async with AsyncConnectionPool(os.environ["DATABASE_URL"], max_size=10) as pool:
        print(await largest_tables(pool, 3))


if __name__ == "__main__":
    asyncio.run(main())
