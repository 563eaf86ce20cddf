"""For FastAPI: a connection for a request, and pools that live as long as the app.

How to use it: docs/how-to/fastapi.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from inspect import Parameter, Signature
from threading import Lock, Thread
from typing import Any

from . import AsyncConnectionPool, ConnectionPool
from ._core import must_be_seconds
from .psycopg._lazy import released

try:
    import fastapi
    from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class
    from anyio.to_thread import run_sync
except ImportError as error:
    raise ImportError(
        "edgepool.fastapi needs FastAPI: pip install 'edgepool[fastapi]'"
    ) from error

from .starlette import add_exception_handlers, lifespan

__all__ = ["Borrowed", "add_exception_handlers", "lifespan", "released"]

# A dependency has to end before the response is sent. Up to 0.117 each does.
_RELEASE = tuple(map(int, fastapi.__version__.split(".")[:2]))
if (0, 118) <= _RELEASE < (0, 121):
    raise ImportError(
        f"edgepool.fastapi does not work with FastAPI {fastapi.__version__}: from 0.118"
        " to 0.120, dependencies end after the response has been sent, and a connection"
        " would be held for as long. Install an older or a newer FastAPI."
    )
_EARLY: dict[str, Any] = {"scope": "function"} if _RELEASE >= (0, 121) else {}


def Borrowed(
    pool: ConnectionPool[Any] | AsyncConnectionPool[Any] | Callable[..., Any],
    *,
    timeout: float | None = None,
) -> Any:
    """Declare a parameter as a connection of a pool; like `Depends`.

    `conn: Annotated[AsyncConnection, Borrowed(pool)]`. The connection is borrowed at
    its first statement, and returned when the endpoint has returned and its response is
    made, before any of it is sent: also before the body of a `StreamingResponse`, and
    before background tasks. An open transaction is committed then; an error of that
    commit is one of the request. An exception rolls it back, and so do `HTTPException`
    and a cancellation. After that the connection refuses to be used.

    All parameters of a request that name the same pool and timeout share a connection.
    A dependency with `yield` that has such a parameter needs `scope="function"` itself.
    In tests, `Borrowed(pool).dependency` is the key for `app.dependency_overrides`.

    Args:
        pool: for endpoints with `async def`, a pool of asyncio; for those with `def`,
            which run in threads, a pool of threads. Or a dependency that gives one: a
            function whose parameters are what FastAPI injects.
        timeout: how long the borrow may take, in seconds. Default: the pool's.

    Raises:
        TypeError: `pool` is neither a pool of connections nor a function; or `timeout`
            is no number.
        ValueError: `timeout` is not a number, as floats have it.
    """
    if not isinstance(pool, (ConnectionPool, AsyncConnectionPool)) and not callable(
        pool
    ):
        raise TypeError(f"Borrowed() takes a pool of connections, not {pool!r}")
    if timeout is not None:
        must_be_seconds(timeout)
    return fastapi.Depends(_Borrow(pool, timeout), **_EARLY)


@dataclass(frozen=True)
class _Borrow:
    """What FastAPI calls for a request. Two for the same pool are the same to it."""

    source: Any
    timeout: float | None

    @property
    def __signature__(self) -> Signature:
        """What it is to be called with: the pool, if a dependency gives that."""
        if isinstance(self.source, (ConnectionPool, AsyncConnectionPool)):
            return Signature()
        given = fastapi.Depends(self.source)
        return Signature([Parameter("pool", Parameter.KEYWORD_ONLY, default=given)])

    async def __call__(self, *, pool: Any = None) -> AsyncIterator[Any]:
        chosen = self.source if pool is None else pool
        lease = chosen.connection(self.timeout, lazy=True)
        if not hasattr(lease, "__aenter__"):
            lease = _EndsInThread(lease)
        async with lease as conn:
            yield conn


class _EndsInThread:
    """A lease of a pool of threads, for a task.

    Its start takes nothing. Its end may commit: in a thread beyond the number that
    FastAPI has for endpoints, all of which may wait for what is returned here.
    """

    def __init__(self, lease: AbstractContextManager[Any]) -> None:
        self._lease = lease

    async def __aenter__(self) -> Any:
        return self._lease.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        once = Lock()

        def end(*exc_info: Any) -> None:
            if once.acquire(blocking=False):
                self._lease.__exit__(*exc_info)

        try:
            with CancelScope(shield=True):
                await run_sync(end, *exc_info, limiter=CapacityLimiter(1))
        except get_cancelled_exc_class() as cancelled:
            # asyncio's own does not mind the shield, and may come before there is a
            # thread. The one that is begun here nobody can wait for.
            args = (type(cancelled), cancelled, None)
            Thread(target=end, args=args, daemon=True).start()
            raise
