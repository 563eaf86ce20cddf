"""A WSGI application whose pool is opened and used before gunicorn forks.

DATABASE_URL says where to.
"""

from __future__ import annotations

import json
import os

from edgepool import ConnectionPool

pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=2, max_size=4, open=True)
pool.wait()

with pool.connection() as first, pool.connection() as second:
    PRELOADED = [first.info.backend_pid, second.info.backend_pid]


def app(environ, start_response):
    """Echo the number in the path, by way of the server."""
    number = int(environ["PATH_INFO"].strip("/"))
    with pool.connection() as conn:
        query = "select %s::int, pg_backend_pid()"
        echo, backend = conn.execute(query, [number]).fetchone()
    answer = {
        "number": echo,
        "backend": backend,
        "worker": os.getpid(),
        "preloaded": PRELOADED,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
