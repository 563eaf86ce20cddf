"""The objects that stand for a session: the one that is lent, and those given back.

A borrower gets psycopg's own connection object, and may keep it for longer than he may
use it. So the object of a connection that is not lent has a `Refusal` where psycopg
looks for libpq's connection, which says where it was returned. If somebody still refers
to the object when the session is lent again, then it stays like that for ever, and the
next borrower gets a new one.
"""

# pyright: reportPrivateUsage=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from sys import getrefcount
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from psycopg import BaseConnection

from .._core import Note
from ._returned import Refusal, WhileThere, refusal_of
from ._snapshot import ALONE, C, Snapshot
from ._states import ACTIVE

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from .._core import Entry, Tether

# What a pool gives its connections in the place of what their class has.
OWN = ("_try_cancel",)


class Session(Snapshot[C]):
    """What a pool knows of a session, whichever object stands for it at the time.

    It is the connection's attribute `_edgepool`. As a snapshot it is what every
    borrower finds, as `configure` has left it.
    """

    __slots__ = (
        "close",
        "entry",
        "find",
        "is_contended",
        "names",
        "new_lock",
        "pgconn",
        "readable",
        "refusal",
        "spare",
        "tether",
        "tied",
    )

    pgconn: PGconn

    readable: Callable[[int], object]

    entry: Entry[C]
    """While it is lent. Of two who return it at the same time, one can delete it."""

    tether: Tether[C]
    """Leads to the entry, whether it is lent or not."""

    refusal: PGconn
    """A `Refusal`."""

    tied: object
    """Ends the session with the entry, whoever keeps the object: the place is free."""

    def __init__(
        self,
        conn: C,
        readable: Callable[[int], object],
        new_lock: Callable[[], Any],
        close: Callable[[Callable[[], C | None]], Any] | None,
    ) -> None:
        super().__init__(conn)
        self.pgconn = conn.pgconn
        self.readable = readable
        # Another object, which is not lent, and the attributes that it takes.
        self.spare: C | None = None
        self.names: tuple[str, ...] = ()
        self.new_lock = new_lock
        self.close = close
        # That somebody was in the midst of a statement when it was returned.
        self.is_contended = False

    def settle_in(self, conn: C, entry: Entry[C]) -> None:
        """Make a new connection and its entry known to each other."""
        self.tether = entry.tether
        self.find = WhileThere(self.pgconn)
        self.refusal = refusal_of(self.find, entry.tether.note)
        self.tied = ref(entry, partial(_end_with_entry, self.find, os.getpid()))
        entry.weak = ref(conn)
        # As psycopg does, but for whichever object stands for the session.
        # Not by way of the session, which refers to this: it is to end with the object.
        pgconn, find = self.pgconn, cast("Any", partial(_object_of, entry.tether))
        pgconn.notice_handler = partial(BaseConnection._notice_handler, find)
        pgconn.notify_handler = partial(BaseConnection._notify_handler, find)
        conn.pgconn = self.refusal

    def forget(self) -> None:
        """Leave libpq's connection to whoever uses it; a log may keep the object."""
        self.find.is_over = True
        self.pgconn = self.refusal

    def copies(self, conn: C) -> tuple[C | None, C]:
        """Make a new object; return what is a spare one from then on, and that one.

        Attribute by attribute: after any use of `__dict__` an object is for ever slow,
        as Python sees it. So the first one, of which the names are learnt, is no spare.
        """
        spare = conn if self.knows_names(conn) else None
        fresh = object.__new__(type(conn))
        for name in self.names:
            setattr(fresh, name, getattr(conn, name, None))
        # Last: psycopg's finaliser takes what has none for what never was open.
        fresh.pgconn = refusal_of(self.find, Note())
        # Its own: who uses the old one is to be refused, not to wait for the next
        # borrower, nor that one for him.
        fresh.lock = self.new_lock()  # type: ignore[attr-defined]
        if self.close is not None:
            fresh.close = self.close(ref(fresh))  # type: ignore[attr-defined]
        return spare, fresh

    def knows_names(self, conn: C) -> bool:
        """Tell whether the names of the attributes are known; else learn them."""
        if self.names:
            return True
        names = (*vars(conn), *_slots(type(conn)))
        self.names = tuple(name for name in names if name != "pgconn")
        return False


