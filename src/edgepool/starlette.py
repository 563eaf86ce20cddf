"""For Starlette and what is built on it: pools that live as long as an application.

How to use it: docs/how-to/fastapi.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from . import AsyncPool, ConnectFailed, NestedBorrow, Pool, PoolTimeout, TooManyRequests

try:
    from anyio import to_thread
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.websockets import WebSocket
except ImportError as error:
    raise ImportError(
        "edgepool.starlette needs Starlette: pip install 'edgepool[starlette]'"
    ) from error

__all__ = ["add_exception_handlers", "lifespan"]

TRY_AGAIN_LATER = 1013  # of the codes with which a WebSocket is closed


def lifespan(
    *pools: Pool[Any] | AsyncPool[Any],
) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens pools at the start, and closes them at the end.

    `Starlette(lifespan=lifespan(pool))`. It does not wait until they have connected.
    At the end each waits for what is borrowed, as its `close` does. They can be opened
    again, by the next start of an application.

    A lifespan of your own opens them with `async with lifespan(pool)(app):`.

    Args:
        pools: of threads, of asyncio, or both. The last one is closed first.

    Raises:
        TypeError: there is none, or something else is among them.
    """
    if not pools:
        raise TypeError("lifespan() takes at least one pool")
    for pool in pools:
        if not isinstance(pool, (Pool, AsyncPool)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"lifespan() takes edgepool's pools, not {pool!r}")

    @asynccontextmanager
    async def opened(app: object) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            for pool in pools:
                if isinstance(pool, AsyncPool):
                    await stack.enter_async_context(pool)
                else:
                    pool.open()
                    # It waits for borrowers, who may need the event loop.
                    stack.push_async_callback(_in_thread, pool.close)
            yield

    return opened


async def _in_thread(function: Callable[[], None]) -> None:
    await to_thread.run_sync(function)


def add_exception_handlers(app: Starlette, *, retry_after: int = 1) -> None:
    """Have an application answer 503 where no connection became available.

    That is at a `PoolTimeout`, such as `PoolOverloaded`, and at `TooManyRequests`. A
    WebSocket is closed with code 1013. What more patience would not mend stays an error
    of the application's own: `ConnectFailed`, `NestedBorrow`, `PoolClosed`.

    Args:
        app: of Starlette or FastAPI.
        retry_after: after how many seconds to come again, in the answer's
            `Retry-After`; a whole number.

    Raises:
        ValueError: `retry_after` is no whole number, or below 0.
    """
    if not isinstance(retry_after, int) or retry_after < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(
            f"retry_after must be a whole number of at least 0, not {retry_after!r}"
        )

    # Starlette's types know handlers of requests and those of WebSockets, not of both.
    async def unavailable(asked: Request | WebSocket, error: Exception) -> Any:
        if isinstance(error, (ConnectFailed, NestedBorrow)):
            raise error
        if isinstance(asked, WebSocket):
            await asked.close(TRY_AGAIN_LATER)
            return None
        return JSONResponse(
            {"detail": "Service Unavailable"},
            503,
            headers={"Retry-After": str(retry_after)},
        )

    app.add_exception_handler(PoolTimeout, unavailable)
    app.add_exception_handler(TooManyRequests, unavailable)
