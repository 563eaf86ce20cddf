"""What the resource is: a psycopg connection, and psycopg_pool's callbacks on it.

`CommonAdapter` has what does not wait, for both kinds of connection. `conn._pool`,
`conn._pipeline` and the like are psycopg's own contract with a pool, private by name.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import psycopg
from psycopg.pq import TransactionStatus

from ._cancel import Cancellations
from ._connecting import Connecting, must_be_callable
from ._forked import disown
from ._handles import Session, pgconn_behind, renewed, session_of
from ._liveness import survives_news, watch
from ._session import CLEAN, kept, tidied
from ._snapshot import C
from ._states import ACTIVE, IDLE, OK, UNKNOWN

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

    from .._core import Entry
    from ._error_classes import Classify

log = logging.getLogger("edgepool.reset")


class CommonAdapter(Connecting[C]):
    """The parts of both adapters that do not wait.

    Args:
        configure: called with a new connection.
        check: called with a connection before it is lent.
        reset: called with a connection that was returned; or "clean".

    The others are those of `Connecting`.

    Raises:
        ValueError: `reset` is another string; or as `Connecting`.
        TypeError: what is to be called cannot be; says which argument, and its value.
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
        reset: Callable[[C], Any] | str | None,
        pooler: str,
        *,
        classify: Classify | None = None,
        credentials: Callable[[], Any] | None = None,
        expire_with_credentials: bool = False,
        role: str = "any",
    ) -> None:
        if isinstance(reset, str) and reset != "clean":
            raise ValueError(f"reset must be a function or 'clean', not {reset!r}")
        must_be_callable("configure", configure)
        must_be_callable("check", check)
        must_be_callable("reset", None if reset == "clean" else reset)
        super().__init__(
            conninfo,
            connection_class,
            kwargs,
            pooler,
            classify,
            credentials,
            expire_with_credentials,
            role,
        )
        self._configure = configure
        self._check = check
        self._reset = self._wanted_reset = reset
        self._cancellations = Cancellations()
        # How to clean up sessions behind a pooler.
        self._cleaning: WeakKeyDictionary[PGconn, bytes] = WeakKeyDictionary()
        if self.placement.matters:  # who has no role does not pay for it
            self.is_alive = self._is_alive_in_place  # type: ignore[method-assign]

    def is_clean(self, conn: C, /) -> bool:
        """Tell whether the connection can be lent again as it is."""
        session = session_of(conn)
        return (
            session.pgconn.transaction_status == IDLE
            and conn._pipeline is None
            and self._reset is None
            and not session.is_contended
        )

    @property
    def cleans(self) -> bool:
        """Whether a session that comes back is brought to where it began."""
        return self._reset == "clean"

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

    def _is_alive_in_place(self, conn: C, /) -> bool:
        """Tell the same, and whether the server is still the one that is wanted."""
        alive = CommonAdapter.is_alive(self, conn)
        return alive and not self.placement.is_misplaced(session_of(conn).pgconn)

    def took_no_write(self, conn: C) -> None:
        """Leave a server that has refused to write, if that is its own doing."""
        self.placement.took_no_write(
            session_of(conn).pgconn,
            read_only=conn.read_only,
            pooled=self.detection.pooler.is_there,
        )

    def abort(self, conn: C, /) -> None:
        """Cut it off, so that whoever waits for the server gets an error."""
        if (pgconn := pgconn_behind(conn)) is not None:
            pooled = self.detection.pooler.is_there
            self._cancellations.cut_off(pgconn, pooled=pooled)

    def closes_at_once(self, conn: C, /) -> bool:
        """Tell whether there is nothing to wait for in closing the connection.

        psycopg's own `close` puts a farewell into the socket's buffer, and that is all.
        """
        close: object = getattr(type(conn), "close", None)
        own = close in (psycopg.Connection.close, psycopg.AsyncConnection.close)
        pgconn = pgconn_behind(conn)
        at_work = pgconn is not None and self._cancellations.are_due(pgconn)
        return own and not at_work

    def disown(self, conn: C, /) -> None:
        """Cut it off from its session, in a forked child, and have its use raise."""
        disown(conn, self._name)

    def introduce(self, entry: Entry[C], conn: C) -> None:
        """Make a new connection, as `configure` has left it, and its entry a pair."""
        self._begin_session(conn)
        session_of(conn).settle_in(conn, entry)

    def _begin_session(self, conn: C) -> None:
        """Take note of what every borrower is to find."""
        pool = self.pool()
        returns = None if pool is None or not pool.close_returns else self._returning
        conn._edgepool = Session(  # type: ignore[attr-defined]
            conn,
            watch(conn.pgconn.socket),
            self._new_lock,
            returns,
        )
        if returns is not None:
            conn.close = returns(ref(conn))  # type: ignore[attr-defined]

    def _fit(self, conn: C) -> None:
        """Fit a new connection, and the resets, to what is in front of the server."""
        detection, reset = self.detection, self._wanted_reset
        given: bool = conn._edgepool_threshold_given  # type: ignore[attr-defined]
        detection.fit(conn, given)
        if detection.pooler.shares_sessions:
            detection.warn_of_sessions(conn.pgconn, reset)
            if isinstance(reset, str):  # it would clean somebody else's
                reset = None
        elif isinstance(reset, str) and detection.pooler.is_there:
            self._cleaning[conn.pgconn] = b"; ".join((CLEAN, kept(conn.pgconn)))
        self._reset = reset

    @contextmanager
    def _in_hand(self, conn: C) -> Generator[C, None, None]:
        """Use a connection that is not lent, for the pool's own purposes."""
        session = session_of(conn)
        conn = renewed(conn)
        conn.pgconn = session.pgconn
        conn._pool = self.pool()
        try:
            yield conn
        finally:
            conn._pool = None
            conn.pgconn = session.refusal

    @abstractmethod
    def _returning(self, conn: Callable[[], C | None]) -> Callable[[], Any]:
        """Make a `close` that returns the connection to the pool.

        psycopg has one since 3.3, but it does nothing once the connection is broken,
        and so would lose the place of each connection that breaks while it is lent.
        """

    def _hopeless(self, conn: C) -> bool:
        """Tell whether a returned connection can only be closed."""
        session = session_of(conn)
        status = session.pgconn.transaction_status
        is_busy = session.is_contended or conn._pipeline is not None
        if is_busy or status in (ACTIVE, UNKNOWN):
            log.warning(
                "%s: closing what came back in mid-operation: %s", self._name, conn
            )
            return True
        return False

    def _tidying(self, conn: C) -> PQGen[None] | None:
        """Return what the pool itself does about a returned connection."""
        clean = self._cleaning.get(conn.pgconn, CLEAN) if self.cleans else b""
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


def is_in_use(conn: BaseConnection[Any]) -> bool:
    """Tell whether somebody else may be at work on a connection that was returned.

    Then libpq's memory is not to be freed: that happens when he has let go of it.
    """
    session = getattr(conn, "_edgepool", None)
    return session is not None and session.is_contended


def must_be_idle(conn: BaseConnection[Any], kind: str, callback: object) -> None:
    """Raise if a callback of the user's has left something open."""
    status = conn.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"connection left in status {TransactionStatus(status).name}"
            f" by {kind} function {callback}: discarded"
        )
