"""Notifications, on a direct connection that is opened again when it is lost.

What was sent while there was none is lost: the server keeps nothing for who is not
connected. So each new connection is told of by a `Gap`, in its place among the
notifications, and only after the server listens again.
"""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from psycopg import Notify
from psycopg.sql import SQL, Identifier

from .._core import must_be_seconds
from .._errors import ConnectFailed, PoolClosed, PoolTimeout
from ._connecting import result_of
from ._direct import must_not_be_closed, way_past
from ._forked import is_forked
from ._session import execute

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg._connection_base import BaseConnection

    from ._guard import Step

log = logging.getLogger("edgepool.direct")

# PostgreSQL's NAMEDATALEN - 1: a longer name is cut off, and then another one.
LONGEST: Final = 63


@dataclass(frozen=True)
class Gap:
    """The connection was lost and there is another: notifications may be missing.

    Whatever they would have told has to be looked up. From here on none is missing.

    Attributes:
        lasted: for how long nobody listened, in seconds, since that was noticed.
        cause: how it was noticed.
    """

    __module__ = "edgepool"

    lasted: float
    cause: Exception


class Listening:
    """What listens, but for how it waits."""

    _coloured: Callable[[Step], Any]

    def __init__(
        self, pool: Any, make: Any, channels: tuple[str, ...], timeout: float | None
    ) -> None:
        if not channels:
            raise ValueError("listen needs the name of a channel")
        for channel in channels:
            _validate(channel)
        if timeout is not None:
            must_be_seconds(timeout)
        must_not_be_closed(pool)
        self._timeout: float = pool.timeout if timeout is None else timeout
        listen = partial(_have_listen, channels)  # must not refer to this object
        self._make = partial(way_past, pool, make, self._coloured, listen)
        self._name = pool.name
        # The pool of the one connection; none before the first use, and at the end.
        self._way: Any = None
        self._conn: Any = None
        self._received: deque[Notify | Gap] = deque()
        # When and how the latest connection was lost; None: there was none yet.
        self._lost: tuple[float, Exception] | None = None
        self._stopped = False
        pool._listeners.add(self)

    def _stop(self) -> None:
        """Have it end, whatever it waits for. From any thread; waits for nobody."""
        self._stopped = True
        conn, way = self._conn, self._way
        if conn is not None and not is_forked(conn):
            way._adapter.abort(conn)
        if way is not None:
            way._engine.tell(way._engine.core.close)

    async def _start(self) -> None:
        """Listen, for the first time."""
        self._must_go_on()
        if self._way is None:
            self._way = self._make()
            self._must_go_on()  # whoever stops it looks for a way, and found none
        if self._conn is None and self._lost is None:
            self._conn = await result_of(self._way.getconn(self._timeout))

    def _must_go_on(self) -> None:
        if self._stopped:
            raise PoolClosed(f"{self._name}: listening has ended")

    async def _get(self, timeout: float | None) -> Notify | Gap | None:
        if timeout is not None:
            must_be_seconds(timeout)
        await self._start()
        until = float("inf") if timeout is None else monotonic() + timeout
        while True:
            self._must_go_on()
            if self._received:
                return self._received.popleft()
            try:
                if self._conn is None:
                    await self._listen_again(until)
                else:
                    await self._receive(until)
            except psycopg.OperationalError as error:
                if isinstance(error, (PoolTimeout, PoolClosed)):
                    raise
                await self._lose(error)
            if not self._received and monotonic() >= until:
                return None

    @abstractmethod
    async def _receive(self, until: float) -> None:
        """Wait for what the server sends, and take all of it."""

    async def _lose(self, error: Exception) -> None:
        self._lost = monotonic(), error
        conn, self._conn = self._conn, None
        await result_of(self._way.putconn(conn))
        if not self._stopped:
            log.warning("%s: no longer listening: %s", self._name, error)

    async def _listen_again(self, until: float) -> None:
        assert self._lost is not None
        since, cause = self._lost
        try:
            left = max(until - monotonic(), 0.0)
            self._conn = await result_of(self._way.getconn(left))
        except ConnectFailed:
            raise
        except PoolTimeout:
            return
        lasted = monotonic() - since
        self._received.append(Gap(lasted, cause))
        log.info("%s: listening again after %.2f s", self._name, lasted)

    async def _end(self) -> None:
        """Leave nothing behind."""
        way, self._way = self._way, None
        conn, self._conn = self._conn, None
        self._received.clear()
        if conn is not None:
            await result_of(way.putconn(conn))
        if way is not None:
            await result_of(way.close())

    def __del__(self) -> None:
        """End what was left in the midst of a loop, as by `break`."""
        conn = getattr(self, "_conn", None)
        if conn is not None and not is_forked(conn):
            self._have_dropped(self._way, conn)

    @abstractmethod
    def _have_dropped(self, way: Any, conn: Any) -> None:
        """Have a connection closed that nobody is going to close."""


async def _have_listen(channels: tuple[str, ...], conn: BaseConnection[Any]) -> None:
    """Have a new connection listen, before it is anybody's."""
    listen = SQL("; ").join(
        SQL("LISTEN {}").format(Identifier(channel)) for channel in channels
    )
    statement = execute(conn.pgconn, listen.as_bytes(conn))
    await result_of(cast("Any", conn).wait(statement))


def _validate(channel: object) -> None:
    if not isinstance(channel, str):
        raise TypeError(f"a channel's name must be a string, not {channel!r}")
    length = len(channel.encode())
    if not 0 < length <= LONGEST or "\0" in channel:
        raise ValueError(
            f"a channel's name must have 1 to {LONGEST} bytes and no NUL,"
            f" not {length}: {channel!r}"
        )
