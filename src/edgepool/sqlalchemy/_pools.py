"""The pools, for threads and for asyncio."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sqlalchemy.pool.base import _AsyncConnDialect
from sqlalchemy.util import await_only

from .. import AsyncConnectionPool, ConnectionPool
from ._base import EdgePoolBase

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy.engine.interfaces import DBAPIConnection


class EdgePool(EdgePoolBase[ConnectionPool[Any]]):
    """A pool for `sqlalchemy.create_engine`: edgepool's, behind SQLAlchemy's interface.

    `create_engine(url, poolclass=EdgePool, edge={"max_size": 20})`, or with a pool that
    others use too: `create_engine(url, poolclass=EdgePool, edge=pool)`, which is the
    same as `create_engine(url, pool=EdgePool(edge=pool))`.

    Args:
        creator: given by `create_engine`.
        edge: an `edgepool.ConnectionPool`, which its owner opens and closes; or a
            mapping of the arguments of one, which the engine makes for itself. Without
            `max_size` it is `pool_size` and `max_overflow` together; without `min_size`
            it is 0.
        pool_size: what `size()` tells. Default: 5.
        max_overflow: how many more there are at most. Default: 10.
        timeout: how long a checkout may take, in seconds. To an engine, `pool_timeout`.
            Default: 30.
        use_lifo: only True, which is what edgepool does.
        recycle: the age in seconds at which a connection is replaced. To an engine,
            `pool_recycle`. Default: what `max_lifetime` says.
        kw: `pre_ping`, `reset_on_return`, `echo`, `logging_name`, `events`, as for any
            of SQLAlchemy's pools.

    Raises:
        TypeError: `edge` is something else.
        ValueError: an argument is out of range, or contradicts another.

    Raises (at a checkout):
        sqlalchemy.exc.TimeoutError: all connections are lent, and none came back in
            time. Its `__cause__` is edgepool's error.
        edgepool.ConnectFailed, edgepool.PoolTimeout: there is no connection because
            connecting fails. What an `Engine` makes of it is, as always, a
            `sqlalchemy.exc.OperationalError`.
        edgepool.PoolClosed: the pool that was given as `edge` is closed; the same.
    """

    _is_asyncio: ClassVar[Any] = False
    _edge_class = ConnectionPool

    def _lend(self) -> DBAPIConnection:
        return cast("DBAPIConnection", self.edge.getconn())

    def _wait(self, conn: Any, work: Generator[Any, Any, None]) -> None:
        with conn.lock:
            conn.wait(work)


class AsyncEdgePool(EdgePoolBase[AsyncConnectionPool[Any]]):
    """A pool for `sqlalchemy.ext.asyncio.create_async_engine`; see `EdgePool`.

    Its `edge` is an `edgepool.AsyncConnectionPool`. It belongs to the event loop in
    which it is first used; when that has ended, to the next.
    """

    _is_asyncio: ClassVar[Any] = True
    _edge_class = AsyncConnectionPool
    _dialect = _AsyncConnDialect()

    def _lend(self) -> DBAPIConnection:
        # This is how the dialect itself makes its own of psycopg's connections.
        dialect: Any = self._dialect
        connection = dialect.dbapi.connect(async_creator_fn=self.edge.getconn)
        return cast("DBAPIConnection", connection)

    def _wait(self, conn: Any, work: Generator[Any, Any, None]) -> None:
        async def wait() -> None:
            async with conn.lock:
                await conn.wait(work)

        await_only(wait())

    def fitted_dialect(self) -> Any:
        dialect = super().fitted_dialect()
        # So it has us close what cannot be awaited any more, and not just drop it.
        dialect.has_terminate = True
        return dialect

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        close = super()._close_connection
        if not terminate:
            close(connection)
            return
        # It may be the garbage collector that asks, in any thread, in the midst of
        # what the pool does. If the loop has ended, or is a parent process's, there is
        # nothing to be done.
        if (loop := self.edge._engine.loop) is not None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(close, connection)

    def dispose(self) -> None:
        """Close all connections; see `EdgePool`."""
        if self.is_ours and not self.edge.closed:
            self.edge._engine.use_running_loop()
        super().dispose()
