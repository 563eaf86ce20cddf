"""A parent with sessions, and children that end in each way there is.

    ending.py COLOUR CONNINFO

Prints, as JSON, for each way what was wrong with the parent's sessions after it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time

from support.forks import fork
from support.parity import execute, fetch, lend, pid, result, run_blocking
from support.pg import COLOURS

SIZE = 4


def sys_exit():
    sys.exit(3)


def os_exit():
    os._exit(3)


def raise_an_exception():
    raise ValueError("how this child ends")


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def be_terminated():
    os.kill(os.getpid(), signal.SIGTERM)


def fall_into_the_garbage():
    names = globals()
    del names["pool"], names["held"]
    gc.collect()
    os._exit(3)


# To return is to go on to the end of the program.
WAYS = {
    "return": lambda: None,
    "sys.exit": sys_exit,
    "os._exit": os_exit,
    "exception": raise_an_exception,
    "SIGKILL": be_killed,
    "SIGTERM": be_terminated,
    "garbage": fall_into_the_garbage,
}


def run(coroutine):
    """Run a part of the program; with tasks, in the one loop of the process."""
    return loop.run_until_complete(coroutine) if loop else run_blocking(coroutine)


async def begin():
    """Have idle connections, and one that is lent, in a transaction."""
    await result(pool.open(wait=True))
    conn = await result(pool.getconn())
    await execute(conn, "create temporary table kept (number int)")
    return conn, await fetch(conn, "select pg_current_xact_id()::text")


async def sessions():
    """Borrow all that are left; give the sessions of all."""
    others = [await result(pool.getconn()) for _ in range(SIZE - 1)]
    pids = {pid(conn) for conn in [held, *others]}
    for conn in others:
        await fetch(conn, "select 1")
        await result(conn.commit())
        await result(pool.putconn(conn))
    return pids


async def complaint():
    """Say what is wrong with the parent's sessions, or with its event loop."""
    if loop:
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.2), timeout=10.0)
    if await fetch(held, "select pg_current_xact_id()::text") != transaction:
        return "the transaction is another"
    if await sessions() != pids:
        return "the sessions are others"
    return None


async def used():
    """Use the pool in a child."""
    backend = await lend(pool)
    if backend in pids:
        raise RuntimeError("the child has a session of its parent")


def end_a_child(end, uses_the_pool):
    """Fork a child that ends in a way; in the parent, give its status."""
    global loop
    child = fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # its traceback is of no interest
    if uses_the_pool:
        loop = asyncio.new_event_loop() if colour.asynchronous else None
        run(used())
    end()
    return None


def main():
    wrong = {}
    for way, end in WAYS.items():
        for uses_the_pool in (False, True):
            if (status := end_a_child(end, uses_the_pool)) is None:
                return
            name = f"{way}, used" if uses_the_pool else way
            wrong[name] = [status, run(complaint())]
    print(json.dumps(wrong))
    run(finish())


async def finish():
    await result(held.rollback())
    await result(pool.putconn(held))
    await result(pool.close())


if __name__ == "__main__":
    colour = COLOURS[sys.argv[1]]
    loop = asyncio.new_event_loop() if colour.asynchronous else None
    pool = colour.Pool(sys.argv[2], min_size=SIZE, open=False)
    held, transaction = run(begin())
    pids = run(sessions())
    main()
    if loop:
        loop.close()
