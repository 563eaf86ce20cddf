"""Bring the server's side of a returned session back to where it began.

Goes by libpq and not by a cursor: whatever a borrower has done to the connection's row
factory, cursor factory, adapters or autocommit does not matter here.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import generators
from psycopg.pq import Escaping, ExecStatus

from ._states import IDLE, INERROR, INTRANS

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

ROLLBACK: Final = b"ROLLBACK"

# Whether the transaction has changed anything, catalogs included: only then has it a
# number. A function that every PostgreSQL since 10 has.
CHANGES: Final = b"SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL"

# What DISCARD ALL does, but without its DEALLOCATE ALL: psycopg would not notice that
# its prepared statements are gone. Who we are comes early, for that decides what is
# allowed. It includes the role, which RESET ALL leaves alone.
CLEAN: Final = b"; ".join(
    (
        b"CLOSE ALL",
        b"SET SESSION AUTHORIZATION DEFAULT",
        b"RESET ALL",
        b"UNLISTEN *",
        b"SELECT pg_catalog.pg_advisory_unlock_all()",
        b"DISCARD TEMP",
        b"DISCARD SEQUENCES",
    )
)

# What PgBouncer keeps for each client, whoever's session at the server he has: there
# RESET ALL leads to what the session began with, which the pooler has opened.
KEPT: Final = (
    b"application_name",
    b"client_encoding",
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"standard_conforming_strings",
)


def kept(pgconn: PGconn) -> bytes:
    """Return what sets such parameters again, after a clean-up, to what they are."""
    literal = Escaping(pgconn).escape_literal
    values = {name: pgconn.parameter_status(name) for name in KEPT}
    return b"; ".join(
        b"SET %s TO %s" % (name, literal(value))
        for name, value in values.items()
        if value is not None
    )


def has_prepared(conn: BaseConnection[Any]) -> bool:
    """Tell whether a transaction is open whose `rollback` would throw something away.

    Not one of `transaction()`, of two phases or in a pipeline: that is psycopg's.
    """
    return (
        conn.pgconn.transaction_status == INTRANS
        and not (conn._num_transactions or conn._tpc or conn._pipeline)
        and bool(conn._prepared._names or conn._prepared._counts)
    )


def tidied(conn: BaseConnection[Any], then: bytes = b"") -> PQGen[None]:
    """Roll back what is open, and execute what is to follow, in one round trip.

    psycopg's own `rollback` also throws away all prepared statements, in another round
    trip: one of them may refer to a type or a table that has never come to be. A
    transaction without changes has made none, so there they are kept.
    """
    yield from _tidy(conn, then)
    if then:
        # What psycopg has kept of the last borrower's LISTEN.
        conn._notifies_backlog = deque()


def _tidy(conn: BaseConnection[Any], then: bytes) -> PQGen[None]:
    pgconn = conn.pgconn
    if pgconn.transaction_status == IDLE:
        yield from execute(pgconn, then)
        return
    if pgconn.transaction_status == INTRANS:
        try:
            results = yield from execute(pgconn, CHANGES, ROLLBACK, then)
        except psycopg.Error:
            # A server that speaks the protocol, but does not have the function.
            if pgconn.transaction_status != INERROR:
                raise
        else:
            if results[0].get_value(0, 0) == b"t":
                yield from _forget_prepared(conn)
            return
    yield from execute(pgconn, ROLLBACK, then)
    yield from _forget_prepared(conn)


def _forget_prepared(conn: BaseConnection[Any]) -> PQGen[None]:
    conn._prepared.clear()
    yield from conn._prepared.maintain_gen(conn)


def execute(pgconn: PGconn, *statements: bytes) -> PQGen[list[PGresult]]:
    """Execute statements in one round trip, past all that psycopg does about them."""
    pgconn.send_query(b"; ".join(filter(None, statements)))
    results: list[PGresult] = yield from generators.execute(pgconn)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    return results
