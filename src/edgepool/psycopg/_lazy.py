"""Leases of connections that are borrowed at the first statement, for either colour."""

# Private by name, but psycopg's contract with a pool, and the pools' with their leases:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from sys import _getframe
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast, overload

import psycopg
from psycopg_pool.abc import ACT, CT

from .._drivers.tasks import task_of
from ._late import Late, busy, late_of
from ._leases import AsyncConnectionLease, ConnectionLease

if TYPE_CHECKING:
    from psycopg import AsyncCursor, Cursor
    from psycopg.abc import PQGen


def entered(lease: Any) -> tuple[Late[Any], Any]:
    """Return what is known of a lease that is entered, and its connection."""
    if not hasattr(lease, "_late"):
        raise psycopg.ProgrammingError("the lease is not entered: nothing to release")
    return lease._late, lease._conn


@overload
def released(conn: psycopg.Connection[Any]) -> Released[Any]: ...
@overload
def released(conn: psycopg.AsyncConnection[Any]) -> AsyncReleased[Any]: ...
def released(conn: Any) -> Any:
    """Return what `released()` of the lease does that has lent a connection.

    For who has the connection only: `with released(conn):`, or `async with`, for a call
    to another service. In its block the connection refuses to be used, whoever has it.
    After it the same object goes on, on whichever connection of the pool is borrowed at
    its next statement; that may take the lease's `timeout` once more. What is of the
    session does not come along: `SET`, temporary tables, advisory locks.

    Args:
        conn: what `with pool.connection(lazy=True)` has given, or FastAPI's `Borrowed`.

    Raises:
        ValueError: it comes from elsewhere.
        ConnectionReturned: the block, or the request, has ended.

    Raises (on entering):
        psycopg.ProgrammingError: a transaction, a pipeline or a cursor `WITH HOLD` is
            open, or a statement is under way: commit first.
        ConnectionReturned: it is released already.
    """
    late = late_of(conn)
    is_async = isinstance(conn, psycopg.AsyncConnection)
    lease = (AsyncLazyLease if is_async else LazyLease)(late.pool, late.timeout)
    lease._late, lease._conn = late, conn
    return lease.released()


class LazyLease(ConnectionLease[CT]):
    """A borrower's claim on a connection that is borrowed at its first statement."""

    __slots__ = ("_late",)

    _late: Late[CT]

    def __enter__(self) -> CT:
        self._late = Late(
            *(self._pool, self._timeout, _wait, _execute, _getframe(1), get_ident())
        )
        self._conn = self._late.object()
        return cast("CT", self._conn)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self._late.ended(self._conn):
            super().__exit__(exc_type, exc_val, exc_tb)

    def released(self) -> Released[CT]:
        """Return a context manager that gives the connection back meanwhile.

        For what takes long and needs no database. In its block the connection refuses
        to be used. After it the same object goes on, with what was set on it, on
        whichever connection of the pool is borrowed at its next statement; that may
        take the lease's `timeout` once more. What is of the session does not come
        along: `SET`, temporary tables, advisory locks.

        Raises (on entering):
            psycopg.ProgrammingError: a transaction, a pipeline or a cursor `WITH HOLD`
                is open, or a statement is under way; or the lease is not entered.
            ConnectionReturned: it was released, or returned, already.
        """
        return Released(self)


class Released(Generic[CT]):
    """The time for which a lease gives its connection back."""

    __slots__ = ("_lease",)

    def __init__(self, lease: LazyLease[CT]) -> None:
        self._lease = lease

    def __enter__(self) -> None:
        late, conn = entered(self._lease)
        if not conn.lock.acquire(blocking=False):
            raise busy()
        try:
            late.let_go(conn, _getframe(1))
        finally:
            conn.lock.release()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._lease._late.resume(self._lease._conn)


def _wait(
    find: Callable[[], CT], late: Late[CT], gen: PQGen[Any], *args: Any, **kwargs: Any
) -> Any:
    """Do as the connection's own `wait`; borrow one first if there is none."""
    conn = find()
    if late.must_borrow(conn):
        if late.is_done(gen):
            return None
        _borrow(late, conn, gen)
    late.fit(conn, gen)
    return type(conn).wait(conn, gen, *args, **kwargs)


