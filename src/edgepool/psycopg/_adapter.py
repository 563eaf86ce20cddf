"""How a pool of threads handles psycopg's connections."""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import threading
from collections.abc import Callable
from sys import _getframe
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg_pool.abc import CT

from .._adapter import PermanentError
from ._adapter_base import CommonAdapter, is_in_use, must_be_idle
from ._cancel import send, shut_down
from ._connecting import (
    ASK_AGAIN,
    attempted,
    let_go_of_frames,
    resolved,
    without_traces,
)
from ._handles import pgconn_behind, session_of
from ._leases import take_back
from ._session import tidied
from ._states import IDLE

if TYPE_CHECKING:
    from ._credential_sources import BlockingCredentials
    from ._credentials import Held


class ConnectionAdapter(CommonAdapter[CT]):
    """How a pool of threads handles psycopg's connections."""

    _new_lock = staticmethod(threading.Lock)

    def connect(self) -> CT:
        """Open a connection."""
        try:
            return self._connected()
        except psycopg.Error as error:
            raise without_traces(error) from error.__cause__

    def _connected(self) -> CT:
        conninfo, kwargs = self._arguments(self.conninfo)
        if self._credentials is None:
            return self._opened(conninfo, kwargs, None)
        held: Held = self._credentials.get()
        try:
            return self._opened(conninfo, kwargs, held)
        except psycopg.Error as error:
            if not self._may_be_renewed(error, held):
                raise
        return self._opened(conninfo, kwargs, self._credentials.get())

    def arguments(self, conninfo: Any) -> tuple[str, dict[str, Any]]:
        """Return what somebody else is to connect with, as the pool does."""
        text, kwargs = self._arguments(conninfo)
        held: Held | None = self._credentials and self._credentials.get()
        return text, {**kwargs, **(held.arguments() if held else {})}

    def _arguments(self, conninfo: Any) -> tuple[str, dict[str, Any]]:
        dsn = self._dsn(resolved(conninfo))
        kwargs: dict[str, Any] = resolved(self.kwargs) or {}
        return dsn.conninfo, self._completed(dsn, kwargs)

    def _opened(self, conninfo: str, kwargs: dict[str, Any], held: Held | None) -> CT:
        if held is not None:
            kwargs = {**kwargs, **held.arguments()}
        try:
            conn: CT = self.connection_class.connect(conninfo, **kwargs)
        except BaseException as error:
            let_go_of_frames(error)
            if not isinstance(error, psycopg.Error):
                raise error
            whole = attempted(conninfo, kwargs)
            errors = self._connect_errors()
            kind = errors.class_of(error, whole, ASK_AGAIN)
            raise errors.explained(error, kind) from None
        self._opened_with(conn, kwargs, held)
        return conn

    def configure(self, conn: CT, /) -> None:
        """Fit a new connection to what is before the server; have it configured."""
        self.detection.look(conn)
        self._fit(conn)
        if self._configure is None:
            return
        conn._pool = self.pool()
        try:
            with self.detection.listening(conn.pgconn):
                self._configure(conn)
            must_be_idle(conn, "configure", self._configure)
            self.detection.fit(conn, given=True)  # what it may have set
        except psycopg.ProgrammingError as error:
            raise PermanentError(str(error)) from error
        finally:
            conn._pool = None

    def check(self, conn: CT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails.

        A transaction that it leaves open is rolled back.
        """
        with self._in_hand(conn) as mine:
            self._check(mine)
            if mine.pgconn.transaction_status != IDLE:  # of the check, not a borrower's
                with mine.lock:
                    mine.wait(tidied(mine))
            self.placement.must_hold(mine.pgconn)

    def reset(self, conn: CT, /) -> bool:
        """Roll back what is open; clean the session, or run the user's reset."""
        if self._hopeless(conn):
            return False
        with self._in_hand(conn) as mine:
            if (tidying := self._tidying(mine)) is not None:
                with mine.lock:
                    mine.wait(tidying)
            kind, callback = self._callback_on_reset
            if callback is not None:
                callback(mine)
                must_be_idle(mine, kind, callback)
                session_of(mine).restore(mine)
            return mine.pgconn.transaction_status == IDLE

    def _credentials_of(self, provider: Callable[[], Any]) -> BlockingCredentials:
        # Here, so that it costs who has none no import.
        from ._credential_sources import BlockingCredentials

        return BlockingCredentials(provider, lambda: self._name)

    def _returning(self, conn: Callable[[], CT | None]) -> Callable[[], None]:
        def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                take_back(pool, mine, _getframe(1))
            else:
                type(mine).close(mine)

        return close

    def cancel(self, conn: CT, /) -> None:
        """Have the server end what it is doing for what is to be closed."""
        if (pgconn := pgconn_behind(conn)) is None:
            return
        if (request := self._cancellations.take(pgconn)) is not None:
            send(request, pgconn)

    def close(self, conn: CT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        if (pgconn := pgconn_behind(conn)) is not None:
            if is_in_use(conn):
                shut_down(pgconn)
                session_of(conn).forget()
                return
            conn.pgconn = pgconn
        type(conn).close(conn)
