"""What may be set on a connection, and how it is put back."""

# pyright: reportPrivateUsage=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from sys import getrefcount
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import ref

from psycopg import BaseConnection
from psycopg import adapters as global_adapters
from psycopg.adapt import AdaptersMap, PyFormat
from psycopg.rows import tuple_row
from psycopg.types import TypeInfo, TypesRegistry

C = TypeVar("C", bound="BaseConnection[Any]")

# Of the dumpers of a type, the one that is registered last is that for a format which
# is left open.
FORMATS = (PyFormat.TEXT, PyFormat.BINARY, PyFormat.AUTO)


class _Holder:
    """Stands for what has the only reference to something."""

    __slots__ = ("thing",)

    def __init__(self) -> None:
        self.thing = object()


def _count(holder: _Holder) -> int:
    return getrefcount(holder.thing)


# How often `getrefcount(holder.thing)` counts what nobody else refers to.
ALONE = _count(_Holder())


Change: TypeAlias = Callable[[Any], None]
"""A change of adapters, which can be made to others as well."""


class Adapters(AdaptersMap):
    """The adapters of a connection, that tell when they are changed.

    Args:
        template: what they begin with. Default: psycopg's global ones.
        changed: called with each change before it is made.
    """

    def __init__(
        self, template: AdaptersMap | None, changed: Callable[[Change], object]
    ) -> None:
        super().__init__(template or global_adapters)
        self._changed = changed
        self.types = Types(self.types, changed)

    def register_dumper(self, cls: Any, dumper: Any) -> None:
        """See psycopg."""
        self._changed(methodcaller("register_dumper", cls, dumper))
        super().register_dumper(cls, dumper)

    def register_loader(self, oid: Any, loader: Any) -> None:
        """See psycopg."""
        self._changed(methodcaller("register_loader", oid, loader))
        super().register_loader(oid, loader)


class Types(TypesRegistry):
    """The types of a connection's adapters; for a change of them the same holds."""

    def __init__(
        self, template: TypesRegistry, changed: Callable[[Change], object]
    ) -> None:
        super().__init__(template)
        self._changed = changed

    def add(self, info: TypeInfo) -> None:
        """See psycopg."""
        self._changed(lambda adapters: adapters.types.add(info))
        super().add(info)


def _forget_adapters(find: Callable[[], Snapshot[Any] | None], change: Change) -> None:
    """Have a snapshot forget adapters that are changed; the next is to have none."""
    if (snapshot := find()) is not None:
        snapshot.adapters = None


class Snapshot(Generic[C]):
    """What the attributes of a connection were at a time, to be put back later.

    Those are meant that a borrower may set, on this side of the connection.
    """

    __slots__ = (
        "__weakref__",
        "adapters",
        "autocommit",
        "begin",
        "cursor_factory",
        "handlers",
        "prepare_threshold",
        "prepared",
        "prepared_max",
        "row_factory",
        "server_cursor_factory",
        "template",
        "transaction",
    )

    def __init__(self, conn: C) -> None:
        mine: Any = conn
        self.autocommit = conn._autocommit
        self.transaction = conn._isolation_level, conn._read_only, conn._deferrable
        # psycopg keeps this text until one of these three is set.
        self.begin = conn._get_tx_start_command()
        self.row_factory = mine.row_factory
        self.cursor_factory = mine.cursor_factory
        self.server_cursor_factory = mine.server_cursor_factory
        self.prepared = conn._prepared
        self.prepare_threshold = conn._prepared.prepare_threshold
        self.prepared_max = conn._prepared.prepared_max
        self.handlers = list(conn._notice_handlers), list(conn._notify_handlers)
        # psycopg makes a copy of its global adapters when a connection is first used.
        self.template = conn._adapters
        self.adapters: Adapters | None = None

    def restore(self, conn: C) -> None:
        """Give the connection's attributes the values that they had."""
        mine: Any = conn
        conn._autocommit = self.autocommit
        conn._isolation_level, conn._read_only, conn._deferrable = self.transaction
        conn._begin_statement = self.begin
        # Left behind by a block that nobody ended, though its transaction has ended.
        conn._num_transactions = 0
        conn._tpc = None
        mine.row_factory = self.row_factory
        mine.cursor_factory = self.cursor_factory
        mine.server_cursor_factory = self.server_cursor_factory
        conn._prepared = self.prepared
        conn._prepared.prepare_threshold = self.prepare_threshold
        conn._prepared.prepared_max = self.prepared_max
        notice_handlers, notify_handlers = self.handlers
        conn._notice_handlers = list(notice_handlers)
        conn._notify_handlers = list(notify_handlers)
        if conn._adapters is not self.adapters:
            # They take a while to make. But who has had them may still have them.
            if self.adapters is None or getrefcount(self.adapters) > ALONE:
                changed = partial(_forget_adapters, ref(self))
                self.adapters = Adapters(self.template, changed)
            conn._adapters = self.adapters


def give_tuples(conn: BaseConnection[Any]) -> None:
    """Have a connection give rows as the DBAPI has them, whoever has made it."""
    mine: Any = conn
    mine.row_factory = tuple_row


def add_adapters(conn: BaseConnection[Any], wanted: AdaptersMap) -> None:
    """Register on a connection what is in a map, but not in psycopg's global one.

    What else is registered on the connection stays.
    """
    usual, mine = global_adapters, conn.adapters
    for info in wanted.types:
        if usual.types.get(info.name) is None and mine.types.get(info.name) is None:
            mine.types.add(info)
    for format in FORMATS:
        known = usual._dumpers[format]
        for cls, dumper in wanted._dumpers[format].items():
            if known.get(cls) is not dumper is not mine._dumpers[format].get(cls):
                mine.register_dumper(cls, dumper)
    for number, loaders in enumerate(wanted._loaders):
        theirs = usual._loaders[number]
        for oid, loader in loaders.items():
            if theirs.get(oid) is not loader is not mine._loaders[number].get(oid):
                mine.register_loader(oid, loader)
