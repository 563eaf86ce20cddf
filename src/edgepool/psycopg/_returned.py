"""What stands in libpq's connection's place after the return, and refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast
from weakref import ref

import psycopg
from psycopg.pq import ConnStatus

from .._core import Note
from .._places import place
from ._stand_ins import LOADING, loading, may_load, told
from ._states import BAD

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

# What may be asked of a session after the return: what changes nothing, of libpq's
# connection; besides what loads values.
TELLING = frozenset(
    (
        *("backend_pid", "db", "error_message", "host", "hostaddr", "info", "options"),
        *("port", "protocol_version", "server_version", "transaction_status"),
        *("used_gssapi", "used_password", "user"),
    )
)


class ConnectionReturned(psycopg.InterfaceError):
    """The connection was returned to its pool, and may be somebody else's by now.

    Says where it was returned. Nothing was sent to the server.
    """

    __module__ = "edgepool"


class WhileThere(ref["PGconn"]):
    """Leads to libpq's connection while that lives."""

    __slots__ = ("is_over",)

    is_over: bool
    """Whether the session has ended, though somebody has the memory."""


class _Status(int):
    """A status with which psycopg cannot work; when it says so, the text is ours."""

    refuse: Callable[[], NoReturn]

    def __str__(self) -> str:
        self.refuse()


class Refusal:
    """Stands in for libpq's connection in an object that was returned.

    What only tells of the session is let through, also to load what has arrived of it.
    """

    find: Callable[[], PGconn | None]
    note: Note

    @property
    def status(self) -> int:
        """BAD if the session has ended; else what psycopg refuses to work with."""
        pgconn = self.find()
        is_over = getattr(self.find, "is_over", False)
        if pgconn is None or is_over or pgconn.status == BAD:
            return BAD
        status = _Status(ConnStatus.NEEDED)
        status.refuse = partial(_refuse, self.note)
        return status

    def __getattr__(self, name: str) -> Any:
        if name in ("find", "note"):  # it is going
            raise AttributeError(name)
        pgconn = self.find()
        if name in LOADING:
            return told(pgconn, name)
        if pgconn is None or name not in TELLING:
            self.refuse()
        return getattr(pgconn, name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self.refuse()

    def refuse(self) -> NoReturn:
        """Say what went wrong."""
        _refuse(self.note)

    def where(self) -> str:
        """Tell where it was returned, in words that go on after "returned"."""
        return _where(self.note)


def _refuse(note: Note) -> NoReturn:
    raise ConnectionReturned(
        f"the connection is used after it was returned {_where(note)}"
    )


def _where(note: Note) -> str:
    # Who has borrowed by `with` has to return it himself, at the end of the block.
    how = "at"
    if not note.returned and note.code is not None:
        by_block = note.returned is False
        how = "by the block at" if by_block else "by what borrowed it at"
    return f"{how} {place(note)}"


_Loading = loading(Refusal)


def refusal_of(find: Callable[[], PGconn | None], note: Note) -> PGconn:
    """Make what refuses, for a session that `find` leads to while it lives."""
    # Made often: so without an __init__.
    refusal = (_Loading if may_load(find) else Refusal)()
    mine = vars(refusal)
    mine["find"] = find
    mine["note"] = note
    mine["finish"] = partial(_refuse, note)
    return cast("PGconn", refusal)
