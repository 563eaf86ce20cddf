"""What the resource is: a psycopg connection, and psycopg_pool's callbacks on it.

`CommonAdapter` has what does not wait, for both kinds of connection. `conn._pool`,
`conn._pipeline` and the like are psycopg's own contract with a pool, private by name.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakKeyDictionary, ref

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, TransactionStatus

from .._adapter import PermanentError
from .._core import BRIEFEST, NEVER, ErrorClass
from ._cancel import ACTIVE, request_cancel, send_apart
from ._detection import Detection
from ._dsn import NOT_LIBPQ, Dsn, parse
from ._error_classes import classified
from ._forked import disown
from ._handles import Session, pgconn_behind, renewed
from ._liveness import survives_news, watch
from ._network import network_defaults
from ._role import Placement
from ._session import CLEAN, kept, tidied

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

    from .._core import Entry
    from ._cancel import Request
    from ._connect_errors import ConnectErrors
    from ._credentials import Held
    from ._error_classes import Classify

C = TypeVar("C", bound="BaseConnection[Any]")

log = logging.getLogger("edgepool.reset")
connect_log = logging.getLogger("edgepool.connect")

# Plain ints compare faster than enums.
IDLE = int(TransactionStatus.IDLE)
OK = int(ConnStatus.OK)
UNKNOWN = int(TransactionStatus.UNKNOWN)  # of a connection that is closed or lost

# How long one more attempt may take that asks a server for the SQLSTATE of a refusal
# which it gave in another language, in seconds.
ASK_AGAIN = 5.0


class CommonAdapter(Generic[C]):
    """The parts of both adapters that do not wait.

    Args:
        conninfo: the DSN, or a callable that gives it.
        connection_class: what to call `connect` on.
        kwargs: arguments of `connect`, or a callable that gives them.
        configure: called with a new connection.
        check: called with a connection before it is lent.
        reset: called with a connection that was returned; or "clean".
        pooler: what is in front of the server; "auto": that is to be found out.
        classify: tells what an error means, if that is not what the table says.
        credentials: gives what to connect with.
        expire_with_credentials: whether a connection is replaced when they expire.
        role: which role the server is to have.

    Raises:
        ValueError: `reset`, `pooler` or `role` is another string; or something else
            asks libpq for another role.
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
        callbacks = {
            "configure": configure,
            "check": check,
            "reset": None if reset == "clean" else reset,
            "classify": classify,
        }
        for name, callback in callbacks.items():
            if callback is not None and not callable(callback):
                raise TypeError(f"{name} must be a function, not {callback!r}")
        if not callable(getattr(connection_class, "connect", None)):
            raise TypeError(
                "connection_class must be a class with a method connect,"
                f" not {connection_class!r}"
            )
        self.conninfo = conninfo
        self.connection_class = connection_class
        self.kwargs = kwargs
        # What callbacks see in `conn._pool`. Set by the pool, weakly.
        self.pool: Callable[[], Any] = lambda: None
        self._configure = configure
        self._check = check
        self._reset = self._wanted_reset = reset
        self.detection = Detection(pooler, lambda: self._name)
        self._classify = classify
        self._credentials: Any = None
        if credentials is not None:
            self._credentials = self._credentials_of(credentials)
        self._expires_with_credentials = expire_with_credentials
        self._errors: ConnectErrors | None = None
        # That the arguments in a DSN have no effect.
        self.has_warned = False
        # What is to be told to the server about connections that were cut off.
        self._requests: WeakKeyDictionary[PGconn, Request] = WeakKeyDictionary()
        # How to clean up sessions behind a pooler.
        self._cleaning: WeakKeyDictionary[PGconn, bytes] = WeakKeyDictionary()
        self.placement = Placement(role, conninfo, kwargs)
        if self.placement.matters:  # who has no role does not pay for it
            self.is_alive = self._is_alive_in_place  # type: ignore[method-assign]

    def lead_to(self, conninfo: Any) -> None:
        """Connect to another DSN from now on; raise ValueError if it cannot be."""
        self.placement.lead_to(conninfo, self.kwargs)
        self.conninfo = conninfo

    def _dsn(self, given: object) -> Dsn:
        """Read the DSN of a connect."""
        try:
            dsn = parse(given)
        except ValueError as error:
            raise PermanentError(str(error)) from None
        self.detection.pooler.hint = dsn.pooler
        if dsn.arguments and callable(self.conninfo) and not self.has_warned:
            self.has_warned = True
            connect_log.warning(
                "%s: no effect in what conninfo returns, give it to the pool: %s",
                self._name,
                ", ".join(dsn.origins.values()),
            )
        return dsn

    def _completed(self, dsn: Dsn, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return all the arguments of a connect; the user's win."""
        added = {**dsn.connect, **network_defaults(dsn.conninfo, kwargs)}
        kwargs = {**added, **kwargs}
        try:
            return {**kwargs, **self.placement.arguments(dsn.conninfo, kwargs)}
        except ValueError as error:
            raise PermanentError(str(error)) from None

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
        return alive and not self._is_misplaced(session_of(conn).pgconn)

    def _is_misplaced(self, pgconn: PGconn) -> bool:
        """Tell whether a server is another by now; if so, leave it."""
        misplaced = self.placement.is_misplaced(pgconn)
        if misplaced:
            self._purge(pgconn)
        return misplaced

    def _must_be_placed(self, pgconn: PGconn) -> None:
        if self._is_misplaced(pgconn):
            role = self.placement.role
            raise psycopg.OperationalError(f"the server is no {role} any more")

    def took_no_write(self, conn: C) -> None:
        """Leave a server that has refused to write, if that is its own doing."""
        pgconn = session_of(conn).pgconn
        pooled = self.detection.pooler.is_there
        was_to = self.placement.is_to_write(pgconn, pooled)
        if was_to or (was_to is None and not conn.read_only):
            self._purge(pgconn)

    def _purge(self, pgconn: PGconn) -> None:
        """Replace every connection, once for all that were opened before."""
        if not self.placement.leave(pgconn):
            return
        connect_log.warning(
            "%s: the server is no %s any more: replacing all connections",
            *(self._name, self.placement.role),
        )
        engine = self.pool()._engine
        engine.tell(engine.core.drain)

    def abort(self, conn: C, /) -> None:
        """Shut the socket down, so that whoever waits for the server gets an error.

        Closing the connection instead, while somebody uses it, would free the memory
        that libpq is working on. What the server is doing is for `cancel` to end.
        """
        pgconn = pgconn_behind(conn)
        if pgconn is None:
            return
        request = request_cancel(pgconn)
        if request is not None and self.detection.pooler.is_there:
            # It forgets whom to cancel for when its client goes.
            if send_apart(request, pgconn, _shut_down):
                return
        elif request is not None:
            self._requests[pgconn] = request
        _shut_down(pgconn)

    def closes_at_once(self, conn: C, /) -> bool:
        """Tell whether there is nothing to wait for in closing the connection.

        psycopg's own `close` puts a farewell into the socket's buffer, and that is all.
        """
        close: object = getattr(type(conn), "close", None)
        own = close in (psycopg.Connection.close, psycopg.AsyncConnection.close)
        pgconn = pgconn_behind(conn)
        at_work = pgconn is not None and (
            pgconn in self._requests or pgconn.transaction_status == ACTIVE
        )
        return own and not at_work

    def _take_request(self, pgconn: PGconn) -> Request | None:
        """Return the request to cancel that is to be sent, once."""
        return self._requests.pop(pgconn, None) or request_cancel(pgconn)

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
        kwargs: object = self.kwargs
        given = isinstance(kwargs, Mapping) and "prepare_threshold" in kwargs
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

    @property
    def _name(self) -> str:
        pool = self.pool()
        return pool.name if pool is not None else "a pool that is gone"

    def classify(self, error: Exception, /) -> ErrorClass:
        """Tell what an error means, of a connect or of what a borrower did."""
        return classified(error, self._classify, self._name)

    @abstractmethod
    def _credentials_of(self, provider: Callable[[], Any]) -> object:
        """Make what asks the provider."""

    def connect_as(self, other: CommonAdapter[Any]) -> None:
        """Use the credentials of another pool, and judge errors as it does."""
        self._credentials, self._classify = other._credentials, other._classify

    def _opened_with(self, conn: C, held: Held | None) -> None:
        """Take note of a connection that was opened, and of its credential."""
        conn._pool = None
        conn._edgepool_opened_by = os.getpid()  # type: ignore[attr-defined]
        self.placement.arrived(conn.pgconn)
        if held is None:
            return
        held.admitted = True
        if self._expires_with_credentials:
            conn._edgepool_until = held.expires_at  # type: ignore[attr-defined]

    def _may_be_renewed(self, error: Exception, held: Held) -> bool:
        """Tell whether a connect may succeed with another credential."""
        refused = self.classify(error) is ErrorClass.CREDENTIALS
        return refused and bool(self._credentials.reject(held))

    def lasts(self, conn: C, /) -> float:
        """Tell how long a new connection may be used, in seconds.

        Not too briefly, whatever its credential says: a clock may be wrong.
        """
        until: float = getattr(conn, "_edgepool_until", NEVER)
        return max(until - monotonic(), BRIEFEST)

    def _connect_errors(self) -> ConnectErrors:
        if self._errors is None:
            # Imported when a connect fails: it is a tenth of the package's import.
            from ._connect_errors import ConnectErrors

            self._errors = ConnectErrors()
        return self._errors

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


def _shut_down(pgconn: PGconn) -> None:
    with suppress(OSError, psycopg.Error):
        twin = socket.socket(fileno=os.dup(pgconn.socket))
        with twin:
            twin.shutdown(socket.SHUT_RDWR)


def session_of(conn: C) -> Session[C]:
    """Return what the pool keeps for a connection."""
    session: Any = conn._edgepool  # type: ignore[attr-defined]
    return cast("Session[C]", session)


def must_be_idle(conn: BaseConnection[Any], kind: str, callback: object) -> None:
    """Raise if a callback of the user's has left something open."""
    status = conn.pgconn.transaction_status
    if status != IDLE:
        raise psycopg.ProgrammingError(
            f"connection left in status {TransactionStatus(status).name}"
            f" by {kind} function {callback}: discarded"
        )


def attempted(conninfo: str, kwargs: dict[str, Any]) -> str:
    """Return the whole of what libpq was given, as one connection string."""
    given = {k: v for k, v in kwargs.items() if k not in NOT_LIBPQ}
    try:
        return make_conninfo(conninfo, **given)
    except psycopg.Error:
        return ""


def let_go_of_frames(error: BaseException) -> None:
    """Drop the traceback of a failed connect: its frames hold what is half open.

    They would until the next collection of garbage, and the server may let that in yet:
    one session too many. Bugs keep theirs.
    """
    if isinstance(error, psycopg.Error) or not isinstance(error, Exception):
        error.__traceback__ = None


def resolved(value: Any) -> Any:
    """Return a value, or what a function gives."""
    return value() if callable(value) else value


async def result_of(value: Any) -> Any:
    """Return a value, or what awaiting it gives."""
    return await value if isawaitable(value) else value
