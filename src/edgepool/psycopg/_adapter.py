"""What the resource is: a psycopg connection, and psycopg_pool's callbacks on it.

`_Common` has what does not wait, for both kinds of connection. `conn._pool`,
`conn._pipeline` and the like are psycopg's own contract with a pool, private by name.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from inspect import isawaitable
from sys import _getframe
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import ref

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, TransactionStatus

from .._adapter import PermanentError
from ._forked import disown
from ._handles import Session, pgconn_behind, renewed
from ._liveness import survives_news, watch

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg_pool.abc import ACT, CT

    from .._core import Entry
    from ._connect_errors import ConnectErrors
else:
    from psycopg_pool.abc import ACT, CT

C = TypeVar("C", bound="BaseConnection[Any]")

log = logging.getLogger("edgepool.reset")

# Plain ints compare faster than enums.
IDLE, ACTIVE = int(TransactionStatus.IDLE), int(TransactionStatus.ACTIVE)
OK = int(ConnStatus.OK)
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

    _new_lock: Callable[[], Any]
    """Make a lock as psycopg's connections have."""

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
            _session(conn).pgconn.transaction_status == IDLE
            and conn._pipeline is None
            and self._reset is None
        )

    def is_alive(self, conn: C, /) -> bool:
        """Tell, without a round trip, whether the server has closed the connection."""
        session: Session[Any] = conn._edgepool  # type: ignore[attr-defined]
        pgconn = session.pgconn
        if pgconn.status != OK:
            return False
        # A socket that is readable while nothing was asked has news: the end of the
        # session, or only a notice, a notification or a changed parameter.
        if not session.readable(0):
            return True
        with self._in_hand(conn):
            return survives_news(pgconn, session.readable)

    def abort(self, conn: C, /) -> None:
        """Shut the socket down, so that whoever waits for the server gets an error.

        Closing the connection instead, while somebody uses it, would free the memory
        that libpq is working on.
        """
        pgconn = pgconn_behind(conn)
        if pgconn is None:
            return
        with suppress(OSError, psycopg.Error):
            twin = socket.socket(fileno=os.dup(pgconn.socket))
            with twin:
                twin.shutdown(socket.SHUT_RDWR)

    def disown(self, conn: C, /) -> None:
        """Cut it off from its session, in a forked child, and have its use raise."""
        disown(conn, self._name)

    def introduce(self, entry: Entry[C], conn: C) -> None:
        """Make a new connection and its entry known to each other."""
        _session(conn).settle_in(conn, entry)

    def _begin_session(self, conn: C) -> None:
        """Take note of a new connection as `configure` has left it."""
        returns = self._returning if self.pool().close_returns else None
        conn._edgepool_opened_by = os.getpid()  # type: ignore[attr-defined]
        conn._edgepool = Session(  # type: ignore[attr-defined]
            conn,
            watch(conn.pgconn.socket),
            self._new_lock,
            returns,
        )
        if returns is not None:
            conn.close = returns(ref(conn))  # type: ignore[attr-defined]

    @contextmanager
    def _in_hand(self, conn: C) -> Generator[C, None, None]:
        """Use a connection that is not lent, for the pool's own purposes."""
        session = _session(conn)
        conn = renewed(conn)
        conn.pgconn = session.pgconn
        conn._pool = self.pool()
        try:
            yield conn
        finally:
            conn._pool = None
            conn.pgconn = session.refusal

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
        status = _session(conn).pgconn.transaction_status
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


def _session(conn: C) -> Session[C]:
    session: Any = conn._edgepool  # type: ignore[attr-defined]
    return cast("Session[C]", session)


def _is_quiet(conn: BaseConnection[Any]) -> bool:
    return conn.pgconn.transaction_status == IDLE and conn._pipeline is None


def _must_be_idle(conn: BaseConnection[Any], kind: str, callback: object) -> None:
    status = conn.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"connection left in status {TransactionStatus(status).name}"
            f" by {kind} function {callback}: discarded"
        )


def _attempted(conninfo: str, kwargs: dict[str, Any]) -> str:
    """Return the whole of what libpq was given, as one connection string."""
    given = {k: v for k, v in kwargs.items() if k not in NOT_LIBPQ}
    try:
        return make_conninfo(conninfo, **given)
    except psycopg.Error:
        return ""


