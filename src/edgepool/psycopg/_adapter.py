"""What the resource is: a psycopg connection, and psycopg_pool's callbacks on it.

`_Common` has what does not wait, for both kinds of connection. `conn._pool`,
`conn._pipeline` and the like are psycopg's own contract with a pool, private by name.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from sys import _getframe
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from .._adapter import PermanentError
from ._forked import disown
from ._liveness import is_alive, watch

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg_pool.abc import ACT, CT

    from ._connect_errors import ConnectErrors
else:
    from psycopg_pool.abc import ACT, CT

C = TypeVar("C", bound="BaseConnection[Any]")

log = logging.getLogger("edgepool.reset")

# Plain ints compare faster than enums.
IDLE, ACTIVE = int(TransactionStatus.IDLE), int(TransactionStatus.ACTIVE)
UNKNOWN = int(TransactionStatus.UNKNOWN)  # of a connection that is closed or lost

# How long one more attempt may take that asks a server for the SQLSTATE of a refusal
# which it gave in another language, in seconds.
ASK_AGAIN = 5.0

# Arguments of `connect` that psycopg keeps from libpq.
NOT_LIBPQ = (
    "autocommit",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
)


class _Common(Generic[C]):
    """The parts of both adapters that do not wait.

    Args:
        conninfo: the connection string, or a callable that gives it.
        connection_class: what to call `connect` on.
        kwargs: arguments of `connect`, or a callable that gives them.
        configure: called with a new connection.
        check: called with a connection before it is lent.
        reset: called with a connection that was returned.
    """

    def __init__(
        self,
        conninfo: Any,
        connection_class: type[C],
        kwargs: Any,
        configure: Callable[[C], Any] | None,
        check: Callable[[C], Any],
        reset: Callable[[C], Any] | None,
    ) -> None:
        self.conninfo = conninfo
        self.connection_class = connection_class
        self.kwargs = kwargs
        # What callbacks see in `conn._pool`. Set by the pool, weakly.
        self.pool: Callable[[], Any] = lambda: None
        self._configure = configure
        self._check = check
        self._reset = reset
        self._errors: ConnectErrors | None = None

    def is_clean(self, conn: C, /) -> bool:
        """Tell whether the connection can be lent again as it is."""
        return (
            conn.pgconn.transaction_status == IDLE
            and conn._pipeline is None
            and self._reset is None
        )

    def is_alive(self, conn: C, /) -> bool:
        """Tell, without a round trip, whether the server has closed the connection."""
        return is_alive(conn.pgconn, conn._edgepool_readable)  # type: ignore[attr-defined]

    def abort(self, conn: C, /) -> None:
        """Shut the socket down, so that whoever waits for the server gets an error.

        Closing the connection instead, while somebody uses it, would free the memory
        that libpq is working on.
        """
        with suppress(OSError, psycopg.Error):
            twin = socket.socket(fileno=os.dup(conn.pgconn.socket))
            with twin:
                twin.shutdown(socket.SHUT_RDWR)

    def disown(self, conn: C, /) -> None:
        """Cut it off from its session, in a forked child, and have its use raise."""
        disown(conn, self._name)

    def _welcome(self, conn: C) -> None:
        """Prepare a new connection for its life in a pool."""
        conn._pool = pool = self.pool()
        if pool.close_returns:
            conn.close = self._returning(ref(conn))  # type: ignore[attr-defined]
        conn._edgepool_readable = watch(conn.pgconn.socket)  # type: ignore[attr-defined]
        conn._edgepool_opened_by = os.getpid()  # type: ignore[attr-defined]

    @property
    def _name(self) -> str:
        pool = self.pool()
        return pool.name if pool is not None else "a pool that is gone"

    def _connect_errors(self) -> ConnectErrors:
        if self._errors is None:
            # Imported when a connect fails: it is a tenth of the package's import.
            from ._connect_errors import ConnectErrors

            self._errors = ConnectErrors()
        return self._errors

    def _returning(self, conn: Callable[[], C | None]) -> Callable[[], Any]:
        """Make a `close` that returns the connection to the pool.

        psycopg has one since 3.3, but it does nothing once the connection is broken,
        and so would lose the place of each connection that breaks while it is lent.
        """
        raise NotImplementedError

    def _hopeless(self, conn: C) -> bool:
        """Tell whether a returned connection can only be closed."""
        status = conn.pgconn.transaction_status
        if status in (ACTIVE, UNKNOWN) or conn._pipeline is not None:
            log.warning(
                "%s: closing what came back in mid-operation: %s", self._name, conn
            )
            return True
        return False

    def _must_roll_back(self, conn: C) -> bool:
        if conn.pgconn.transaction_status == IDLE:
            return False
        log.warning("%s: rolling back a returned connection: %s", self._name, conn)
        return True


def _must_be_idle(conn: BaseConnection[Any], kind: str, callback: object) -> None:
    status = conn.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"connection left in status {TransactionStatus(status).name}"
            f" by {kind} function {callback}: discarded"
        )


def _note_place_of_return(conn: Any, frame: FrameType) -> None:
    """Note where the user called `close`, in place of where that called `putconn`."""
    conn._edgepool_returned_by = frame.f_code
    conn._edgepool_returned_at = frame.f_lasti


def _attempted(conninfo: str, kwargs: dict[str, Any]) -> str:
    """Return the whole of what libpq was given, as one connection string."""
    given = {k: v for k, v in kwargs.items() if k not in NOT_LIBPQ}
    try:
        return make_conninfo(conninfo, **given)
    except psycopg.Error:
        return ""


class ConnectionAdapter(_Common[CT]):
    """How a pool of threads handles psycopg's connections."""

    # `close` puts a farewell into the socket's buffer and waits for nobody.
    close_is_instant = True

    def connect(self) -> CT:
        """Open a connection and configure it."""
        conninfo: str = _resolved(self.conninfo) or ""
        kwargs: dict[str, Any] = _resolved(self.kwargs) or {}
        try:
            conn: CT = self.connection_class.connect(conninfo, **kwargs)
        except psycopg.Error as error:
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if errors.permanent(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        try:
            self._welcome(conn)
            if self._configure is not None:
                self._configure(conn)
                _must_be_idle(conn, "configure", self._configure)
            conn._pool = None
        except BaseException as error:
            self.close(conn)
            if isinstance(error, psycopg.ProgrammingError):
                raise PermanentError(str(error)) from error
            raise
        return conn

    def check(self, conn: CT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        conn._pool = self.pool()
        try:
            self._check(conn)
        finally:
            conn._pool = None

    def reset(self, conn: CT, /) -> bool:
        """Roll back what is open, and run the user's reset."""
        if self._hopeless(conn):
            return False
        conn._pool = self.pool()
        try:
            if self._must_roll_back(conn):
                conn.rollback()
            if self._reset is not None:
                self._reset(conn)
                _must_be_idle(conn, "reset", self._reset)
        finally:
            conn._pool = None
        return conn.pgconn.transaction_status == IDLE

    def _returning(self, conn: Callable[[], CT | None]) -> Callable[[], None]:
        def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                pool.putconn(mine)
                _note_place_of_return(mine, _getframe(1))
            else:
                type(mine).close(mine)

        return close

    def close(self, conn: CT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        type(conn).close(conn)


class AsyncConnectionAdapter(_Common[ACT]):
    """How a pool of tasks handles psycopg's asyncio connections."""

    @property
    def close_is_instant(self) -> bool:
        """Whether `close` suspends for nothing: psycopg's own does not."""
        return self.connection_class.close is psycopg.AsyncConnection.close

    async def connect(self) -> ACT:
        """Open a connection and configure it."""
        conninfo: str = await _awaited(_resolved(self.conninfo)) or ""
        kwargs: dict[str, Any] = await _awaited(_resolved(self.kwargs)) or {}
        try:
            conn: ACT = await self.connection_class.connect(conninfo, **kwargs)
        except psycopg.Error as error:
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if await errors.permanent_async(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        try:
            self._welcome(conn)
            if self._configure is not None:
                await self._configure(conn)
                _must_be_idle(conn, "configure", self._configure)
            conn._pool = None
        except BaseException as error:
            await self.close(conn)
            if isinstance(error, psycopg.ProgrammingError):
                raise PermanentError(str(error)) from error
            raise
        return conn

    async def check(self, conn: ACT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        conn._pool = self.pool()
        try:
            await self._check(conn)
        finally:
            conn._pool = None

    async def reset(self, conn: ACT, /) -> bool:
        """Roll back what is open, and run the user's reset."""
        if self._hopeless(conn):
            return False
        conn._pool = self.pool()
        try:
            if self._must_roll_back(conn):
                await conn.rollback()
            if self._reset is not None:
                await self._reset(conn)
                _must_be_idle(conn, "reset", self._reset)
        finally:
            conn._pool = None
        return conn.pgconn.transaction_status == IDLE

    def _returning(self, conn: Callable[[], ACT | None]) -> Callable[[], Any]:
        async def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                await pool.putconn(mine)
                _note_place_of_return(mine, _getframe(1))
            else:
                await type(mine).close(mine)

        return close

    async def close(self, conn: ACT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        await type(conn).close(conn)


def _resolved(value: Any) -> Any:
    """Return a value, or what a function gives."""
    return value() if callable(value) else value


async def _awaited(value: Any) -> Any:
    """Return a value, or what awaiting it gives."""
    return await value if isawaitable(value) else value