def _execute(
    find: Callable[[], CT], late: Late[CT], *args: Any, **kwargs: Any
) -> Cursor[Any]:
    """Do as its own `execute`, which makes a cursor first: of what is borrowed."""
    conn = find()
    with conn.lock:
        if late.must_borrow(conn):
            _borrow(late, conn, None)
    return type(conn).execute(conn, *args, **kwargs)


def _borrow(late: Late[CT], conn: CT, gen: PQGen[Any] | None) -> None:
    pool: Any = late.pool
    try:
        if late.owner == get_ident():
            lent = ConnectionLease[CT](pool, late.timeout).__enter__()
        else:
            lent = pool.getconn(late.timeout)
    except BaseException:
        late.failed(conn, gen)
        raise
    late.take_over(conn, lent)


class AsyncLazyLease(AsyncConnectionLease[ACT]):
    """A borrower's claim on a connection that is borrowed at its first statement."""

    __slots__ = ("_late",)

    _late: Late[ACT]

    async def __aenter__(self) -> ACT:
        pool = self._pool
        owner = id(task_of(pool._engine.loop))
        self._late = Late(
            *(pool, self._timeout, _wait_async, _execute_async, _getframe(1), owner)
        )
        self._conn = self._late.object()
        return cast("ACT", self._conn)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self._late.ended(self._conn):
            await super().__aexit__(exc_type, exc_val, exc_tb)

    def released(self) -> AsyncReleased[ACT]:
        """Return a context manager that gives the connection back meanwhile.

        For what takes long and needs no database. In its block the connection refuses
        to be used. After it the same object goes on, with what was set on it, on
        whichever connection of the pool is borrowed at its next statement; that may
        take the lease's `timeout` once more. What is of the session does not come
        along: `SET`, temporary tables, advisory locks.

        Raises (on entering):
            psycopg.ProgrammingError: a transaction, a pipeline or a cursor `WITH HOLD`
                is open, or a statement is under way; or the lease is not entered.
            ConnectionReturned: it was released, or returned, already.
        """
        return AsyncReleased(self)


class AsyncReleased(Generic[ACT]):
    """The time for which a lease gives its connection back."""

    __slots__ = ("_lease",)

    def __init__(self, lease: AsyncLazyLease[ACT]) -> None:
        self._lease = lease

    async def __aenter__(self) -> None:
        late, conn = entered(self._lease)
        if conn.lock.locked():
            raise busy()
        late.let_go(conn, _getframe(1))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._lease._late.resume(self._lease._conn)


async def _wait_async(
    find: Callable[[], ACT], late: Late[ACT], gen: PQGen[Any], *args: Any, **kwargs: Any
) -> Any:
    """Do as the connection's own `wait`; borrow one first if there is none."""
    conn = find()
    if late.must_borrow(conn):
        if late.is_done(gen):
            return None
        await _borrow_async(late, conn, gen)
    late.fit(conn, gen)
    return await type(conn).wait(conn, gen, *args, **kwargs)


async def _execute_async(
    find: Callable[[], ACT], late: Late[ACT], *args: Any, **kwargs: Any
) -> AsyncCursor[Any]:
    """Do as its own `execute`, which makes a cursor first: of what is borrowed."""
    conn = find()
    async with conn.lock:
        if late.must_borrow(conn):
            await _borrow_async(late, conn, None)
    return await type(conn).execute(conn, *args, **kwargs)


async def _borrow_async(late: Late[ACT], conn: ACT, gen: PQGen[Any] | None) -> None:
    pool: Any = late.pool
    try:
        if late.owner == id(task_of(pool._engine.loop)):
            lent = await AsyncConnectionLease[ACT](pool, late.timeout).__aenter__()
        else:
            lent = await pool.getconn(late.timeout)
    except BaseException:
        late.failed(conn, gen)
        raise
    late.take_over(conn, lent)
