"""Find out about a pooler in front of the server, and fit new connections to it.

At the first connection, before anything else is sent on it: one round trip where there
is no pooler, else three at most in the life of a pool, of which the second connection
makes one. What follows from it is in `_pooler`.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from weakref import ref

import psycopg
from psycopg import capabilities, generators
from psycopg.pq import ExecStatus

from ._liveness import Readable, watch
from ._pooler import Look, Pooler, Sight
from ._session import execute
from ._states import OK

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

log = logging.getLogger("edgepool.pooler")

# How long others wait for who looks, in seconds. A look is a round trip; who takes
# longer may be on a network that has fallen silent, and others need not be.
PATIENCE: Final = 1.0

PROCESS: Final = b"SELECT pg_catalog.pg_backend_pid()"

# Of fourteen letters. It is closed in the round trip that prepares it.
NAME: Final = b"edgepool_probe"
SESSION: Final = (
    b"SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_postmaster_start_time(),"
    b" NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements"
    b" WHERE name = 'edgepool_probe')"
)


class _Witness(NamedTuple):
    """A connection that had a session at the server when it was looked at."""

    pgconn: Callable[[], PGconn | None]
    readable: Readable
    session: tuple[str, int]

    def has_held(self, session: tuple[str, int]) -> bool:
        """Tell whether the session must be shared, since this one may use it as well.

        Nothing may be readable, for that could be its end. Asked after the answer that
        named the session: a pooler ends a connection before it gives its session away.
        """
        pgconn = self.pgconn()
        return (
            session == self.session
            and pgconn is not None
            and pgconn.status == OK
            and not self.readable(0)
        )


# How a connection was looked at, and what that has shown last.
_Seen: TypeAlias = tuple[tuple[Look, ...], "Sight | None"]


class Detection:
    """What the adapters of both colours know of a pooler, and how they come to know.

    Args:
        asked: the pool's argument `pooler`.
        name: gives the pool's name, for log lines.

    Raises:
        ValueError: `asked` is none of the choices.
    """

    def __init__(self, asked: str, name: Callable[[], str]) -> None:
        self.pooler = Pooler(asked)
        self._name = name
        self._witness: _Witness | None = None
        # Who looks: only one at a time, so that others find what he has found.
        self._turns: dict[str, Any] = {}
        self._warned: set[str] = set()

    # --- looking ------------------------------------------------------------------

    def look(self, conn: psycopg.Connection[Any]) -> None:
        """Look at a new connection, if it can tell something new."""
        seen: _Seen = (), None
        while self._turns or self._wants_to(conn, seen):
            mine = Event()
            if (turn := self._turns.setdefault("looks", mine)) is not mine:
                if not turn.wait(PATIENCE):
                    self._over(turn)
                continue
            try:
                seen = conn.wait(self._look(conn, seen))
            finally:
                self._over(mine)
                mine.set()

    async def look_async(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Look at a new connection; see `look`."""
        seen: _Seen = (), None
        while self._turns or self._wants_to(conn, seen):
            mine = asyncio.get_running_loop().create_future()
            if (turn := self._turns.setdefault("looks", mine)) is not mine:
                await asyncio.wait({turn}, timeout=PATIENCE)
                if not turn.done():
                    self._over(turn)
                continue
            try:
                seen = await conn.wait(self._look(conn, seen))
            finally:
                self._over(mine)
                mine.set_result(None)

    def start_over(self) -> None:
        """Know nothing any more: at another address there is another pooler."""
        self.pooler = Pooler(self.pooler.asked)
        self._witness = None

    def _wants_to(self, conn: BaseConnection[Any], seen: _Seen) -> bool:
        if self.pooler.is_known:
            return False
        return self.pooler.next_look(conn.pgconn.backend_pid, seen[0]) is not None

    def _over(self, turn: object) -> None:
        if self._turns.get("looks") is turn:
            del self._turns["looks"]

    def _look(self, conn: BaseConnection[Any], seen: _Seen) -> PQGen[_Seen]:
        pooler, pgconn = self.pooler, conn.pgconn
        look = pooler.next_look(pgconn.backend_pid, seen[0])
        if look is None:  # somebody was faster
            return seen
        before = pooler.mode
        pooler.looking(look)
        sight: Sight | None = None
        try:
            sight = yield from (_glance if look is Look.GLANCE else _stare)(pgconn)
        except psycopg.Error:
            if pgconn.status != OK:
                raise
            pooler.saw_nothing()
        if sight is not None:
            pooler.saw(sight, self._is_shared(sight, seen[1]))
            if look is Look.STARE:
                self._call_witness(pgconn, sight)
        if pooler.mode not in (before, "none"):
            prepared = "on" if pooler.prepares else "off"
            log.info(
                "%s: pooler: %s; prepared statements: %s",
                *(self._name(), pooler.mode, prepared),
            )
        return (*seen[0], look), sight

    def _is_shared(self, sight: Sight, seen: Sight | None) -> bool:
        if seen is not None and seen.process != sight.process:
            return True
        witness = self._witness
        return witness is not None and witness.has_held((sight.server, sight.process))

    def _call_witness(self, pgconn: PGconn, sight: Sight) -> None:
        session = sight.server, sight.process
        self._witness = _Witness(ref(pgconn), watch(pgconn.socket), session)

    # --- what follows from it -----------------------------------------------------

    def fit(self, conn: BaseConnection[Any], given: bool) -> None:
        """Turn prepared statements off where they may be somebody else's.

        Args:
            conn: a new connection.
            given: the user has asked for the `prepare_threshold` that it has.
        """
        threshold = conn.prepare_threshold
        if self.pooler.prepares or threshold is None:
            return
        if given and self.pooler.asked == "transaction":
            if self._first("prepare_threshold"):
                log.warning(
                    "%s: prepare_threshold=%s as asked for, though this pooler may mix"
                    " up the prepared statements of its clients",
                    *(self._name(), threshold),
                )
            return
        if given and self._first("prepare_threshold"):
            log.warning(
                "%s: prepare_threshold=%s is not used: this pooler may mix up the"
                " prepared statements of its clients",
                *(self._name(), threshold),
            )
        conn.prepare_threshold = None

    def warn_of_sessions(self, pgconn: PGconn, reset: object) -> None:
        """Tell what of the pool's settings is for sessions, which are shared here."""
        if reset == "clean" and self._first("reset"):
            log.warning(
                "%s: reset='clean' does nothing: behind this pooler, the next"
                " transaction has another session",
                self._name(),
            )
        # `-c` and `--` set something; what begins otherwise tells some pooler where to.
        sets = any(word.startswith(b"-") for word in pgconn.options.split())
        if sets and self._first("options"):
            log.warning(
                "%s: the connection parameter options is for a session: behind this"
                " pooler, set it for the role, or in each transaction",
                self._name(),
            )

    @contextmanager
    def listening(self, pgconn: PGconn) -> Generator[None, None, None]:
        """Tell what `configure`, which runs in the block, leaves on a shared session.

        Once in the life of the pool, for it is the same each time.
        """
        if not (self.pooler.shares_sessions and self._first("configure")):
            yield
            return
        from ._overhearing import overheard  # seldom needed

        with overheard(pgconn) as found:
            yield
        if found:
            log.warning(
                "%s: configure leaves something on the session (%s): behind this"
                " pooler, the next transaction has another one",
                *(self._name(), ", ".join(dict.fromkeys(found))),
            )

    def _first(self, subject: str) -> bool:
        """Tell whether nobody has been warned of something yet."""
        before = len(self._warned)
        self._warned.add(subject)
        return len(self._warned) > before


