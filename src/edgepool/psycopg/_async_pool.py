"""AsyncConnectionPool: psycopg_pool's, for asyncio."""

# Private by name, but psycopg's contract with a pool, and the leases' with theirs:
# pyright: reportPrivateUsage=false
# pyright: reportUnknownArgumentType=false
# `connection` returns another context manager than psycopg_pool's:
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from sys import _getframe
from typing import Any, Literal, cast, overload

import psycopg_pool
from psycopg import AsyncConnection
from psycopg_pool.abc import (
    ACT,
    AsyncConnectFailedCB,
    AsyncConnectionCB,
    AsyncConninfoParam,
    AsyncKwargsParam,
)

from .._async import AsyncPool
from .._core import Nested, must_be_seconds
from ._arguments import takes_dsn
from ._async_adapter import AsyncConnectionAdapter
from ._beside import AsyncBeside
from ._credentials import AsyncCredentialsProvider
from ._error_classes import Classify
from ._face import own_engine
from ._lazy import AsyncLazyLease
from ._leases import AsyncConnectionLease, lend, take_back
from ._one_shot import AsyncOneShots
from ._pooler import Asked
from ._role import Role


@own_engine
class AsyncConnectionPool(
    AsyncOneShots[ACT],
    AsyncBeside[ACT],
    AsyncPool[ACT],
    psycopg_pool.AsyncConnectionPool[ACT],
):
    """A pool of psycopg connections, for the tasks of one event loop.

    A strict superset of `psycopg_pool.AsyncConnectionPool`, and for `isinstance` one of
    them. What is different on purpose: docs/how-to/from-psycopg-pool.md.

    Args:
        conninfo: the connection string or another DSN, which may hold arguments that
            the call does not give (docs/reference/dsn.md); or a function or coroutine
            function that gives it for each connect.
        connection_class: the class of the connections; its `connect` is called.
        kwargs: further arguments of `connect`, or what gives them, in the same way.
        min_size: how many connections to keep open.
        max_size: how many there are at most, in whatever state. Default: min_size.
        open: False: opened when `open()` or `async with` says so. None: then, or at the
            first borrow; so a pool can be made before there is an event loop. True:
            now; needs a running event loop, and psycopg_pool advises against it.
        configure: awaited with each new connection; must leave it idle. This and the
            next two are coroutine functions.
        check: called with a connection before it is lent; raises if it is not to be
            used, and another one takes its place. Default: the connection is only
            probed, without a round trip.
        reset: called with each connection that was returned; must leave it idle.
            "clean": the server's side of the session is brought back to where it
            began, and `configure` is called again.
        name: for log lines and errors. Default: `pool-N`.
        close_returns: `conn.close()` returns the connection to the pool.
        timeout: how long a borrow may take, in seconds: queue, connect, configure and
            check together. 0: take an idle connection, or be refused at once.
        max_waiting: how many may wait; one more is refused at once. 0: no limit.
        max_lifetime: the age in seconds at which a connection is replaced. Up to 5 %
            is taken off, drawn once for each.
        max_idle: how long one beyond min_size may stay unused, in seconds.
        reconnect_timeout: how long connecting may fail, in seconds, before
            `reconnect_failed` is called. The pool goes on trying in any case.
        reconnect_failed: called with the pool when connecting has failed for so long.
        num_workers: there are no standing workers; a number other than 3 is taken as
            `max_connecting`, unless that is given.
        max_connecting: how many connections are opened at the same time, at most.
            One while connecting fails. Default: 10.
        check_after: a check is skipped on a connection that was proven alive within so
            many seconds; above 0, idle ones are also checked in the background that
            often, with an empty query if there is no `check`. Default: 0.
        nested: what becomes of a thread or task that would wait for itself, since all
            connections are lent to those who wait for one. "error": it is refused at
            once; "wait": it waits for its timeout.
        track_borrows: note who borrows what, and where: for the warnings about what
            was never returned.
        shed_target: how long a wait may be that is no sign of an overload, in seconds.
            In an overload, whoever has waited for twice as long is sent away with
            `PoolOverloaded`. Default: None, nobody is.
        shed_interval: it is an overload if for so many seconds nobody who waited was
            served within shed_target. Default: 1.
        direct_conninfo: the way to the database past an external pooler, in the same
            forms: for migrations, LISTEN, advisory locks and COPY. Default: None.
        pooler: what is in front of the server: "none", or PgBouncer or the like in
            "session" or "transaction" mode. "auto": found out at the first connection;
            behind one that may mix them up, prepared statements are off.
        classify: called with an error of a connect, or of psycopg's that ends a block;
            says what it means to the pool, an `ErrorClass`. None: what the table in
            docs/reference/errors.md says, which is also the default.
        credentials: a function, or a coroutine function, that gives the password, or a
            `Credential`. It is asked once for many connects, ahead of its end, and
            once more if the server does not admit what it gave.
        expire_with_credentials: replace a connection when the credential with which it
            was opened expires. Default: it lives on.
        role: which of the servers to connect to that the DSN leads to, and to leave
            when it is another by now: "primary", "standby", or "any", as the DSN's
            `target_session_attrs` says. Default: "any".

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of range; says which, its value and the limit.
            Or the DSN is not one of PostgreSQL. There is no secret in it.
    """

    __module__ = "edgepool"

    _is_shared = False  # nothing comes between psycopg's look and what it sends

    @takes_dsn
    def __init__(
        self,
        conninfo: AsyncConninfoParam | Mapping[str, Any] = "",
        *,
        connection_class: type[ACT] = cast("type[ACT]", AsyncConnection),  # noqa: B008
        kwargs: AsyncKwargsParam | None = None,
        min_size: int = 4,
        max_size: int | None = None,
        open: bool | None = None,
        configure: AsyncConnectionCB[ACT] | None = None,
        check: AsyncConnectionCB[ACT] | None = None,
        reset: AsyncConnectionCB[ACT] | Literal["clean"] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 60 * 60.0,
        max_idle: float = 10 * 60.0,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: AsyncConnectFailedCB | None = None,
        num_workers: int = 3,
        max_connecting: int | None = None,
        check_after: float = 0.0,
        nested: Nested = "error",
        track_borrows: bool = False,
        shed_target: float | None = None,
        shed_interval: float = 1.0,
        direct_conninfo: AsyncConninfoParam | Mapping[str, Any] | None = None,
        pooler: Asked = "auto",
        classify: Classify | None = None,
        credentials: AsyncCredentialsProvider | None = None,
        expire_with_credentials: bool = False,
        role: Role = "any",
    ) -> None:
        if open:
            warnings.warn(
                f"opening the async pool {type(self).__name__} in the constructor is"
                " deprecated; use `await pool.open()` or `async with`",
                RuntimeWarning,
                stacklevel=3,
            )
        adapter = AsyncConnectionAdapter[ACT](
            conninfo,
            connection_class,
            kwargs,
            configure,
            check or self.check_connection,
            reset,
            pooler,
            classify=classify,
            credentials=credentials,
            expire_with_credentials=expire_with_credentials,
            role=role,
        )
        self._set_up_psycopg(
            adapter,
            min_size=min_size,
            max_size=max_size,
            open=open,
            check=check,
            reset=reset,
            name=name,
            close_returns=close_returns,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            reconnect_failed=reconnect_failed,
            num_workers=num_workers,
            max_connecting=max_connecting,
            check_after=check_after,
            nested=nested,
            track_borrows=track_borrows,
            shed_target=shed_target,
            shed_interval=shed_interval,
            direct_conninfo=direct_conninfo,
        )

    def __del__(self) -> None:
        """Do nothing; psycopg_pool waits for its tasks here."""

    @overload  # type: ignore[override]
    def connection(
        self, timeout: float | None = None, *, lazy: Literal[False] = False
    ) -> AsyncConnectionLease[ACT]: ...

    @overload
    def connection(
        self, timeout: float | None = None, *, lazy: Literal[True]
    ) -> AsyncLazyLease[ACT]: ...

    @overload
    def connection(
        self, timeout: float | None = None, *, lazy: bool
    ) -> AsyncConnectionLease[ACT]: ...

    def connection(
        self, timeout: float | None = None, *, lazy: bool = False
    ) -> AsyncConnectionLease[ACT]:
        """Return a context manager that borrows a connection and returns it at the end.

        At the end an open transaction is committed, or rolled back on an exception, as
        psycopg's `with connection` does. Whoever is cancelled while he waits leaves the
        queue, and what he was given already goes to the next. Whoever is cancelled in
        the block has his query cancelled on the server.

        Args:
            timeout: how long the borrow may take, in seconds; the queue, the connect
                and the check together. 0: take an idle connection, or be refused at
                once. Default: the pool's `timeout`.
            lazy: borrow at the first statement of the block, and not on entering; if
                there is none, nothing is borrowed. Such a lease can be `released()`.

        Raises (on entering; or, if lazy, at the first statement):
            PoolTimeout: none became available in time.
            ConnectFailed: connecting fails, and waiting would not help.
            TooManyRequests: `max_waiting` others wait already.
            PoolOverloaded: more come than can be served; see `shed_target`.
            PoolClosed: the pool is not open, or was closed meanwhile.
            TypeError, ValueError: `timeout` is no number.
        """
        if lazy:
            return AsyncLazyLease(self, timeout)
        return AsyncConnectionLease(self, timeout)

    async def getconn(self, timeout: float | None = None) -> ACT:
        """Borrow a connection, to be returned with `putconn`; see `connection`."""
        engine = self._engine
        now = engine.clock()
        entry = engine.core.borrow(now, None)
        if entry is None or now >= entry.due_at:
            entry = await engine.settle(entry, now, timeout, None)
        conn: ACT = lend(self, entry)
        if engine.tracker is not None:
            engine.tracker.note(entry.tether, 1)
        return conn

    async def putconn(self, conn: ACT) -> None:
        """Return a connection that `getconn` gave.

        An open transaction is rolled back, in the background.

        Raises:
            ValueError: it is not lent by this pool; says where it was returned.
        """
        take_back(self, conn, _getframe(1))

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool; see `AsyncPool.close`. What listens ends at once."""
        must_be_seconds(timeout)
        self._stop_listeners()
        await super().close(timeout)

    @staticmethod
    async def check_connection(conn: ACT) -> None:
        """Send an empty query, in a round trip; raise if the connection is dead.

        For use as the argument `check`.
        """
        if conn.autocommit:
            await conn.execute("")
            return
        await conn.set_autocommit(True)
        try:
            await conn.execute("")
        finally:
            with suppress(Exception):  # it is closed, and its error more telling
                await conn.set_autocommit(False)


# What is made beside a pool to listen, and to move.
AsyncConnectionPool._plain_pool = AsyncConnectionPool
