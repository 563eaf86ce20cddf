"""From a borrow to the return: the leases, and how a connection changes hands.

`lend` and `take_back` are on every way; between them the connection is the borrower's.
"""

# Private by name, but psycopg's contract with a pool, and the pools' with their leases:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from _thread import get_ident
from sys import _getframe, getrefcount
from time import monotonic
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic

import psycopg
from psycopg_pool.abc import ACT, CT

from .._core import Entry, ErrorClass
from .._drivers.tasks import task_of
from .._places import note_caller
from ._forked import is_forked
from ._handles import Session, renewed, session_of
from ._returned import Refusal
from ._snapshot import ALONE, C
from ._states import ACTIVE, IDLE, OK
from ._unborrowed import Unborrowed

if TYPE_CHECKING:
    from psycopg import BaseConnection

    from ._face import PsycopgFace

# How many exceptions are looked through for the one of psycopg that caused them.
CAUSES = 8


def lend(pool: PsycopgFace[C, Any], entry: Entry[C]) -> C:
    """Give the connection of a borrowed entry away: it is the borrower's now."""
    if getrefcount(entry.resource) > ALONE:
        renewed(entry.resource)
    conn = entry.resource
    mine: Any = conn
    session: Session[C] = mine._edgepool
    # What the last borrower has set is put back now and not at his return: after it
    # some of it can still be set. (`session.is_as_configured()`, without the call.)
    prepared = conn._prepared
    if not (
        conn._adapters is session.adapters
        and conn._autocommit is session.autocommit
        and conn._begin_statement is session.begin
        and mine.row_factory is session.row_factory
        and mine.cursor_factory is session.cursor_factory
        and mine.server_cursor_factory is session.server_cursor_factory
        and prepared.prepare_threshold == session.prepare_threshold
        and prepared.prepared_max == session.prepared_max
        and not conn._notice_handlers
        and not conn._notify_handlers
        and not conn._num_transactions
        and conn._tpc is None
    ):
        session.restore(conn)
    session.entry = entry
    conn._pool = pool  # type: ignore[assignment]
    conn.pgconn = session.pgconn
    # If he drops it, it is gone, and its place is free.
    del entry.resource
    return conn


def take_back(
    pool: PsycopgFace[C, Any],
    conn: C,
    frame: FrameType | None,
    clean: bool | None = None,
    locked: bool = False,
) -> None:
    """Return a lent connection.

    Args:
        pool: which has lent it.
        conn: the connection.
        frame: of the call that returns it; None at the end of a block.
        clean: nothing is open on it. None: to be seen.
        locked: the caller has psycopg's lock.

    Raises:
        ValueError: it is not lent by this pool; says where it was returned.
    """
    mine: Any = conn
    try:
        session: Session[C] = mine._edgepool
        if mine._pool is not pool:
            raise AttributeError
        entry = session.entry
        del session.entry
    except AttributeError:
        _refuse(pool, conn)
        return
    if clean is None:
        clean = session.pgconn.transaction_status == IDLE and conn._pipeline is None
    engine = pool._engine
    try:
        entry.resource = conn
        conn._pool = None
        if frame is not None:
            note = entry.tether.note
            note.code, note.offset = frame.f_code, frame.f_lasti
            note.returned = True
        clean = clean and pool._returns_clean
        if clean:
            conn.pgconn = session.refusal
        # Whoever takes psycopg's lock from now on is refused. Who has it may be about
        # to send a statement: another thread, as that of a request that was cancelled.
        # Or wait for the server: another task, as one that ends a stream.
        may_wait = pool._is_shared or not clean
        if may_wait and not locked and mine.lock.locked():
            session.is_contended, clean = True, False
        if not clean:
            renewed(conn)
    except BaseException:  # interrupted
        entry.resource = conn
        engine.tell(engine.core.give_back_broken, entry)
        raise
    # From here on it may be somebody else's, whoever interrupts.
    if not clean:
        engine.put(entry)
    elif (event := engine.core.give_back(monotonic(), entry)) is not None:
        engine.tell(event, entry)


def discard(pool: PsycopgFace[C, Any], conn: C, frame: FrameType) -> None:
    """Return a lent connection that is not to be lent again.

    Raises:
        ValueError: as `take_back`.
    """
    # What is in mid-query is closed by the pool: it has the server cancel it first.
    if not is_forked(conn) and conn.pgconn.transaction_status != ACTIVE:
        conn.pgconn.finish()
    take_back(pool, conn, frame)


def borrowed_by_caller(conn: BaseConnection[Any]) -> None:
    """Have a lent connection be told of as borrowed where this package was called.

    For an integration, which borrows for its user; nothing of its own helps him.
    """
    note = session_of(conn).tether.note
    note_caller(note)
    note.returned = None


def is_idle(conn: BaseConnection[Any]) -> bool:
    """Tell whether nothing is open on a lent connection."""
    return conn.pgconn.transaction_status == IDLE and conn._pipeline is None