def session_of(conn: C) -> Session[C]:
    """Return what the pool keeps for a connection."""
    session: Any = conn._edgepool  # type: ignore[attr-defined]
    return cast("Session[C]", session)


def _slots(cls: type) -> Iterator[str]:
    """Give what the classes of a user's connection keep beside its `__dict__`."""
    for base in cls.__mro__:
        slots: str | Iterable[str] = vars(base).get("__slots__", ())
        yield from (slots,) if isinstance(slots, str) else slots


def _end_with_entry(
    find: Callable[[], PGconn | None], process: int, entry: object
) -> None:
    """End a session whose entry is no more.

    Mostly it has ended in order. But one that was lost between two steps of somebody
    who was interrupted may live on: a borrower may have kept the object, or a log.
    Not a parent's; and libpq's memory is not freed while somebody has it work.
    """
    pgconn = find()
    if pgconn is None or process != os.getpid():
        return
    if pgconn.transaction_status != ACTIVE:
        pgconn.finish()


def _object_of(tether: Tether[C]) -> C | None:
    entry = tether()
    return None if entry is None else entry.reach()


def renewed(conn: C) -> C:
    """Put another object in the place of one that its last borrower may still have.

    The old one refuses, until nobody has it any more; then it may be lent once more.
    """
    session: Session[C] = conn._edgepool  # type: ignore[attr-defined]
    entry = session.tether()
    if entry is None:
        return conn  # it was lost, and is only closed now
    if session.spare is None or getrefcount(session.spare) > ALONE:
        session.spare, fresh = session.copies(conn)
    else:
        session.spare, fresh = conn, session.spare
    new: Any = fresh
    if new.lock.locked():  # a generator that was not finished has left it behind
        new.lock = session.new_lock()
    _hand_over(conn, fresh, session, entry, new.pgconn)
    entry.resource = fresh
    return fresh


def moved(conn: C, fresh: C) -> list[str]:
    """Have another object stand for a session that is lent.

    Whatever the other one lacks it gets: also what `configure` has invented.

    Returns:
        The names of the attributes that it has got.
    """
    old: Any = conn
    new: Any = fresh
    session: Session[C] = old._edgepool
    spare = conn if session.knows_names(conn) else None
    names = session.names
    got = [name for name in names if name in OWN or not hasattr(new, name)]
    for name in got:
        setattr(new, name, getattr(old, name, None))
    if session.close is not None:
        new.close = session.close(ref(fresh))
    new._adapters = old._adapters  # nobody else has them
    refusal = refusal_of(session.find, Note())
    _hand_over(conn, fresh, session, session.entry, refusal)
    old._pool = None
    session.spare = spare
    return got


def _hand_over(
    conn: C, fresh: C, session: Session[C], entry: Entry[C], refusal: Any
) -> None:
    """Have an object stand for a session in the place of another, which refuses."""
    old: Any = conn
    new: Any = fresh
    new._notifies_backlog = old._notifies_backlog or deque()
    session.restore(fresh)
    session.tether.note = refusal.note
    entry.weak = ref(fresh)
    new._edgepool = session
    # Nothing that the two would share is left to the old one.
    old._adapters = old._notice_handlers = old._notify_handlers = old._prepared = (
        old.pgconn
    ) = session.refusal
    old._edgepool = None
    session.refusal = refusal


def pgconn_behind(conn: BaseConnection[Any]) -> PGconn | None:
    """Give libpq's connection behind an object, also behind one that refuses."""
    pgconn: Any = conn.pgconn
    found: PGconn | None = pgconn.find() if isinstance(pgconn, Refusal) else pgconn
    return found
