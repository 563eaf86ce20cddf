"""Pools whose borrowers share one transaction, which is rolled back in the end.

They are the pools that they are made from, but for the address to which they connect:
the one of a `SharedSession`, whose own connection is made as the pool was told to.
"""

# A pool's adapter, and what it keeps of who borrows:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import asyncio
import os
import threading
from _thread import get_ident
from abc import abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from sys import _getframe
from types import FrameType
from typing import Any, NoReturn, TypeAlias, cast
from weakref import finalize, ref

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from psycopg.waiting import wait_conn
from psycopg_pool.abc import ACT, CT

from edgepool import AsyncConnectionPool, ConnectionPool
from edgepool._places import place
from edgepool.psycopg._cancel import GLANCE, deliver, request_cancel
from edgepool.psycopg._connecting import resolved, result_of
from edgepool.psycopg._detection import Detection
from edgepool.psycopg._direct import note_place
from edgepool.psycopg._handles import session_of
from edgepool.psycopg._role import Placement

from ._shared_session import SharedSession
from ._turns import Borrower

# Who has borrowed a client, by its number.
Tethers: TypeAlias = dict[int, Any]


class _Transactional:
    """What both colours do differently from the pools that they are."""

    patience: float = 2.0
    """How long a transaction may be idle, in seconds, while another one waits for it:
    then that one is refused."""

    _session: SharedSession | None = None

    def _set_up_psycopg(self, adapter: Any, **settings: Any) -> None:
        self._real = real = copy(adapter)
        real.connection_class = self._plain
        self._tethers = tethers = cast("Tethers", {})
        introduce: Callable[[Any, Any], None] = adapter.introduce

        def introduced(entry: Any, conn: Any) -> None:
            number = conn.info.parameter_status("edgepool.client")
            tethers[int(number or 0)] = entry.tether
            introduce(entry, conn)
            # psycopg's own blocks all threads, and one of them is to hear it.
            conn.cancel = partial(_cancel, ref(conn))

        adapter.introduce = introduced
        # By the adapter's weak reference: who connects does not keep the pool.
        adapter.conninfo = lambda: adapter.pool().shared_conninfo()
        adapter.kwargs = self._own_kwargs(adapter.kwargs)
        # All that is about the real connection has gone with its adapter.
        adapter._credentials = None
        adapter.detection = Detection("none", lambda: adapter._name)
        adapter.placement = Placement("any", "", None)
        super()._set_up_psycopg(adapter, **{**settings, "direct_conninfo": None})  # type: ignore[misc]
        real.pool = adapter.pool

    _plain: type[Any]
    shared_conninfo: Callable[[], Any]

    @abstractmethod
    def _own_kwargs(self, kwargs: Any) -> Any: ...

    def _share(self, conn: Any) -> SharedSession:
        """Let others use a new connection, in a transaction."""
        self._roll_back()  # one that was lost still has a thread
        tethers = self._tethers

        def borrower(number: int) -> Borrower:
            if (tether := tethers.get(number)) is None:
                return Borrower()
            return Borrower(tether.owner, place(tether.note))

        try:
            session = SharedSession(conn.pgconn, self.patience, borrower)
        except BaseException:
            conn.pgconn.finish()
            raise
        finalize(self, session.close)
        self._session = session
        return session

    def _shared(self) -> SharedSession | None:
        session = self._session
        return None if session is None or session.lost else session

    def _roll_back(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _note_owner(self, conn: Any, owner: object, frame: FrameType) -> None:
        """Note who has borrowed without a `with`, and where; two may be nested."""
        session_of(conn).entry.tether.owner = owner
        note_place(conn, frame)

    def _refuse(self, what: str, why: str) -> NoReturn:
        raise psycopg.NotSupportedError(f"a transactional pool cannot {what}: {why}")


def _cancel(conn: Callable[[], Any]) -> None:
    """Do what `cancel` of psycopg's connections does."""
    mine = conn()
    pgconn = None if mine is None else mine.pgconn
    if pgconn is None or (request := request_cancel(pgconn)) is None:
        return
    # Once: the connection lives on, and another request would end what comes next.
    try:
        wait_conn(deliver(request), interval=GLANCE)
    finally:
        request.finish()


class _Plain(psycopg.Connection[Any]):
    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> _Plain:
        return super().connect(conninfo, **_in_clear(conninfo, kwargs))


class _AsyncPlain(psycopg.AsyncConnection[Any]):
    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> _AsyncPlain:
        return await super().connect(conninfo, **_in_clear(conninfo, kwargs))


def _of_libpq() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


def _in_clear(conninfo: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to connect with, without encryption unless that is asked for."""
    known = _of_libpq()
    given = {name: value for name, value in kwargs.items() if name in known}
    said = conninfo_to_dict(conninfo, **given)
    for name in ("sslmode", "gssencmode"):
        if name not in said and f"PG{name.upper()}" not in os.environ:
            given[name] = "disable"
    return {**given, "autocommit": True}


def _without_address(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    known = _of_libpq()
    return {name: value for name, value in kwargs.items() if name not in known}


class TransactionalPool(_Transactional, ConnectionPool[CT]):
    """A `ConnectionPool` for tests: whatever is done in it is rolled back by `close`.

    All its connections share one session of the server, in one transaction. To whoever
    borrows them they are as others: a commit is kept, and seen by other borrowers, a
    rollback undoes what was done since the last one, `autocommit` works, errors end the
    transaction in which they happen. In the server all that is done with savepoints.

    One transaction runs at a time, others wait for its end. If one thread has borrowed
    two connections, the transaction of one runs inside that of the other. One that has
    only read, or has failed, makes way. Who waits while nothing happens for `patience`
    seconds is refused, with `psycopg.errors.LockNotAvailable`, which says who is in the
    way. As PostgreSQL sees one transaction, `now()` stands still in it, what is set by
    `SET LOCAL` lasts beyond a commit, `ON COMMIT` does nothing to temporary tables, and
    an isolation level is ignored. What `PREPARE` in SQL makes is there for all of them.

    Arguments and methods are those of `ConnectionPool`. `direct` leads to the same
    transaction, whatever `direct_conninfo` is; `listen` and `switch` are refused.
    """

    __module__ = "edgepool.testing"

    _plain = _Plain

    def _own_kwargs(self, kwargs: Any) -> Any:
        if callable(kwargs):
            give = cast("Callable[[], Mapping[str, Any] | None]", kwargs)
            return lambda: _without_address(give() or {})
        return _without_address(kwargs or {})

    def _set_up_psycopg(self, adapter: Any, **settings: Any) -> None:
        self._starting = threading.Lock()
        super()._set_up_psycopg(adapter, **settings)

    def shared_conninfo(self) -> str:
        """Return what connects to the transaction, for whoever does not take a pool.

        Begins it, if that has not happened.

        Raises:
            psycopg.Error: connecting fails.
        """
        with self._starting:
            session = self._shared() or self._share(self._real.connect())
        return session.conninfo()

    def getconn(self, timeout: float | None = None) -> CT:
        """Borrow a connection, to be returned with `putconn`; see `connection`."""
        conn = super().getconn(timeout)
        self._note_owner(conn, get_ident(), _getframe(1))
        return conn

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool, and roll back; see `ConnectionPool.close`."""
        try:
            super().close(timeout)
        finally:
            self._roll_back()

    def listen(self, *channels: str, timeout: float | None = None) -> NoReturn:
        """Refuse: nothing is notified by what is never committed."""
        self._refuse("listen", "what is never committed is never notified")

    def switch(
        self, conninfo: Any, *, over: float = 30.0, timeout: float | None = None
    ) -> NoReturn:
        """Refuse: the transaction is where it is."""
        self._refuse("switch", "its transaction is where it is")


class AsyncTransactionalPool(_Transactional, AsyncConnectionPool[ACT]):
    """An `AsyncConnectionPool` whose work is rolled back; see `TransactionalPool`.

    What holds there of threads, holds here of tasks.
    """

    __module__ = "edgepool.testing"

    _plain = _AsyncPlain

    def _own_kwargs(self, kwargs: Any) -> Any:
        if not callable(kwargs):
            return _without_address(kwargs or {})

        async def own() -> dict[str, Any]:
            return _without_address(await result_of(resolved(kwargs)) or {})

        return own

    def _set_up_psycopg(self, adapter: Any, **settings: Any) -> None:
        self._starting = asyncio.Lock()
        super()._set_up_psycopg(adapter, **settings)

    async def shared_conninfo(self) -> str:
        """Return what connects to the transaction, for whoever does not take a pool.

        Begins it, if that has not happened.

        Raises:
            psycopg.Error: connecting fails.
        """
        async with self._starting:
            session = self._shared() or self._share(await self._real.connect())
        return session.conninfo()

    async def getconn(self, timeout: float | None = None) -> ACT:
        """Borrow a connection, to be returned with `putconn`; see `connection`."""
        conn = await super().getconn(timeout)
        self._note_owner(conn, id(asyncio.current_task()), _getframe(1))
        return conn

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool, and roll back; see `ConnectionPool.close`."""
        try:
            await super().close(timeout)
        finally:
            self._roll_back()
            self._starting = asyncio.Lock()  # another loop may open it again

    def listen(self, *channels: str, timeout: float | None = None) -> NoReturn:
        """Refuse: nothing is notified by what is never committed."""
        self._refuse("listen", "what is never committed is never notified")

    async def switch(
        self, conninfo: Any, *, over: float = 30.0, timeout: float | None = None
    ) -> NoReturn:
        """Refuse: the transaction is where it is."""
        self._refuse("switch", "its transaction is where it is")
