"""What a connection object has before anything is borrowed for it, piece by piece.

psycopg makes cursors and transactions, sets attributes and looks at states without a
word to the server. So in the place of libpq's connection there is one that is idle, in
the place of each default what knows that nobody has chosen it, and what is chosen is
carried over to the connection that is borrowed then.
"""

# pyright: reportPrivateUsage=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

import psycopg
from psycopg import BaseConnection
from psycopg.adapt import AdaptersMap
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus

from ._snapshot import Adapters
from ._stand_ins import LOADING, loading, may_load, told

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from ._handles import Session
    from ._snapshot import Change

# The attributes of a connection that make something else.
FACTORIES: Final = ("row_factory", "cursor_factory", "server_cursor_factory")

# Those of its prepared statements.
COUNTS: Final = ("prepare_threshold", "prepared_max")

HANDLERS: Final = ("_notice_handlers", "_notify_handlers")

# What says nothing to a server if no transaction is open; with the attribute it sets.
LOCAL: Final[dict[CodeType, str | None]] = {
    BaseConnection._set_autocommit_gen.__code__: "_autocommit",
    BaseConnection._set_isolation_level_gen.__code__: "_isolation_level",
    BaseConnection._set_read_only_gen.__code__: "_read_only",
    BaseConnection._set_deferrable_gen.__code__: "_deferrable",
    BaseConnection._commit_gen.__code__: None,
    BaseConnection._rollback_gen.__code__: None,
}

# Without a session there is no cursor in it to be closed.
CLOSE_CURSOR: Final = psycopg.ServerCursor._close_gen.__code__


class Unborrowed:
    """Stands in for libpq's connection while nothing is borrowed: open, and idle.

    psycopg is kept from asking it for the server. Who does, as `conn.info` may, is told
    that there is none yet.
    """

    transaction_status = TransactionStatus.IDLE
    pipeline_status = PipelineStatus.OFF

    # What a representation shows.
    host = b"/"
    port = b""
    user = db = b"nothing borrowed"

    # Leads to libpq's connection of the last session, of which there may be values.
    last: Callable[[], PGconn | None] | None = None

    def __init__(self) -> None:
        self.status = ConnStatus.BAD

    def begin(self) -> None:
        """Be open. Not before the object has all that it needs, its finaliser too."""
        self.status = ConnStatus.OK

    def finish(self) -> None:
        """Be closed."""
        self.status = ConnStatus.BAD

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.last is not None and name in LOADING:
            return told(self.last(), name)
        raise psycopg.InterfaceError(
            "nothing is borrowed yet: the connection comes with the first statement"
        )


_Loading = loading(Unborrowed, ("status",))


def unborrowed_after(last: Callable[[], PGconn | None]) -> Unborrowed:
    """Make what stands in after a session, of which there may be values to load."""
    if not may_load(last):
        stand_in = Unborrowed()
    else:
        stand_in = _Loading()
        vars(stand_in)["finish"] = partial(_finish, ref(stand_in))
    stand_in.last = last
    return stand_in


def _finish(find: Callable[[], Unborrowed | None]) -> None:
    if (stand_in := find()) is not None:
        Unborrowed.finish(stand_in)


class Default:
    """Stands for a factory that nobody has chosen; the session's takes its place.

    Args:
        find: gives the factory that it probably is.
        made: where it notes what it has made, and by which factory.
    """

    def __init__(
        self,
        find: Callable[[], Callable[..., Any]],
        made: WeakKeyDictionary[Any, object],
    ) -> None:
        self._find = find
        self._made = made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        factory = self._find()
        made = factory(*args, **kwargs)
        self._made[made] = factory
        return made


class DefaultCount(int):
    """A number that nobody has chosen."""


