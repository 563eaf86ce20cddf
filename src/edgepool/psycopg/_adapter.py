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
from traceback import clear_frames
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus

from .._adapter import PermanentError
from ._cancel import ACTIVE, request_cancel, send, send_async
from ._liveness import is_alive, watch
from ._network import network_defaults
from ._session import CLEAN, tidied

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen
    from psycopg_pool.abc import ACT, CT

    from ._cancel import Request
    from ._connect_errors import ConnectErrors
else:
    from psycopg_pool.abc import ACT, CT

C = TypeVar("C", bound="BaseConnection[Any]")

log = logging.getLogger("edgepool.reset")

# Plain ints compare faster than enums.
IDLE = int(TransactionStatus.IDLE)
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
        reset: called with a connection that was returned; or "clean".

    Raises:
        ValueError: `reset` is another string.
    """

    def __init__(
        self,
        conninfo: Any,
        connection_class: type[C],
        kwargs: Any,
        configure: Callable[[C], Any] | None,
        check: Callable[[C], Any],
        reset: Callable[[C], Any] | str | None,
    ) -> None:
        if isinstance(reset, str) and reset != "clean":
            raise ValueError(f"reset must be a function or 'clean', not {reset!r}")
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
        that libpq is working on. What the server is doing is for `cancel` to end.
        """
        request = request_cancel(conn.pgconn)
        if request is not None:
            conn._edgepool_request = request  # type: ignore[attr-defined]
        with suppress(OSError, psycopg.Error):
            twin = socket.socket(fileno=os.dup(conn.pgconn.socket))
            with twin:
                twin.shutdown(socket.SHUT_RDWR)

    def closes_at_once(self, conn: C, /) -> bool:
        """Tell whether there is nothing to wait for in closing the connection.

        psycopg's own `close` puts a farewell into the socket's buffer, and that is all.
        """
        close: object = getattr(type(conn), "close", None)
        own = close in (psycopg.Connection.close, psycopg.AsyncConnection.close)
        return own and not self._is_at_work(conn)

    def _is_at_work(self, conn: C) -> bool:
        """Tell whether the server may be at work for what is to be closed."""
        return (
            "_edgepool_request" in vars(conn)
            or conn.pgconn.transaction_status == ACTIVE
        )

    def _take_request(self, conn: C) -> Request | None:
        """Return the request to cancel that is to be sent, once."""
        prepared: Request | None = vars(conn).pop("_edgepool_request", None)
        return prepared or request_cancel(conn.pgconn)

    def _welcome(self, conn: C) -> None:
        """Prepare a new connection for its life in a pool."""
        conn._pool = None
        pool = self.pool()
        if pool is not None and pool.close_returns:
            conn.close = self._returning(ref(conn))  # type: ignore[attr-defined]
        conn._edgepool_readable = watch(conn.pgconn.socket)  # type: ignore[attr-defined]

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
        inside = conn._pipeline is not None or conn._num_transactions or conn._tpc
        if inside or status in (ACTIVE, UNKNOWN):
            log.warning(
                "%s: closing what came back in mid-operation: %s", self._name, conn
            )
            return True
        return False

    def _tidying(self, conn: C) -> PQGen[None] | None:
        """Return what the pool itself does about a returned connection."""
        clean = CLEAN if self._reset == "clean" else b""
        if conn.pgconn.transaction_status != IDLE:
            log.warning("%s: rolling back a returned connection: %s", self._name, conn)
        elif not clean:
            return None
        return tidied(conn, clean)

    @property
    def _callback_on_reset(self) -> tuple[str, Callable[[C], Any] | None]:
        """What of the user's is called with a returned connection."""
        # What `configure` had set, it has to set again after a clean-up.
        if isinstance(self._reset, str):
            return "configure", self._configure
        return "reset", self._reset


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


def _drop_sockets(error: psycopg.Error) -> None:
    """Have the sockets of a connect that failed closed now.

    Its frames hold them, and the error, which is kept, holds the frames. When the
    network came back, the server would still make sessions of them.
    """
    clear_frames(error.__traceback__)


