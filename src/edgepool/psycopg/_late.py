"""How a connection object comes by a session late, lets go of it, and gets another.

The borrower has an object of psycopg's own class all the time. Whatever psycopg does
with the server, it does by the connection's `wait`: so there a connection is borrowed,
and the object takes over its session. From then on nothing stands in between, but that
`wait` looks whether a cursor was made for an earlier session.
"""

# Private by name, but psycopg's contract with a pool, and the pools' with their leases:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, cast
from weakref import WeakSet, ref

import psycopg
from psycopg.pq import TransactionStatus

from .._core import Note
from .._places import is_his
from ._forked import is_forked
from ._handles import moved, session_of
from ._leases import borrowed_by_caller, take_back
from ._returned import Refusal, refusal_of
from ._snapshot import C
from ._states import IDLE, UNKNOWN
from ._unborrowed import CLOSE_CURSOR, LOCAL, Choices, Unborrowed, unborrowed_after

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

    from ._face import PsycopgFace


class Late(Generic[C]):
    """What a lease knows of a connection that is borrowed late. Of either colour.

    Args:
        pool: which lends.
        timeout: how long each borrow may take.
        wait: what to call in the place of the object's `wait`, with a reference to the
            object, this, and the arguments.
        execute: the same for `execute`, while nothing is borrowed.
        frame: of who enters the lease.
        owner: the thread or task that does. If it is another one that borrows, nobody
            knows who will return it, and it can be said of nobody that he would wait
            for himself.
    """

    # It stands where a connection has its pool, and nothing is borrowed. No pool that
    # psycopg would return the connection to, if it is closed.
    close_returns = False

    def __init__(
        self,
        pool: PsycopgFace[C, Any],
        timeout: float | None,
        wait: Callable[..., Any],
        execute: Callable[..., Any],
        frame: FrameType,
        owner: int,
    ) -> None:
        self.pool = pool
        self.owner = owner
        self.timeout = timeout
        self._wait = wait
        self._execute = execute
        # Where the lease was entered: whatever is borrowed for it, is borrowed there;
        # or, if that is no place of the user's, where his statement is.
        self._code, self._offset = frame.f_code, frame.f_lasti
        self._is_his = is_his(frame)
        self._has_ended = False
        # Has one item, but while somebody gives the object a session; none in the end.
        self._turn: list[None] = [None]
        self._is_away = False
        self._stand_in = Unborrowed()
        self._choices = Choices()
        # Of the object's attributes, those that are of its session.
        self._lent: list[str] = []
        # What it goes on with after it was let go of.
        self._kept: dict[str, Any] = {}
        # Cursors that outlive their transactions.
        self._held: WeakSet[Any] = WeakSet()

    @property
    def name(self) -> str:
        """The pool's, as whoever asks the object's pool expects it."""
        return self.pool.name

    # --- the object ---------------------------------------------------------------

    def object(self) -> C:
        """Make the borrower's object."""
        conn = self.pool.connection_class(cast("PGconn", self._stand_in))
        mine: Any = conn
        given: object = self.pool.kwargs
        if isinstance(given, Mapping):
            mine._autocommit = bool(given.get("autocommit", False))
        mine._edgepool = None
        for name, value in self._choices.none_yet(conn, self._expected).items():
            setattr(conn, name, value)
        mine.wait = partial(self._wait, ref(conn), self)
        self._let_wait(conn)
        return conn

    def _expected(self, name: str, usual: Any) -> Any:
        """Give a factory as a connect will set it, if `configure` does not."""
        adapter = self.pool._adapter
        given = {} if callable(adapter.kwargs) else adapter.kwargs or {}
        if not callable(adapter.conninfo):
            given = {**adapter._dsn(adapter.conninfo).connect, **given}
        return given.get(name) or usual

    def _let_wait(self, conn: C) -> None:
        """Have the object wait for its next statement."""
        mine: Any = conn
        mine.execute = partial(self._execute, ref(conn), self)
        mine._pool = self
        if mine._closed:  # by the borrower, and for good
            self._stand_in.finish()
        else:
            self._stand_in.begin()
        mine.pgconn = self._stand_in

    # --- a statement --------------------------------------------------------------

    def must_borrow(self, conn: C) -> bool:
        """Tell whether nothing is borrowed.

        Raises:
            psycopg.OperationalError: the borrower has closed the connection.
        """
        pgconn: Any = conn.pgconn
        if pgconn is not self._stand_in:
            return False
        conn._check_connection_ok()
        return True

    def is_done(self, gen: PQGen[Any]) -> bool:
        """Do what needs no server, while there is none; tell whether it was that."""
        code = _code(gen)
        if code is CLOSE_CURSOR:
            return True
        if code not in LOCAL:
            return False
        self._note_setter(gen)
        for _ in gen:
            raise AssertionError("it waits for the server")
        return True

    def _note_setter(self, gen: PQGen[Any]) -> None:
        if (name := LOCAL.get(_code(gen))) is not None:
            self._choices.set.add(name)

    def fit(self, conn: C, gen: PQGen[Any]) -> None:
        """Have who is about to use a connection use the one that there is now."""
        self._note_setter(gen)
        asker = _asker(gen)
        if asker is None or asker is conn or isinstance(conn.pgconn, Refusal):
            return
        if not hasattr(asker, "_pgconn"):  # a transaction, or a pipeline
            asker.pgconn = conn.pgconn
            return
        if asker._pgconn is not conn.pgconn:
            self._choices.fit(asker, conn, session_of(conn))
        if getattr(asker, "_withhold", False):
            self._held.add(asker)

    @staticmethod
    def failed(conn: C, gen: PQGen[Any] | None) -> None:
        """Have who wanted to use a connection know that there is none to undo it on."""
        asker = _asker(gen)
        if asker is conn:
            return
        if isinstance(getattr(asker, "pgconn", None), Unborrowed):
            asker.pgconn = Unborrowed()  # one that is closed

    def take_over(self, conn: C, lent: C) -> None:
        """Give the object the session of a connection that was borrowed for it."""
        if not self._takes_turn():  # ended meanwhile, by another thread or task
            take_back(self.pool, lent, None)
            return
        mine: Any = conn
        try:
            choose = self._choices.made(conn)
            self._lent = moved(lent, conn)
            mine._pool = self.pool
            choose()
            session = session_of(conn)
            note = session.tether.note
            note.code, note.offset, note.returned = self._code, self._offset, False
            if not self._is_his:
                borrowed_by_caller(conn)
            conn.pgconn = session.pgconn
            _drop(conn, "execute")
        finally:
            self._turn.append(None)
        if self._has_ended and self._takes_turn():
            take_back(self.pool, conn, None, locked=True)

    def _takes_turn(self) -> bool:
        try:
            self._turn.pop()
        except IndexError:
            return False
        return True

    # --- in between ---------------------------------------------------------------

    def let_go(self, conn: C, frame: FrameType) -> None:
        """Return what is borrowed; the object refuses until `resume`.

        Raises:
            ConnectionReturned: it was returned already.
            psycopg.ProgrammingError: something is open that would be lost.
        """
        pgconn: Any = conn.pgconn
        if isinstance(pgconn, Refusal):
            pgconn.refuse()
        if pgconn is self._stand_in:
            self._is_away = True
            note = Note()
            note.code, note.offset, note.returned = frame.f_code, frame.f_lasti, True
            conn.pgconn = self._refusal(note)
            return
        if (what := self._open(conn)) is not None:
            raise psycopg.ProgrammingError(
                f"the connection cannot be released while {what}"
            )
        session = session_of(conn)
        self._kept = self._choices.kept(conn, session)
        self._stand_in = unborrowed_after(session.find)
        self._is_away = True
        take_back(self.pool, conn, frame, clean=False, locked=True)
        for name in self._lent:
            _drop(conn, name)

    def _open(self, conn: C) -> str | None:
        """Tell what would be lost with the session, or would go on in it."""
        status = conn.pgconn.transaction_status
        if status == UNKNOWN:
            return None  # it is lost already
        if conn._pipeline is not None:
            return "a pipeline is open: leave its block first"
        if conn._tpc is not None:
            return "a two-phase transaction is open: end it first"
        if status != IDLE or conn._num_transactions:
            state = TransactionStatus(status).name
            return f"a transaction is open ({state}): commit or roll back first"
        for cursor in self._held:
            if not cursor.closed:
                return f"the cursor {cursor.name!r} is open: close it first"
        return None

    def resume(self, conn: C) -> None:
        """Have the object borrow again, at its next statement."""
        if self._has_ended:
            return
        for name, value in self._kept.items():
            setattr(conn, name, value)
        self._kept = {}
        self._let_wait(conn)
        self._is_away = False

    # --- the end ------------------------------------------------------------------

    def ended(self, conn: C) -> bool:
        """End it; tell whether there is something to return."""
        self._has_ended = True
        _drop(conn, "wait")
        _drop(conn, "execute")
        mine: Any = conn
        if is_forked(conn):
            return True
        if not self._takes_turn():
            return False  # another thread is borrowing, and sees to it
        if not (self._is_away or mine._pool is self):
            return True
        # There is one if who borrowed or returned it was interrupted; then it is lost.
        mine._edgepool = None
        note = Note()
        note.code, note.offset = self._code, self._offset
        conn.pgconn = self._refusal(note)
        return False

    def _refusal(self, note: Note) -> PGconn:
        return refusal_of(lambda: cast("PGconn", self._stand_in), note)


