"""Counts what an idle pool keeps running.

``python -m benchmarks.idler SIDE PEER CONNINFO`` prints how many threads and asyncio
tasks there are more than without a pool.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

from .peers import Recipe, Settings, usual
from .sides import TASKS, THREADS

SIZE = 4
LEFT_ALONE = 0.3
"""Seconds after the last return: time for short-lived workers to end."""


def threads() -> int:
    """Count this process's threads; the system's count, where it has one."""
    listing = Path("/proc/self/task")
    return len(os.listdir(listing)) if listing.exists() else threading.active_count()


async def idle(recipe: Recipe, conninfo: str) -> dict[str, int]:
    """Open a pool, use it, leave it alone, and count."""
    asynchronous = recipe.side is TASKS
    threads_before = threads()
    tasks_before = len(asyncio.all_tasks()) if asynchronous else 0

    async with recipe.open(Settings(conninfo, SIZE)):
        await recipe.side.sleep(LEFT_ALONE)
        return {
            "threads": threads() - threads_before,
            "tasks": len(asyncio.all_tasks()) - tasks_before if asynchronous else 0,
        }


def main() -> None:
    """Count for one peer."""
    side_name, peer_name, conninfo = sys.argv[1:]
    side = THREADS if side_name == THREADS.name else TASKS
    recipe = next(each for each in usual(side) if each.name == peer_name)
    print(json.dumps(side.run(idle(recipe, conninfo))))


if __name__ == "__main__":
    main()