def _attempted(conninfo: str, kwargs: dict[str, Any]) -> str:
    """Return the whole of what libpq was given, as one connection string."""
    given = {k: v for k, v in kwargs.items() if k not in NOT_LIBPQ}
    try:
        return make_conninfo(conninfo, **given)
    except psycopg.Error:
        return ""


class ConnectionAdapter(_Common[CT]):
    """How a pool of threads handles psycopg's connections."""

    def connect(self) -> CT:
        """Open a connection."""
        conninfo: str = _resolved(self.conninfo) or ""
        kwargs: dict[str, Any] = _resolved(self.kwargs) or {}
        kwargs = {**network_defaults(conninfo, kwargs), **kwargs}
        try:
            conn: CT = self.connection_class.connect(conninfo, **kwargs)
        except psycopg.Error as error:
            _drop_sockets(error)
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if errors.permanent(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        self._welcome(conn)
        return conn

    @property
    def configure(self) -> Callable[[CT], None] | None:
        """How to have the user configure a new connection, if that is wanted."""
        return None if self._configure is None else self._have_configured

    def _have_configured(self, conn: CT, /) -> None:
        assert self._configure is not None
        conn._pool = self.pool()
        try:
            self._configure(conn)
            _must_be_idle(conn, "configure", self._configure)
        except psycopg.ProgrammingError as error:
            raise PermanentError(str(error)) from error
        finally:
            conn._pool = None

    def check(self, conn: CT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        conn._pool = self.pool()
        try:
            self._check(conn)
        finally:
            conn._pool = None

    def reset(self, conn: CT, /) -> bool:
        """Roll back what is open; clean the session, or run the user's reset."""
        if self._hopeless(conn):
            return False
        conn._pool = self.pool()
        try:
            if (tidying := self._tidying(conn)) is not None:
                with conn.lock:
                    conn.wait(tidying)
            kind, callback = self._callback_on_reset
            if callback is not None:
                callback(conn)
                _must_be_idle(conn, kind, callback)
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

    def cancel(self, conn: CT, /) -> None:
        """Have the server end what it is doing for what is to be closed."""
        if (request := self._take_request(conn)) is not None:
            send(request, conn.pgconn)

    def close(self, conn: CT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        type(conn).close(conn)


class AsyncConnectionAdapter(_Common[ACT]):
    """How a pool of tasks handles psycopg's asyncio connections."""

    async def connect(self) -> ACT:
        """Open a connection."""
        conninfo: str = await _awaited(_resolved(self.conninfo)) or ""
        kwargs: dict[str, Any] = await _awaited(_resolved(self.kwargs)) or {}
        kwargs = {**network_defaults(conninfo, kwargs), **kwargs}
        try:
            conn: ACT = await self.connection_class.connect(conninfo, **kwargs)
        except psycopg.Error as error:
            _drop_sockets(error)
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if await errors.permanent_async(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        self._welcome(conn)
        return conn

    @property
    def configure(self) -> Callable[[ACT], Any] | None:
        """How to have the user configure a new connection, if that is wanted."""
        return None if self._configure is None else self._have_configured

    async def _have_configured(self, conn: ACT, /) -> None:
        assert self._configure is not None
        conn._pool = self.pool()
        try:
            await self._configure(conn)
            _must_be_idle(conn, "configure", self._configure)
        except psycopg.ProgrammingError as error:
            raise PermanentError(str(error)) from error
        finally:
            conn._pool = None

    async def check(self, conn: ACT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        conn._pool = self.pool()
        try:
            await self._check(conn)
        finally:
            conn._pool = None

    async def reset(self, conn: ACT, /) -> bool:
        """Roll back what is open; clean the session, or run the user's reset."""
        if self._hopeless(conn):
            return False
        conn._pool = self.pool()
        try:
            if (tidying := self._tidying(conn)) is not None:
                async with conn.lock:
                    await conn.wait(tidying)
            kind, callback = self._callback_on_reset
            if callback is not None:
                await callback(conn)
                _must_be_idle(conn, kind, callback)
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

    async def cancel(self, conn: ACT, /) -> None:
        """Have the server end what it is doing for what is to be closed."""
        if (request := self._take_request(conn)) is not None:
            await send_async(request, conn.pgconn)

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