def heed(pool: PsycopgFace[C, Any], conn: C, error: BaseException) -> None:
    """See what the error that ends a block means to its connection, and to others.

    Nothing is repeated: what the statement has done is known to its author only.
    """
    for _ in range(CAUSES):  # what he has made of psycopg's error counts as well
        if isinstance(error, psycopg.Error) or error.__cause__ is None:
            break
        error = error.__cause__
    if not isinstance(error, psycopg.Error):
        return
    kind = pool._adapter.classify(error)
    pgconn, engine = session_of(conn).pgconn, pool._engine
    if kind is ErrorClass.BACK_OFF and pgconn.status == OK:
        return  # a limit, but not one of sessions
    if kind is ErrorClass.RETIRE or kind is ErrorClass.SUSPECT:
        pgconn.finish()  # so it comes back as one that is broken
    if kind is ErrorClass.READ_ONLY:
        pool._adapter.took_no_write(conn)
    engine.tell(engine.core.noticed, kind)


def _refuse(pool: PsycopgFace[C, Any], conn: C) -> None:
    """Raise for a connection that is not lent; but not for a parent's, in a child.

    That one was lent: the child has forked off with a copy of the borrower.
    """
    if not is_forked(conn):
        raise _not_lent(pool, conn)


def _not_lent(pool: PsycopgFace[C, Any], conn: C) -> ValueError:
    """Make the error for a connection that cannot be returned to this pool."""
    its = getattr(conn, "_pool", None)
    if isinstance(getattr(conn, "pgconn", None), Unborrowed):
        why = "nothing is borrowed yet for its block"
    elif its is not None and its is not pool:
        why = f"it comes from pool {its.name!r}"
    elif hasattr(conn, "_edgepool"):
        refusal: Any = conn.pgconn
        # It is none yet if somebody else is returning it in this moment.
        where = refusal.where() if isinstance(refusal, Refusal) else "just now"
        why = f"it was returned already, {where}"
    else:
        why = "it doesn't come from any pool"
    return ValueError(f"can't return connection to pool {pool.name!r}, {why}: {conn}")


class _Lease(Generic[C]):
    __slots__ = ("_conn", "_pool", "_timeout")

    _conn: Any

    def __init__(self, pool: PsycopgFace[C, Any], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout


class ConnectionLease(_Lease[CT]):
    """A borrower's claim on a connection, from `with` to its end."""

    __slots__ = ()

    def __enter__(self) -> CT:
        pool = self._pool
        engine = pool._engine
        now = monotonic()
        owner = get_ident()
        entry = engine.core.borrow(now, owner)
        if entry is None or now >= entry.due_at:
            entry = engine.settle(entry, now, self._timeout, owner)
        conn: CT = lend(pool, entry)
        self._conn = conn
        if engine.tracker is None:
            frame, note = _getframe(1), entry.tether.note
            note.code, note.offset = frame.f_code, frame.f_lasti
            note.returned = False
        else:
            engine.tracker.note(entry.tether, 1)
        return conn

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        conn, pool = self._conn, self._pool
        if conn._pool is not pool:  # it was returned in the block
            _refuse(pool, conn)
            return
        # On an idle connection psycopg's exit would only commit nothing, for 1 µs.
        if (
            exc_val is None
            and conn.pgconn.transaction_status == IDLE
            and conn._pipeline is None
        ):
            take_back(pool, conn, None, clean=True)
            return
        try:
            if not is_idle(conn):
                conn.__exit__(exc_type, exc_val, exc_tb)
            if exc_val is not None:
                heed(pool, conn, exc_val)
        except Exception as error:
            heed(pool, conn, error)
            raise
        finally:
            take_back(pool, conn, None, clean=False)


class AsyncConnectionLease(_Lease[ACT]):
    """A borrower's claim on a connection, from `async with` to its end."""

    __slots__ = ()

    async def __aenter__(self) -> ACT:
        pool = self._pool
        engine = pool._engine
        now = engine.clock()
        owner = id(task_of(engine.loop))
        entry = engine.core.borrow(now, owner)
        if entry is None or now >= entry.due_at:
            entry = await engine.settle(entry, now, self._timeout, owner)
        conn: ACT = lend(pool, entry)
        self._conn = conn
        if engine.tracker is None:
            frame, note = _getframe(1), entry.tether.note
            note.code, note.offset = frame.f_code, frame.f_lasti
            note.returned = False
        else:
            engine.tracker.note(entry.tether, 1)
        return conn

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        conn, pool = self._conn, self._pool
        if conn._pool is not pool:  # it was returned in the block
            _refuse(pool, conn)
            return
        # On an idle connection psycopg's exit would only commit nothing, for 1 µs.
        if (
            exc_val is None
            and conn.pgconn.transaction_status == IDLE
            and conn._pipeline is None
        ):
            take_back(pool, conn, None, clean=True)
            return
        try:
            if not is_idle(conn):
                await conn.__aexit__(exc_type, exc_val, exc_tb)
            if exc_val is not None:
                heed(pool, conn, exc_val)
        except Exception as error:
            heed(pool, conn, error)
            raise
        finally:
            take_back(pool, conn, None, clean=False)
