"""A borrow, a statement and its return in one call, for either colour."""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from sys import _getframe
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from psycopg.rows import scalar_row
from psycopg_pool.abc import ACT, CT

from ._call import Call, complete

if TYPE_CHECKING:
    from psycopg import AsyncCursor, Cursor
    from psycopg.abc import Params, Query
    from psycopg.rows import AsyncRowFactory, RowFactory

R = TypeVar("R")


class OneShots(Generic[CT]):
    """The calls of a pool that are a borrow, a statement and a return in one.

    The statement runs in autocommit, whatever the connections are set to, and so in one
    round trip. Only where `configure` or the like has chosen an isolation level, or
    transactions that are read-only or deferrable, it gets such a transaction.

    It is never repeated. If it fails, that has the same consequences for its connection
    and for the pool as in a block. Whoever is interrupted has it cancelled on the
    server, as in a block. What it has found is in memory when the connection has been
    returned already.

    Raises (each of them):
        PoolTimeout, TooManyRequests, PoolClosed, ...: as `connection`.
        psycopg.ProgrammingError: the statement has opened a transaction, which was
            rolled back; or it is a COPY.
    """

    connection: Any

    def _shoot(self, call: Call, timeout: float | None, fetch: str = "") -> Any:
        with self.connection(timeout) as conn:
            call.begin(conn)
            cursor = conn.execute(*call.args, **call.kwargs)
            call.end(conn)
            return getattr(cursor, fetch)() if fetch else complete(cursor)

    def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Cursor[Any]:
        """Execute a statement on a connection of the pool, and return the cursor.

        It has the whole result, to be fetched at any time; it executes nothing more.

        Args:
            query: as for psycopg's `Connection.execute`.
            params: the same.
            prepare: the same.
            binary: the same.
            timeout: how long the borrow may take, in seconds. Default: the pool's
                `timeout`.
        """
        call = Call(_getframe(1), None, query, params, prepare, binary)
        cursor: Cursor[Any] = self._shoot(call, timeout)
        return cursor

    @overload
    def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: RowFactory[R],
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> R | None: ...

    @overload
    def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any: ...

    def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: RowFactory[Any] | None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Execute a query; return its first row, or None if there is none.

        Args:
            query: as for `execute`.
            params: the same.
            row_factory: makes the row. Default: what the connections have.
            prepare: as for `execute`.
            binary: the same.
            timeout: the same.

        Raises:
            psycopg.ProgrammingError: the statement is done, but it is none that gives
                rows.
        """
        call = Call(_getframe(1), row_factory, query, params, prepare, binary)
        return self._shoot(call, timeout, "fetchone")

    @overload
    def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: RowFactory[R],
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[R]: ...

    @overload
    def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[Any]: ...

    def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: RowFactory[Any] | None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Execute a query; return all its rows.

        The arguments, and what is raised: as of `fetch_one`.
        """
        call = Call(_getframe(1), row_factory, query, params, prepare, binary)
        rows: list[Any] = self._shoot(call, timeout, "fetchall")
        return rows

    def fetch_value(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Execute a query; return the first column of its first row, or None.

        Whatever row factory the connections have. The arguments: as of `execute`.

        Raises:
            psycopg.ProgrammingError: the statement is done, but it is none that gives
                rows, or they have no column.
        """
        call = Call(_getframe(1), scalar_row, query, params, prepare, binary)
        return self._shoot(call, timeout, "fetchone")


class AsyncOneShots(Generic[ACT]):
    """The calls of a pool that are a borrow, a statement and a return in one.

    The statement runs in autocommit, whatever the connections are set to, and so in one
    round trip. Only where `configure` or the like has chosen an isolation level, or
    transactions that are read-only or deferrable, it gets such a transaction.

    It is never repeated. If it fails, that has the same consequences for its connection
    and for the pool as in a block. Whoever is cancelled has it cancelled on the server,
    as in a block. What it has found is in memory when the connection has been returned
    already.

    Raises (each of them):
        PoolTimeout, TooManyRequests, PoolClosed, ...: as `connection`.
        psycopg.ProgrammingError: the statement has opened a transaction, which was
            rolled back; or it is a COPY.
    """

    connection: Any

    async def _shoot(self, call: Call, timeout: float | None, fetch: str = "") -> Any:
        async with self.connection(timeout) as conn:
            call.begin(conn)
            cursor = await conn.execute(*call.args, **call.kwargs)
            call.end(conn)
            return await getattr(cursor, fetch)() if fetch else complete(cursor)

    async def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> AsyncCursor[Any]:
        """Execute a statement on a connection of the pool, and return the cursor.

        It has the whole result, to be fetched at any time; it executes nothing more.

        Args:
            query: as for psycopg's `AsyncConnection.execute`.
            params: the same.
            prepare: the same.
            binary: the same.
            timeout: how long the borrow may take, in seconds. Default: the pool's
                `timeout`.
        """
        call = Call(_getframe(1), None, query, params, prepare, binary)
        cursor: AsyncCursor[Any] = await self._shoot(call, timeout)
        return cursor

    @overload
    async def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[R],
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> R | None: ...

    @overload
    async def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any: ...

    async def fetch_one(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[Any] | None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Execute a query; return its first row, or None if there is none.

        Args:
            query: as for `execute`.
            params: the same.
            row_factory: makes the row. Default: what the connections have.
            prepare: as for `execute`.
            binary: the same.
            timeout: the same.

        Raises:
            psycopg.ProgrammingError: the statement is done, but it is none that gives
                rows.
        """
        call = Call(_getframe(1), row_factory, query, params, prepare, binary)
        return await self._shoot(call, timeout, "fetchone")

    @overload
    async def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[R],
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[R]: ...

    @overload
    async def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[Any]: ...

    async def fetch_all(
        self,
        query: Query,
        params: Params | None = None,
        *,
        row_factory: AsyncRowFactory[Any] | None = None,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> list[Any]:
        """Execute a query; return all its rows.

        The arguments, and what is raised: as of `fetch_one`.
        """
        call = Call(_getframe(1), row_factory, query, params, prepare, binary)
        rows: list[Any] = await self._shoot(call, timeout, "fetchall")
        return rows

    async def fetch_value(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Execute a query; return the first column of its first row, or None.

        Whatever row factory the connections have. The arguments: as of `execute`.

        Raises:
            psycopg.ProgrammingError: the statement is done, but it is none that gives
                rows, or they have no column.
        """
        call = Call(_getframe(1), scalar_row, query, params, prepare, binary)
        return await self._shoot(call, timeout, "fetchone")
