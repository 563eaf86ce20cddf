"""One connection past an external pooler, for what needs a session of its own.

It comes from a pool that is made for it, with room for one. So it is opened and
configured, fails, survives a fork and is found when it was lost as all connections are,
and it takes no place of the pool whose way to the database it uses.
"""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from sys import _getframe
from time import monotonic
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast

import psycopg
from psycopg_pool.abc import ACT, CT

from .._adapter import PermanentError
from .._errors import PoolClosed
from .._flows import run
from ._adapter_base import must_be_idle
from ._connecting import result_of
from ._handles import session_of
from ._session import execute

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen

    from ._async_pool import AsyncConnectionPool
    from ._face import PsycopgFace
    from ._leases import AsyncConnectionLease, ConnectionLease
    from ._pool import ConnectionPool

R = TypeVar("R")
P = TypeVar("P", bound="PsycopgFace[Any, Any]")

log = logging.getLogger("edgepool.direct")

# What tells sessions apart, also those of different servers.
SESSION: Final = b"SELECT pg_backend_pid(), pg_postmaster_start_time()"

# How long a second connection may take to answer, in seconds: a pooler in session mode
# that has no session left would let it wait.
WITNESS: Final = 1.0

Step: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]


class Found(Enum):
    """What is between here and the server."""

    NOTHING = auto()
    SOMETHING = auto()
    """A proxy, or a pooler whose sessions are, as far as was seen, for one client."""
    SHARED = auto()
    """A pooler that gives one session to several clients in turn."""


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
    must_not_be_closed(pool)
    conninfo = pool.direct_conninfo
    guard = _Guard(pool, conninfo, then)
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


class _Late(Exception):
    """There was no answer in time. Not an OSError, which psycopg takes for a loss."""


class _Guard:
    """Sees to it that a direct connection is one, before it is configured."""

    adapter: Any

    def __init__(
        self, pool: PsycopgFace[Any, Any], conninfo: object, then: Step | None
    ) -> None:
        self._pool = pool
        self._conninfo = conninfo
        self._then = then

    async def configure(self, conn: BaseConnection[Any]) -> None:
        """Look at it, once for each pool; then have the user configure it."""
        pool = self._pool
        known = pool._direct_found
        if known is not None and known[0] is self._conninfo:
            self._judge(known[1])
        else:
            found = await self._look(conn)
            self._judge(found)
            self._warn(found)
            pool._direct_found = self._conninfo, found
        configure = pool._adapter._configure
        if configure is not None:
            await result_of(configure(conn))
            must_be_idle(conn, "configure", configure)
        if self._then is not None:
            await self._then(conn)

    def _judge(self, found: Found) -> None:
        # Behind a proxy that is no pooler the numbers differ as well: there the address
        # may be as direct as they come.
        if found is not Found.SHARED:
            return
        if self._conninfo is not None:
            raise psycopg.ProgrammingError(
                "direct_conninfo leads to a pooler in transaction mode,"
                " and not to the database itself"
            )
        if self._then is not None:
            raise psycopg.ProgrammingError(
                "through a pooler in transaction mode nothing can be heard:"
                " the pool needs direct_conninfo, the database's own address"
            )

    def _warn(self, found: Found) -> None:
        if found is Found.NOTHING:
            return
        if self._conninfo is not None:
            log.warning(
                "%s: direct_conninfo leads to something in front of the database; if"
                " that is a pooler, it has to be in session mode",
                self._pool.name,
            )
        else:
            log.warning(
                "%s: there is something in front of the database, and no"
                " direct_conninfo: what needs a session may not work",
                self._pool.name,
            )

    async def _look(self, conn: BaseConnection[Any]) -> Found:
        mine = await _session(conn, _served_by(conn))
        if mine is None or mine[0] == conn.pgconn.backend_pid:
            return Found.NOTHING
        # Whether the session is for this client only is seen beside a second one.
        try:
            witness: BaseConnection[Any] = await self.adapter.connect()
        except (psycopg.Error, PermanentError):
            return Found.SOMETHING
        try:
            its = await _session(witness, _within(_served_by(witness), WITNESS))
        except (_Late, psycopg.Error):
            return Found.SOMETHING
        finally:
            await self.adapter.close(witness)
        return Found.SHARED if its == mine else Found.SOMETHING


async def _session(
    conn: BaseConnection[Any], question: PQGen[tuple[int, bytes]]
) -> tuple[int, bytes] | None:
    """Return who serves a connection; None if the server does not know itself."""
    try:
        answer: tuple[int, bytes] = await result_of(cast("Any", conn).wait(question))
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return answer


def _served_by(conn: BaseConnection[Any]) -> PQGen[tuple[int, bytes]]:
    (answer,) = yield from execute(conn.pgconn, SESSION)
    return int(answer.get_value(0, 0) or 0), answer.get_value(0, 1) or b""


def _within(question: PQGen[R], seconds: float) -> PQGen[R]:
    """Give up on a question; psycopg's waits look up ten times a second."""
    until = monotonic() + seconds
    try:
        wait = next(question)
        while True:
            ready = yield wait
            if not ready and monotonic() >= until:
                raise _Late
            wait = question.send(ready)
    except StopIteration as stop:
        answer: R = stop.value
        return answer


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
            engine.leave()
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