def _glance(pgconn: PGconn) -> PQGen[Sight]:
    (result,) = yield from execute(pgconn, PROCESS)
    return Sight(pgconn.backend_pid, _number(result))


def _stare(pgconn: PGconn) -> PQGen[Sight]:
    # Only a statement that can be closed is prepared: it must not be left behind.
    if not capabilities.has_send_close_prepared():
        (result,) = yield from execute(pgconn, SESSION)
        return _seen(pgconn, result)._replace(renames=False)
    groups: list[list[PGresult]]
    pgconn.enter_pipeline_mode()
    groups = yield from generators.pipeline_communicate(
        pgconn,
        deque(
            (
                partial(pgconn.send_prepare, NAME, b"SELECT"),
                partial(pgconn.send_query_params, SESSION, None),
                partial(pgconn.send_close_prepared, NAME),
                pgconn.pipeline_sync,
            )
        ),
    )
    try:
        while not groups or groups[-1][0].status != ExecStatus.PIPELINE_SYNC:
            groups.append((yield from generators.fetch_many(pgconn)))
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        _raise_first(groups)  # who hangs up may have said why
        raise
    _raise_first(groups)
    return _seen(pgconn, groups[1][0])


def _raise_first(groups: list[list[PGresult]]) -> None:
    for result, *_ in groups:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)


def _seen(pgconn: PGconn, result: PGresult) -> Sight:
    server = result.get_value(0, 1) or b""
    renames = result.get_value(0, 2) == b"t"
    return Sight(pgconn.backend_pid, _number(result), server.decode(), renames)


def _number(result: PGresult) -> int:
    return int(result.get_value(0, 0) or 0)