def late_of(conn: Any) -> Late[Any]:
    """Return what is known of a connection that is borrowed late, as long as it is.

    Raises:
        ValueError: it is not borrowed late.
        ConnectionReturned: it was, but no more.
    """
    wait = getattr(conn, "__dict__", {}).get("wait")
    if isinstance(wait, partial) and isinstance(wait.args[1], Late):
        return wait.args[1]
    pgconn: Any = getattr(conn, "pgconn", None)
    if isinstance(pgconn, Refusal):
        pgconn.refuse()
    raise ValueError(
        f"released() takes a connection that is borrowed at need, not {conn!r}:"
        " FastAPI's Borrowed and connection(lazy=True) give one"
    )


def busy() -> psycopg.ProgrammingError:
    """Make the error for a connection that another thread or task uses."""
    return psycopg.ProgrammingError(
        "the connection cannot be released while a statement is under way"
    )


def _code(gen: PQGen[Any]) -> Any:
    return getattr(gen, "gi_code", None)


def _asker(gen: PQGen[Any] | None) -> Any:
    """Return whose generator it is: a cursor's, a transaction's, a connection's."""
    frame = getattr(gen, "gi_frame", None)
    return None if frame is None else frame.f_locals.get("self")


def _drop(conn: object, name: str) -> None:
    with suppress(AttributeError):
        delattr(conn, name)
