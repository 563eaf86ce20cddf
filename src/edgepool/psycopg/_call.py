"""One statement that is all of a borrow: how it runs alone, and what is left of it."""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.types import TypeInfo

from ._handles import session_of
from ._states import IDLE

if TYPE_CHECKING:
    from psycopg.abc import Params, Query

# Of a session for which no isolation level and the like was chosen.
USUAL: Final = (None, None, None)

# The OID of a value that has parts of any type.
RECORD: Final = 2249


class Call:
    """One statement, and what it needs of the connection that it gets.

    Args:
        frame: of the caller.
        row_factory: what makes the rows; None: what the connection has.
        query, params, prepare, binary: what psycopg's `execute` is called with.
    """

    __slots__ = ("_frame", "_row_factory", "args", "kwargs")

    def __init__(
        self,
        frame: FrameType,
        row_factory: Any,
        query: Query,
        params: Params | None,
        prepare: bool | None,
        binary: bool,
    ) -> None:
        self._frame = frame
        self._row_factory = row_factory
        self.args = query, params
        self.kwargs = {"prepare": prepare, "binary": binary}

    def begin(self, conn: Any) -> None:
        """Have it run alone. Nothing is open, so no word of it goes to the server."""
        session = session_of(conn)
        conn._autocommit = session.autocommit or session.transaction == USUAL
        if self._row_factory is not None:
            conn.row_factory = self._row_factory
        note, frame = session.tether.note, self._frame
        note.code, note.offset, note.returned = frame.f_code, frame.f_lasti, True

    @staticmethod
    def end(conn: Any) -> None:
        """Put back what was set. If it failed, the next borrower's lease does.

        Raises:
            psycopg.ProgrammingError: it has opened a transaction.
        """
        if conn._autocommit and conn.pgconn.transaction_status != IDLE:
            raise psycopg.ProgrammingError(
                "the statement has opened a transaction, which was rolled back:"
                " use `with pool.connection()`"
            )
        session = session_of(conn)
        conn._autocommit = session.autocommit
        conn.row_factory = session.row_factory


def complete(cursor: Any) -> Any:
    """Have a cursor need its connection for none of its results any more.

    psycopg finds out how to load a type when it first meets it: in each result; and
    when it is one that has parts, as late as their values are loaded.
    """
    known = cursor.adapters.types
    for i, result in enumerate(cursor._results):
        if i:
            cursor.nextset()
        kinds = [result.ftype(column) for column in range(result.nfields)]
        if any(_may_have_parts(kind, known.get(kind)) for kind in kinds):
            cursor._tx.load_rows(0, result.ntuples, tuple)
    if len(cursor._results) > 1:
        cursor._select_current_result(0)
    return cursor


def _may_have_parts(kind: int, info: TypeInfo | None) -> bool:
    # An array is known by its element, and a range by a subclass.
    return type(info) is not TypeInfo or info.oid != kind or kind == RECORD
