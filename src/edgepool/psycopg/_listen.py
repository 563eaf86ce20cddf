"""Listeners: iterators of what was notified, for either colour."""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any

from psycopg import Notify
from typing_extensions import Self

from .._errors import PoolClosed
from .._flows import run
from ._direct import awaited, blocking
from ._leases import take_back
from ._listening import Gap, Listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._async_pool import AsyncConnectionPool
    from ._face import PsycopgFace
    from ._pool import ConnectionPool


class Listener(Listening):
    """An iterator of notifications; see `ConnectionPool.listen`.

    One thread takes from it; any may `close` it.
    """

    __module__ = "edgepool"

    _coloured = staticmethod(blocking)

    def __init__(
        self,
        pool: PsycopgFace[Any, Any],
        make: Callable[..., ConnectionPool[Any]],
        channels: tuple[str, ...],
        timeout: float | None,
    ) -> None:
        super().__init__(pool, make, channels, timeout)
        self._in_use = Lock()

    def get(self, timeout: float | None = None) -> Notify | Gap | None:
        """Wait for the next notification, or for the news of a gap.

        Args:
            timeout: for how long, in seconds, once it listens; then the result is None.
                Default: for as long as it takes.

        Raises:
            PoolClosed: it has ended: it was closed, or the pool was.
            ConnectFailed: connecting again fails, and waiting would not help.
            PoolTimeout: the first connection took longer than `listen` was told.
            TypeError, ValueError: `timeout` is no number.
        """
        with self._in_use:
            try:
                return run(self._get(timeout))
            except PoolClosed:
                run(self._end())
                raise

    def close(self) -> None:
        """End it, and close its connection. From any thread."""
        self._stop()
        # Else whoever waits in `get` sees to it.
        if self._in_use.acquire(blocking=False):
            try:
                run(self._end())
            finally:
                self._in_use.release()

    def __enter__(self) -> Self:
        with self._in_use:
            try:
                run(self._start())
            except BaseException:
                run(self._end())
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Notify | Gap:
        try:
            event = self.get()
        except PoolClosed:
            raise StopIteration from None
        assert event is not None
        return event

    def _have_dropped(self, way: Any, conn: Any) -> None:
        _drop(way, conn)

    async def _receive(self, until: float) -> None:
        left = None if until == float("inf") else max(until - monotonic(), 0.0)
        self._received.extend(self._conn.notifies(timeout=left, stop_after=1))


class AsyncListener(Listening):
    """An iterator of notifications; see `AsyncConnectionPool.listen`.

    One task takes from it; any may `close` it. To cancel the task loses nothing.
    """

    __module__ = "edgepool"

    _coloured = staticmethod(awaited)

    def __init__(
        self,
        pool: PsycopgFace[Any, Any],
        make: Callable[..., AsyncConnectionPool[Any]],
        channels: tuple[str, ...],
        timeout: float | None,
    ) -> None:
        super().__init__(pool, make, channels, timeout)
        self._in_use = False

    async def get(self, timeout: float | None = None) -> Notify | Gap | None:
        """Wait for the next notification, or for the news of a gap.

        Args:
            timeout: for how long, in seconds, once it listens; then the result is None.
                Default: for as long as it takes.

        Raises:
            PoolClosed: it has ended: it was closed, or the pool was.
            ConnectFailed: connecting again fails, and waiting would not help.
            PoolTimeout: the first connection took longer than `listen` was told.
            TypeError, ValueError: `timeout` is no number.
        """
        self._in_use = True
        try:
            return await self._get(timeout)
        except PoolClosed:
            await self._end()
            raise
        finally:
            self._in_use = False

    async def close(self) -> None:
        """End it, and close its connection."""
        self._stop()
        # Else whoever waits in `get` sees to it.
        if not self._in_use:
            await self._end()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notify | Gap:
        try:
            event = await self.get()
        except PoolClosed:
            raise StopAsyncIteration from None
        assert event is not None
        return event

    def _have_dropped(self, way: Any, conn: Any) -> None:
        # Garbage is collected in any thread, and after the loop has ended.
        with suppress(RuntimeError):
            way._engine.loop.call_soon_threadsafe(_drop, way, conn)

    async def _receive(self, until: float) -> None:
        left = None if until == float("inf") else max(until - monotonic(), 0.0)
        async for notify in self._conn.notifies(timeout=left, stop_after=1):
            self._received.append(notify)


def _drop(way: Any, conn: Any) -> None:
    way._engine.tell(way._engine.core.close)
    take_back(way, conn, None)
