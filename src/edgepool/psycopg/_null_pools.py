"""The pools that keep no connection: psycopg_pool's, for either colour."""

# pyright: reportPrivateUsage=false
# `connection` returns another context manager than psycopg_pool's:
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, cast

import psycopg_pool
from psycopg import AsyncConnection, Connection
from psycopg_pool.abc import (
    ACT,
    CT,
    AsyncConnectFailedCB,
    AsyncConnectionCB,
    AsyncConninfoParam,
    AsyncKwargsParam,
    ConnectFailedCB,
    ConnectionCB,
    ConninfoParam,
    KwargsParam,
)

from .._adapter import Adapter, AsyncAdapter
from .._core import Nested
from .._face import A
from ._arguments import takes_dsn
from ._async_pool import AsyncConnectionPool
from ._credentials import AsyncCredentialsProvider, CredentialsProvider
from ._error_classes import Classify
from ._face import PsycopgFace, own_engine
from ._pool import ConnectionPool
from ._pooler import Asked
from ._role import Role
from ._snapshot import C

UNLIMITED = sys.maxsize


class NullFace(PsycopgFace[C, A]):
    """What is different in a null pool: it keeps nothing that nobody waits for."""

    _keep_idle = False

    def _sizes(self, min_size: int, max_size: int | None) -> tuple[int, int]:
        if min_size != 0:
            raise ValueError(f"null pools must have min_size = 0, not {min_size}")
        return 0, max_size or UNLIMITED

    @property
    def max_size(self) -> int:
        """How many connections there are at most; 0 is no limit."""
        size = super().max_size
        return 0 if size == UNLIMITED else size


@own_engine
class NullConnectionPool(
    NullFace[CT, Adapter[CT]], ConnectionPool[CT], psycopg_pool.NullConnectionPool[CT]
):
    """A pool that keeps no connection: for use in front of an external pooler.

    It bounds how many there are (`max_size`; 0 or None: no limit) and queues borrowers;
    a returned connection goes to the first who waits, else it is closed. The arguments
    are those of `ConnectionPool`; `min_size` must be 0.
    """

    __module__ = "edgepool"

    @takes_dsn
    def __init__(
        self,
        conninfo: ConninfoParam | Mapping[str, Any] = "",
        *,
        connection_class: type[CT] = cast("type[CT]", Connection),  # noqa: B008
        kwargs: KwargsParam | None = None,
        min_size: int = 0,
        max_size: int | None = None,
        open: bool | None = None,
        configure: ConnectionCB[CT] | None = None,
        check: ConnectionCB[CT] | None = None,
        reset: ConnectionCB[CT] | Literal["clean"] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 60 * 60.0,
        max_idle: float = 10 * 60.0,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: ConnectFailedCB | None = None,
        num_workers: int = 3,
        max_connecting: int | None = None,
        check_after: float = 0.0,
        nested: Nested = "error",
        track_borrows: bool = False,
        shed_target: float | None = None,
        shed_interval: float = 1.0,
        direct_conninfo: ConninfoParam | Mapping[str, Any] | None = None,
        pooler: Asked = "auto",
        classify: Classify | None = None,
        credentials: CredentialsProvider | None = None,
        expire_with_credentials: bool = False,
        role: Role = "any",
    ) -> None:
        super().__init__(
            conninfo,
            connection_class=connection_class,
            kwargs=kwargs,
            min_size=min_size,
            max_size=max_size,
            open=open,
            configure=configure,
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
            pooler=pooler,
            classify=classify,
            credentials=credentials,
            expire_with_credentials=expire_with_credentials,
            role=role,
        )

    def wait(self, timeout: float = 30.0) -> None:
        """Open a connection, to see that it can be done; see `ConnectionPool.wait`."""
        self._must_be_open()
        try:
            with self.connection(timeout):
                pass
        except psycopg_pool.PoolTimeout:
            self._give_up()
            raise


@own_engine
class AsyncNullConnectionPool(
    NullFace[ACT, AsyncAdapter[ACT]],
    AsyncConnectionPool[ACT],
    psycopg_pool.AsyncNullConnectionPool[ACT],
):
    """A pool that keeps no connection: for use in front of an external pooler.

    It bounds how many there are (`max_size`; 0 or None: no limit) and queues borrowers;
    a returned connection goes to the first who waits, else it is closed. The arguments
    are those of `AsyncConnectionPool`; `min_size` must be 0.
    """

    __module__ = "edgepool"

    @takes_dsn
    def __init__(
        self,
        conninfo: AsyncConninfoParam | Mapping[str, Any] = "",
        *,
        connection_class: type[ACT] = cast("type[ACT]", AsyncConnection),  # noqa: B008
        kwargs: AsyncKwargsParam | None = None,
        min_size: int = 0,
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
        super().__init__(
            conninfo,
            connection_class=connection_class,
            kwargs=kwargs,
            min_size=min_size,
            max_size=max_size,
            open=open,
            configure=configure,
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
            pooler=pooler,
            classify=classify,
            credentials=credentials,
            expire_with_credentials=expire_with_credentials,
            role=role,
        )

    async def wait(self, timeout: float = 30.0) -> None:
        """Open a connection, to see that it works; see `AsyncConnectionPool.wait`."""
        self._must_be_open()
        try:
            async with self.connection(timeout):
                pass
        except psycopg_pool.PoolTimeout:
            await self.close()
            raise


# What is made beside a pool for a direct connection.
ConnectionPool._null_pool = NullConnectionPool
AsyncConnectionPool._null_pool = AsyncNullConnectionPool
