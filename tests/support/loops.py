"""The event loops that edgepool is tested in, and how to run something in one."""

from __future__ import annotations

import asyncio
import sys

# By name, how each is made.
LOOPS = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


def run_in(new_loop, coroutine):
    """Run a coroutine in a loop of a kind, as 3.10's `asyncio.run` cannot."""
    loop = new_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(coroutine)
    finally:
        try:
            everybody = asyncio.all_tasks(loop)
            for task in everybody:
                task.cancel()
            if everybody:
                loop.run_until_complete(asyncio.wait(everybody))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
