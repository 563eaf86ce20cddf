"""An ASGI application of a test's own: called in its event loop, or behind uvicorn."""

from __future__ import annotations

import asyncio
import inspect
import socket
from contextlib import asynccontextmanager

import httpx
import uvicorn

from support.parity import eventually, run_blocking


@asynccontextmanager
async def client(app):
    """Start an application without a server, and give a client of it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as asking,
    ):
        yield asking


@asynccontextmanager
async def served(app):
    """Serve an application by uvicorn, in this event loop; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve([listening]))
        await eventually(lambda: server.started or serving.done())
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


class Asking:
    """A client on a connection of its own, that may go away at any time."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer

    @classmethod
    async def get(cls, port, path):
        """Send a request; do not wait for the answer."""
        asking = cls(*await asyncio.open_connection("127.0.0.1", port))
        asking._writer.write(f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
        return asking

    async def until(self, expected):
        """Read until this has come."""
        await self._reader.readuntil(expected)

    async def go(self):
        """Go away."""
        self._writer.close()
        await self._writer.wait_closed()


def endpoint(kind, function):
    """Make of a coroutine function an endpoint that runs as a task, or in a thread."""
    if kind.asynchronous:
        return function

    def blocking(*arguments, **keywords):
        return run_blocking(function(*arguments, **keywords))

    blocking.__signature__ = inspect.signature(function)
    return blocking


class EndsWithClient:
    """A middleware that cancels a request without a body when its client goes."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answering = asyncio.ensure_future(self.app(scope, receive, send))
        going = asyncio.ensure_future(self._gone(receive))
        await asyncio.wait({answering, going}, return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        answering.cancel()
        await asyncio.wait({answering, going})

    async def _gone(self, receive):
        while (await receive())["type"] != "http.disconnect":
            pass
