"""A WSGI application, and its pool.

DATABASE_URL says where to. With BEFORE_THE_FORK, which may be anything, the pool is
opened and used as soon as it is imported.
"""

from __future__ import annotations

import json
import os

from edgepool import ConnectionPool

pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=2, max_size=4)
PRELOADED = []

if "BEFORE_THE_FORK" in os.environ:
    pool.open(wait=True)
    with pool.connection() as first, pool.connection() as second:
        PRELOADED = [first.info.backend_pid, second.info.backend_pid]


def app(environ, start_response):
    """Echo the number in the path, by way of the server."""
    number = int(environ["PATH_INFO"].strip("/"))
    with pool.connection() as conn:
        query = "select %s::int, pg_backend_pid() from pg_sleep(0.002)"
        echo, backend = conn.execute(query, [number]).fetchone()
    answer = {
        "number": echo,
        "backend": backend,
        "worker": os.getpid(),
        "preloaded": PRELOADED,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
