"""What SQLAlchemy keeps for a connection of the pool."""

# A pool's records are SQLAlchemy's own, private by name:
# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool.base import _ConnectionRecord

from ..psycopg._snapshot import Snapshot, add_adapters, give_tuples

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from ._base import EdgePoolBase


class Record(_ConnectionRecord):
    """The engine's side of a connection: `info`, and what `connect` listeners have set.

    One for each connection that this engine has used, for as long as it lives. While it
    is not lent the connection itself is edgepool's alone.
    """

    def __init__(self, pool: EdgePoolBase[Any]) -> None:
        super().__init__(pool, connect=False)
        self.pool = pool
        # A connection that the engine does not know yet.
        self.arrived: DBAPIConnection | None = None
        # As this engine's listeners have left it. Another engine may share the pool.
        self._snapshot: Snapshot[Any] | None = None

    def get_connection(self) -> DBAPIConnection:
        """Give what is lent, after the `connect` listeners if it is new."""
        pool = self.pool
        while self.arrived is None and self._is_due():
            self.close()
            pool.supply(self)
        known = self.dbapi_connection
        connection = super().get_connection()
        if connection is not known:
            conn = pool.driver_of(connection)
            # Functions for JSON, hstore, inet. A pool of the user's has connected
            # without; and hstore is looked up on the first connection, when others
            # may be open.
            add_adapters(conn, pool.fitted_dialect()._psycopg_adapters_map)
            self._snapshot = Snapshot(conn)
            # The borrower gets copies of what he may change.
            self._snapshot.restore(conn)
        return connection

    def resume(self, connection: DBAPIConnection) -> None:
        """Go on with a connection that is lent again."""
        assert self._snapshot is not None
        self._snapshot.restore(self.pool.driver_of(connection))
        self.dbapi_connection = connection

    def adopt(self, other: Record) -> None:
        """Be the record of a connection that had another one."""
        self.info.clear()
        self.info.update(other.info)
        self.starttime = other.starttime
        self._soft_invalidate_time = other._soft_invalidate_time
        self._snapshot = other._snapshot

    def _is_due(self) -> bool:
        """Tell whether it is not to be used any more, as SQLAlchemy has it."""
        recycle = self.pool._recycle
        return self._is_hard_or_soft_invalidated() or (
            -1 < recycle < time.time() - self.starttime
        )


def handed_over(record: Record) -> Any:
    """Give SQLAlchemy a connection that it does not know: the creator of our pools."""
    arrived, record.arrived = record.arrived, None
    if arrived is None:  # what it had has become due in this moment
        arrived = record.pool.borrow()
    if not record.pool.is_ours:
        _as_engines_expect(arrived, record.pool.driver_of(arrived))
    return arrived


def _as_engines_expect(connection: DBAPIConnection, conn: Any) -> None:
    """Undo for an engine what the pool of others has set for its own borrowers.

    An engine believes in transactions of its own and in tuples, and would not notice.
    """
    give_tuples(conn)
    if conn.autocommit:
        connection.autocommit = False
