"""What is in the way of a direct connection: it is looked at before it is configured.

Once for each pool and way. Where a session is not its client's own, what needs one is
refused or warned of.
"""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import psycopg

from .._adapter import PermanentError
from ._adapter_base import must_be_idle
from ._connecting import result_of
from ._session import execute

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen

    from ._face import PsycopgFace

R = TypeVar("R")

log = logging.getLogger("edgepool.direct")

# What tells sessions apart, also those of different servers.
SESSION: Final = b"SELECT pg_backend_pid(), pg_postmaster_start_time()"

# How long a second connection may take to answer, in seconds: a pooler in session mode
# that has no session left would let it wait.
WITNESS: Final = 1.0

Step: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]


class Found(Enum):
    """What is between here and the server."""

    NOTHING = auto()
    SOMETHING = auto()
    """A proxy, or a pooler whose sessions are, as far as was seen, for one client."""
    SHARED = auto()
    """A pooler that gives one session to several clients in turn."""


class _NoAnswer(Exception):
    """There was no answer in time. Not an OSError, which psycopg takes for a loss."""


class Guard:
    """Sees to it that a direct connection is one, before it is configured."""

    adapter: Any

    def __init__(
        self, pool: PsycopgFace[Any, Any], conninfo: object, then: Step | None
    ) -> None:
        self._pool = pool
        self._conninfo = conninfo
        self._then = then

    async def configure(self, conn: BaseConnection[Any]) -> None:
        """Look at it, once for each pool; then have the user configure it."""
        pool = self._pool
        known = pool._direct_found
        if known is not None and known[0] is self._conninfo:
            self._judge(known[1])
        else:
            found = await self._look(conn)
            self._judge(found)
            self._warn(found)
            pool._direct_found = self._conninfo, found
        configure = pool._adapter._configure
        if configure is not None:
            await result_of(configure(conn))
            must_be_idle(conn, "configure", configure)
        if self._then is not None:
            await self._then(conn)

    def _judge(self, found: Found) -> None:
        # Behind a proxy that is no pooler the numbers differ as well: there the address
        # may be as direct as they come.
        if found is not Found.SHARED:
            return
        if self._conninfo is not None:
            raise psycopg.ProgrammingError(
                "direct_conninfo leads to a pooler in transaction mode,"
                " and not to the database itself"
            )
        if self._then is not None:
            raise psycopg.ProgrammingError(
                "through a pooler in transaction mode nothing can be heard:"
                " the pool needs direct_conninfo, the database's own address"
            )

    def _warn(self, found: Found) -> None:
        if found is Found.NOTHING:
            return
        if self._conninfo is not None:
            log.warning(
                "%s: direct_conninfo leads to something in front of the database; if"
                " that is a pooler, it has to be in session mode",
                self._pool.name,
            )
        else:
            log.warning(
                "%s: there is something in front of the database, and no"
                " direct_conninfo: what needs a session may not work",
                self._pool.name,
            )

    async def _look(self, conn: BaseConnection[Any]) -> Found:
        mine = await _session(conn, _served_by(conn))
        if mine is None or mine[0] == conn.pgconn.backend_pid:
            return Found.NOTHING
        # Whether the session is for this client only is seen beside a second one.
        try:
            witness: BaseConnection[Any] = await self.adapter.connect()
        except (psycopg.Error, PermanentError):
            return Found.SOMETHING
        try:
            its = await _session(witness, _within(_served_by(witness), WITNESS))
        except (_NoAnswer, psycopg.Error):
            return Found.SOMETHING
        finally:
            await self.adapter.close(witness)
        return Found.SHARED if its == mine else Found.SOMETHING


async def _session(
    conn: BaseConnection[Any], question: PQGen[tuple[int, bytes]]
) -> tuple[int, bytes] | None:
    """Return who serves a connection; None if the server does not know itself."""
    try:
        answer: tuple[int, bytes] = await result_of(cast("Any", conn).wait(question))
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return answer


def _served_by(conn: BaseConnection[Any]) -> PQGen[tuple[int, bytes]]:
    (answer,) = yield from execute(conn.pgconn, SESSION)
    return int(answer.get_value(0, 0) or 0), answer.get_value(0, 1) or b""


def _within(question: PQGen[R], seconds: float) -> PQGen[R]:
    """Give up on a question; psycopg's waits look up ten times a second."""
    until = monotonic() + seconds
    try:
        wait = next(question)
        while True:
            ready = yield wait
            if not ready and monotonic() >= until:
                raise _NoAnswer
            wait = question.send(ready)
    except StopIteration as stop:
        answer: R = stop.value
        return answer
