"""How a connection comes to be: with which arguments, as whom, and what an error means.

`Connecting` has what does not wait, for both kinds of connection.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from inspect import isawaitable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic

import psycopg
from psycopg.conninfo import make_conninfo

from .._adapter import PermanentError
from .._core import BRIEFEST, NEVER, ErrorClass
from ._detection import Detection
from ._dsn import NOT_LIBPQ, Dsn, parse
from ._error_classes import classified
from ._network import network_defaults
from ._role import Placement
from ._snapshot import C

if TYPE_CHECKING:
    from ._connect_errors import ConnectErrors
    from ._credentials import Held
    from ._error_classes import Classify

log = logging.getLogger("edgepool.connect")

# How long one more attempt may take that asks a server for the SQLSTATE of a refusal
# which it gave in another language, in seconds.
ASK_AGAIN = 5.0


class Connecting(Generic[C]):
    """The half of an adapter that knows how to connect.

    Args:
        conninfo: the DSN, or a callable that gives it.
        connection_class: what to call `connect` on.
        kwargs: arguments of `connect`, or a callable that gives them.
        pooler: what is in front of the server; "auto": that is to be found out.
        classify: tells what an error means, if that is not what the table says.
        credentials: gives what to connect with.
        expire_with_credentials: whether a connection is replaced when they expire.
        role: which role the server is to have.

    Raises:
        ValueError: `pooler` or `role` is another string; or something else asks libpq
            for another role.
        TypeError: what is to be called cannot be; says which argument, and its value.
    """

    def __init__(
        self,
        conninfo: Any,
        connection_class: type[C],
        kwargs: Any,
        pooler: str,
        classify: Classify | None,
        credentials: Callable[[], Any] | None,
        expire_with_credentials: bool,
        role: str,
    ) -> None:
        must_be_callable("classify", classify)
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
        self.detection = Detection(pooler, lambda: self._name)
        self._classify = classify
        self._credentials: Any = None
        if credentials is not None:
            self._credentials = self._credentials_of(credentials)
        self._expires_with_credentials = expire_with_credentials
        self._errors: ConnectErrors | None = None
        # That the arguments in a DSN have no effect.
        self.has_warned = False
        self.placement = Placement(role, conninfo, kwargs, self._leave)

    @property
    def _name(self) -> str:
        pool = self.pool()
        return pool.name if pool is not None else "a pool that is gone"

    def lead_to(self, conninfo: Any) -> None:
        """Connect to another DSN from now on; raise ValueError if it cannot be."""
        self.placement.lead_to(conninfo, self.kwargs)
        self.conninfo = conninfo
        self.detection.start_over()

    def connect_as(self, other: Connecting[Any]) -> None:
        """Use the credentials of another pool, and judge errors as it does."""
        self._credentials, self._classify = other._credentials, other._classify

    def _dsn(self, given: object) -> Dsn:
        """Read the DSN of a connect."""
        try:
            dsn = parse(given)
        except ValueError as error:
            raise PermanentError(str(error)) from None
        self.detection.pooler.hint = dsn.pooler
        if dsn.arguments and callable(self.conninfo) and not self.has_warned:
            self.has_warned = True
            log.warning(
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

    @abstractmethod
    def _credentials_of(self, provider: Callable[[], Any]) -> object:
        """Make what asks the provider."""

    def _opened_with(
        self, conn: C, kwargs: Mapping[str, Any], held: Held | None
    ) -> None:
        """Take note of a connection that was opened, and with what."""
        conn._pool = None
        given = "prepare_threshold" in kwargs
        conn._edgepool_threshold_given = given  # type: ignore[attr-defined]
        conn._edgepool_opened_by = os.getpid()  # type: ignore[attr-defined]
        self.placement.arrived(conn.pgconn)
        if held is None:
            return
        held.admitted = True
        if self._expires_with_credentials:
            conn._edgepool_until = held.expires_at  # type: ignore[attr-defined]

    def _may_be_renewed(self, error: psycopg.Error, held: Held) -> bool:
        """Tell whether a connect may succeed with another credential."""
        # Whatever it means to those who wait: to go on with this one helps nobody.
        refused = self._connect_errors().blames_credentials(error)
        refused = refused or self.classify(error) is ErrorClass.CREDENTIALS
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

    def classify(self, error: Exception, /) -> ErrorClass:
        """Tell what an error means, of a connect or of what a borrower did."""
        return classified(error, self._classify, self._name)

    def _leave(self) -> None:
        """Replace every connection: the server has another role by now."""
        log.warning(
            "%s: the server is no %s any more: replacing all connections",
            *(self._name, self.placement.role),
        )
        engine = self.pool()._engine
        engine.tell(engine.core.drain)


def must_be_callable(name: str, callback: object) -> None:
    """Raise TypeError for an argument that is to be called, and cannot be."""
    if callback is not None and not callable(callback):
        raise TypeError(f"{name} must be a function, not {callback!r}")


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


def without_traces(error: psycopg.Error) -> psycopg.Error:
    """Return the error of a failed connect without what leads to the password.

    What reports errors may show what the frames of a traceback know, and the error that
    this one was made of.
    """
    error.__context__ = None
    return error.with_traceback(None)


def resolved(value: Any) -> Any:
    """Return a value, or what a function gives."""
    return value() if callable(value) else value


async def result_of(value: Any) -> Any:
    """Return a value, or what awaiting it gives."""
    return await value if isawaitable(value) else value
