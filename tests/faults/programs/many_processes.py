"""A pool that was used before `multiprocessing` forks its workers, which use it too.

many_processes.py CONNINFO
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import warnings

from edgepool import ConnectionPool

pool = ConnectionPool(sys.argv[1], min_size=2, max_size=4)


def echo(number):
    with pool.connection() as conn:
        query = "select %s::int, pg_backend_pid() from pg_sleep(0.005)"
        back, backend = conn.execute(query, [number]).fetchone()
    return {"number": back, "backend": backend, "worker": os.getpid()}


if __name__ == "__main__":
    warnings.filterwarnings("ignore", r".*multi-threaded.*fork", DeprecationWarning)
    pool.open(wait=True)
    preloaded = {echo(-1)["backend"] for _ in range(10)}
    with multiprocessing.get_context("fork").Pool(3) as workers:
        answers = workers.map_async(echo, range(200), chunksize=1)
        own = [echo(number) for number in range(1000, 1100)]
        theirs = answers.get(timeout=60.0)
    print(
        json.dumps(
            {
                "preloaded": sorted(preloaded),
                "own": own,
                "theirs": theirs,
                "after": echo(-2)["backend"],
            }
        )
    )
    pool.close()
