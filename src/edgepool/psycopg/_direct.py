"""One connection past an external pooler, for what needs a session of its own.

It comes from a pool that is made for it, with room for one. So it is opened and
configured, fails, survives a fork and is found when it was lost as all connections are,
and it takes no place of the pool whose way to the database it uses.
"""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from sys import _getframe
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from psycopg_pool.abc import ACT, CT

from .._errors import PoolClosed
from .._flows import run
from ._handles import session_of

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection

    from ._async_pool import AsyncConnectionPool
    from ._face import PsycopgFace
    from ._guard import Step
    from ._leases import AsyncConnectionLease, ConnectionLease
    from ._pool import ConnectionPool

P = TypeVar("P", bound="PsycopgFace[Any, Any]")


def way_past(
    pool: PsycopgFace[Any, Any],
    make: Callable[..., P],
    coloured: Callable[[Step], Any],
    then: Step | None = None,
) -> P:
    """Make a pool for one direct connection, and open it.

    Args:
        pool: whose way to the database it is.
        make: the class of the pool.
        coloured: makes of a coroutine function a callback of that class.
        then: what else to do with a new connection; it needs a session of its own.

    Raises:
        PoolClosed: the pool was closed.
    """
    # Here, so that it costs who has no direct connection no import.
    from ._guard import Guard

    must_not_be_closed(pool)
    conninfo = pool.direct_conninfo
    guard = Guard(pool, conninfo, then)
    arguments = {"configure": coloured(guard.configure)}
    if conninfo is not None:
        # What is in the way to an address of its own, the guard finds out.
        arguments |= {"pooler": "none", "role": "any"}
    address = pool.conninfo if conninfo is None else conninfo
    made = akin(pool, make, address, name=f"{pool.name}-direct", **arguments)
    guard.adapter = made._engine.adapter
    made._open()
    return made


def akin(
    pool: PsycopgFace[Any, Any], make: Callable[..., P], conninfo: object, **others: Any
) -> P:
    """Make a pool that connects as another pool does.

    Args:
        pool: the other one.
        make: the class of the new one.
        conninfo: where it connects to.
        others: arguments that are not the other pool's. There is room for one
            connection unless they say more.
    """
    arguments = {
        "min_size": 0,
        "max_size": 1,
        "connection_class": pool.connection_class,
        "kwargs": pool.kwargs,
        "configure": pool._adapter._configure,
        "pooler": pool._adapter.detection.pooler.asked,
        "role": pool._adapter.placement.role,
    }
    made = make(open=False, **{**arguments, **others})
    # Not by the constructor: what else it says is for pools.
    made._adapter.lead_to(conninfo)
    made._adapter.connect_as(pool._adapter)
    return made


def must_not_be_closed(pool: PsycopgFace[Any, Any]) -> None:
    """Refuse a pool that was closed. It need not have been opened."""
    core = pool._engine.core
    if not (core.open or core.fresh):
        raise PoolClosed(f"the pool {pool.name!r} is already closed")


def blocking(step: Step) -> Callable[[Any], None]:
    """Make of a coroutine function that blocks a callback for threads."""
    return lambda conn: run(step(conn))


def awaited(step: Step) -> Step:
    """Leave a callback for tasks as it is."""
    return step


def note_place(conn: BaseConnection[Any], frame: FrameType) -> None:
    """Note who borrows: not this module, where the lease has looked."""
    note = session_of(conn).entry.tether.note
    note.code, note.offset = frame.f_code, frame.f_lasti


class DirectConnection(Generic[CT]):
    """A connection of its own, from `with` to its end, when it is closed."""

    __slots__ = ("_lease", "_make", "_pool", "_timeout", "_way")

    _lease: ConnectionLease[CT]
    _way: ConnectionPool[CT]

    def __init__(
        self,
        pool: PsycopgFace[CT, Any],
        make: Callable[..., ConnectionPool[CT]],
        timeout: float | None,
    ) -> None:
        self._pool = pool
        self._make = make
        self._timeout = timeout

    def __enter__(self) -> CT:
        pool = self._pool
        timeout = pool.timeout if self._timeout is None else self._timeout
        self._way = way = way_past(pool, self._make, blocking)
        self._lease = way.connection(timeout)
        try:
            conn = self._lease.__enter__()
            note_place(conn, _getframe(1))
            return conn
        except BaseException:
            engine = way._engine
            engine.tell(engine.core.close)
            engine.tell(engine.core.abort_connects)  # it may hang
            engine.leave(hangs=True)
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        try:
            self._lease.__exit__(exc_type, exc_val, exc_tb)
        finally:
            self._way.close()


class AsyncDirectConnection(Generic[ACT]):
    """A connection of its own, from `async with` to its end, when it is closed."""

    __slots__ = ("_lease", "_make", "_pool", "_timeout", "_way")

    _lease: AsyncConnectionLease[ACT]
    _way: AsyncConnectionPool[ACT]

    def __init__(
        self,
        pool: PsycopgFace[ACT, Any],
        make: Callable[..., AsyncConnectionPool[ACT]],
        timeout: float | None,
    ) -> None:
        self._pool = pool
        self._make = make
        self._timeout = timeout

    async def __aenter__(self) -> ACT:
        pool = self._pool
        timeout = pool.timeout if self._timeout is None else self._timeout
        self._way = way = way_past(pool, self._make, awaited)
        self._lease = way.connection(timeout)
        try:
            conn = await self._lease.__aenter__()
            note_place(conn, _getframe(1))
            return conn
        except BaseException:
            engine = way._engine
            engine.tell(engine.core.close)
            engine.cancel_connects()
            await engine.leave()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        try:
            await self._lease.__aexit__(exc_type, exc_val, exc_tb)
        finally:
            await self._way.close()