def _let_go_of_frames(error: BaseException) -> None:
    """Drop the traceback of a failed connect: its frames hold what is half open.

    They would until the next collection of garbage, and the server may let that in yet:
    one session too many. Bugs keep theirs.
    """
    if isinstance(error, psycopg.Error) or not isinstance(error, Exception):
        error.__traceback__ = None


class ConnectionAdapter(_Common[CT]):
    """How a pool of threads handles psycopg's connections."""

    # `close` puts a farewell into the socket's buffer and waits for nobody.
    close_is_instant = True
    _new_lock = staticmethod(threading.Lock)

    def connect(self) -> CT:
        """Open a connection and configure it."""
        conninfo: str = _resolved(self.conninfo) or ""
        kwargs: dict[str, Any] = _resolved(self.kwargs) or {}
        try:
            conn: CT = self.connection_class.connect(conninfo, **kwargs)
        except BaseException as error:
            _let_go_of_frames(error)
            if not isinstance(error, psycopg.Error):
                raise error
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if errors.permanent(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        try:
            conn._pool = self.pool()
            if self._configure is not None:
                self._configure(conn)
                _must_be_idle(conn, "configure", self._configure)
            self._begin_session(conn)
            conn._pool = None
        except BaseException as error:
            self.close(conn)
            if isinstance(error, psycopg.ProgrammingError):
                raise PermanentError(str(error)) from error
            raise
        return conn

    def check(self, conn: CT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        with self._in_hand(conn) as mine:
            self._check(mine)

    def reset(self, conn: CT, /) -> bool:
        """Roll back what is open, and run the user's reset."""
        if self._hopeless(conn):
            return False
        with self._in_hand(conn) as mine:
            if self._must_roll_back(mine):
                mine.rollback()
            if self._reset is not None:
                self._reset(mine)
                _must_be_idle(mine, "reset", self._reset)
            return mine.pgconn.transaction_status == IDLE

    def _returning(self, conn: Callable[[], CT | None]) -> Callable[[], None]:
        def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                pool._take_back(mine, _getframe(1), clean=_is_quiet(mine))
            else:
                type(mine).close(mine)

        return close

    def close(self, conn: CT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        if (pgconn := pgconn_behind(conn)) is not None:
            conn.pgconn = pgconn
        type(conn).close(conn)


class AsyncConnectionAdapter(_Common[ACT]):
    """How a pool of tasks handles psycopg's asyncio connections."""

    _new_lock = staticmethod(asyncio.Lock)

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
        except BaseException as error:
            _let_go_of_frames(error)
            if not isinstance(error, psycopg.Error):
                raise error
            attempted = _attempted(conninfo, kwargs)
            errors = self._connect_errors()
            cause = errors.without_secrets(error)
            if await errors.permanent_async(error, attempted, ASK_AGAIN):
                raise PermanentError(str(cause)) from cause
            raise cause from None
        try:
            conn._pool = self.pool()
            if self._configure is not None:
                await self._configure(conn)
                _must_be_idle(conn, "configure", self._configure)
            self._begin_session(conn)
            conn._pool = None
        except BaseException as error:
            await self.close(conn)
            if isinstance(error, psycopg.ProgrammingError):
                raise PermanentError(str(error)) from error
            raise
        return conn

    async def check(self, conn: ACT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails."""
        with self._in_hand(conn) as mine:
            await self._check(mine)

    async def reset(self, conn: ACT, /) -> bool:
        """Roll back what is open, and run the user's reset."""
        if self._hopeless(conn):
            return False
        with self._in_hand(conn) as mine:
            if self._must_roll_back(mine):
                await mine.rollback()
            if self._reset is not None:
                await self._reset(mine)
                _must_be_idle(mine, "reset", self._reset)
            return mine.pgconn.transaction_status == IDLE

    def _returning(self, conn: Callable[[], ACT | None]) -> Callable[[], Any]:
        async def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                pool._take_back(mine, _getframe(1), clean=_is_quiet(mine))
            else:
                await type(mine).close(mine)

        return close

    async def close(self, conn: ACT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        if (pgconn := pgconn_behind(conn)) is not None:
            conn.pgconn = pgconn
        await type(conn).close(conn)


def _resolved(value: Any) -> Any:
    """Return a value, or what a function gives."""
    return value() if callable(value) else value


async def _awaited(value: Any) -> Any:
    """Return a value, or what awaiting it gives."""
    return await value if isawaitable(value) else value
