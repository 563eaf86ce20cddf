"""A child closes the event loop that it has inherited; the parent goes on with it.

closing_the_loop.py CONNINFO
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from edgepool import AsyncConnectionPool
from support.forks import fork


async def wake_up_from_another_thread():
    await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.2), timeout=10.0)


async def query(seconds):
    async with pool.connection() as conn:
        await conn.execute("select pg_sleep(%s)", [seconds])


async def query_under_way():
    """Leave a query under way, whose socket is in the loop's selector."""
    running = asyncio.ensure_future(query(1.0))
    while not pool.statistics().in_use:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    return running


async def go_on():
    await asyncio.wait_for(running, timeout=10.0)
    await wake_up_from_another_thread()
    await query(0.0)
    await pool.close()


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    pool = AsyncConnectionPool(sys.argv[1], min_size=2)
    running = loop.run_until_complete(query_under_way())
    if (child := fork()) == 0:
        try:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.call_soon(loop.stop)
            loop.run_forever()
            loop.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    loop.run_until_complete(go_on())
    loop.close()
    print("the parent goes on")
