"""An ASGI application, and its pool; nothing opens or closes it.

DATABASE_URL says where to.
"""

from __future__ import annotations

import json
import os

from edgepool import AsyncConnectionPool

pool = AsyncConnectionPool(os.environ["DATABASE_URL"], min_size=2, max_size=4)


async def app(scope, receive, send):
    """Echo the number in the path, by way of the server."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    number = int(scope["path"].strip("/"))
    async with pool.connection() as conn:
        query = "select %s::int, pg_backend_pid() from pg_sleep(0.002)"
        echo, backend = await (await conn.execute(query, [number])).fetchone()
    body = json.dumps({"number": echo, "backend": backend, "worker": os.getpid()})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