class Choices:
    """What a borrower has chosen, to be carried from one connection to the next."""

    def __init__(self) -> None:
        # The attributes that he has set by a method: of these it cannot be seen.
        self.set: set[str] = set()
        # His cursors that were made by a default, with that.
        self._made: WeakKeyDictionary[Any, object] = WeakKeyDictionary()
        # What was changed of adapters before there were the session's.
        self._changes: list[Change] = []
        self._provisional: AdaptersMap | None = None
        # Whether the handlers are all there are, or come on top of the session's.
        self._all_handlers = False

    def none_yet(
        self, conn: BaseConnection[Any], expected: Callable[[str, Any], Any]
    ) -> dict[str, Any]:
        """Return the attributes of a new object.

        Args:
            conn: the object, as psycopg makes it.
            expected: gives a factory as it will be, of its name and psycopg's default.
        """
        attributes: dict[str, Any] = {
            name: Default(partial(expected, name, getattr(conn, name)), self._made)
            for name in FACTORIES
        }
        attributes["_prepared"] = _counts(conn, conn._prepared)
        attributes["_adapters"] = self._undecided(None)
        return attributes

    def kept(self, conn: BaseConnection[Any], session: Session[Any]) -> dict[str, Any]:
        """Return the attributes with which an object goes on without its session."""
        attributes: dict[str, Any] = {"_prepared": _counts(conn, session)}
        for name in FACTORIES:
            configured, value = getattr(session, name), getattr(conn, name)
            if value is configured:
                value = Default(partial(_same, configured), self._made)
            attributes[name] = value
        handlers = tuple(getattr(conn, name) for name in HANDLERS)
        self._all_handlers = handlers != session.handlers
        for name, value in zip(HANDLERS, handlers, strict=True):
            attributes[name] = value if self._all_handlers else []
        attributes["_adapters"] = (
            self._undecided(session.template)
            if conn._adapters is session.adapters
            else conn._adapters
        )
        return attributes

    def _undecided(self, template: AdaptersMap | None) -> AdaptersMap:
        self._changes.clear()
        self._provisional = Adapters(template, self._changes.append)
        return self._provisional

    def made(self, conn: BaseConnection[Any]) -> Callable[[], None]:
        """Return what makes the same choices once more, when there is a session."""
        own = (*FACTORIES, *self.set)
        chosen = _without(Default, {name: getattr(conn, name) for name in own})
        prepared = {name: getattr(conn._prepared, name) for name in COUNTS}
        counts = _without(DefaultCount, prepared)
        handlers = {name: getattr(conn, name) for name in HANDLERS}
        adapters = conn._adapters

        def choose() -> None:
            for name, value in chosen.items():
                setattr(conn, name, value)
            if self.set:
                conn._begin_statement = b""  # it is made of them
            for name, value in counts.items():
                setattr(conn._prepared, name, value)
            for name, value in handlers.items():
                others = [] if self._all_handlers else getattr(conn, name)
                setattr(conn, name, [*others, *value])
            if adapters is not self._provisional:
                conn._adapters = adapters
            for change in self._changes:
                change(conn.adapters)

        return choose

    def fit(
        self, cursor: Any, conn: BaseConnection[Any], session: Session[Any]
    ) -> None:
        """Have a cursor use the connection that there is now.

        Raises:
            psycopg.InterfaceError: it was made before any, and would be another one.
        """
        if isinstance(cursor._pgconn, Unborrowed):
            factories = (session.cursor_factory, session.server_cursor_factory)
            if self._made.get(cursor, factories[0]) not in factories:
                raise psycopg.InterfaceError(
                    "configure sets another cursor_factory than the one of which the"
                    " cursor is: make it after the first statement"
                )
            if isinstance(cursor._row_factory, Default):
                cursor._row_factory = session.row_factory
            if session.template is not None:
                cursor._adapters = _renewed(cursor._adapters, conn.adapters)
        cursor._pgconn = conn.pgconn
        cursor._last_query = None  # what is known of it is the other connection's


def _same(value: Any) -> Any:
    return value


def _without(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    return {k: value for k, value in values.items() if not isinstance(value, cls)}


def _counts(conn: BaseConnection[Any], configured: Any) -> Any:
    """Make what keeps prepared statements, of which there is none."""
    counts = type(conn._prepared)()
    for name in COUNTS:
        value = getattr(conn._prepared, name)
        if value is not None and value == getattr(configured, name):
            value = DefaultCount(value)
        setattr(counts, name, value)
    return counts


def _renewed(adapters: Any, template: AdaptersMap) -> Any:
    """Make the adapters of a cursor anew, from what `configure` has left."""
    loaders, dumpers = adapters._own_loaders, adapters._own_dumpers
    if any(loaders) or any(dumpers.values()) or any(adapters._own_dumpers_by_oid):
        raise psycopg.InterfaceError(
            "configure changes the adapters of the connection, so those of a cursor"
            " can be changed only after the first statement"
        )
    made: Any = AdaptersMap(template)
    made._register_loader_callback = getattr(
        adapters, "_register_loader_callback", None
    )
    return made
