"""What connects beside the pool: past a pooler, to listen, and to another address.

None of it takes a place of the pool: it comes from a pool that is made for it.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from psycopg_pool.abc import ACT, CT, AsyncConninfoParam, ConninfoParam

from .._adapter import Adapter, AsyncAdapter
from ._direct import AsyncDirectConnection, DirectConnection
from ._face import PsycopgFace
from ._listen import AsyncListener, Listener
from ._switch import move, scout

if TYPE_CHECKING:
    from ._async_pool import AsyncConnectionPool
    from ._null_pools import AsyncNullConnectionPool, NullConnectionPool
    from ._pool import ConnectionPool


class Beside(PsycopgFace[CT, Adapter[CT]]):
    """The calls of a pool for threads that connect beside it."""

    # What it makes for that; set where they are, for they derive from this class.
    _plain_pool: ClassVar[type[ConnectionPool[Any]]]
    _null_pool: ClassVar[type[NullConnectionPool[Any]]]

    def direct(self, timeout: float | None = None) -> DirectConnection[CT]:
        """Return a context manager that connects past the pool, and closes at the end.

        To `direct_conninfo`; without it, to the pool's own. For what needs a session of
        its own: migrations, advisory locks, COPY. It has the pool's arguments, is
        configured, and takes no place of the pool, which need not be open. At the end
        an open transaction is committed, or rolled back on an exception. `close` of the
        pool neither ends it nor waits for it.

        The first time, a pooler in the way is looked for: one that shares a session
        among its clients is refused if it is what `direct_conninfo` leads to, and
        warned of otherwise.

        Args:
            timeout: how long connecting may take, in seconds. Default: the pool's
                `timeout`.

        Raises (on entering):
            PoolTimeout: it took longer.
            ConnectFailed: it fails, and waiting would not help; or a pooler is in the
                way.
            PoolClosed: the pool was closed.
        """
        return DirectConnection(self, self._null_pool, timeout)

    def listen(self, *channels: str, timeout: float | None = None) -> Listener:
        """Listen to channels, and return an iterator of what was notified.

        It gives psycopg's `Notify`, and a `Gap` where the connection was lost, and
        notifications may have been. It has a direct connection of its own, as `direct`
        has, and gets another one, with backoff, when that is lost. It listens from
        its first use on, or from where it is entered by `with`.
        It ends when it is closed, or the pool is.

        Args:
            channels: their names, as they are: upper case is kept.
            timeout: how long the first connection may take, in seconds. Default: the
                pool's `timeout`.

        Raises:
            TypeError, ValueError: no channel, or a name that cannot be one; or
                `timeout` is no number.
            PoolClosed: the pool was closed.
            PoolTimeout, ConnectFailed (at the first use): as `direct`.
        """
        return Listener(self, self._plain_pool, channels, timeout)

    def switch(
        self,
        conninfo: ConninfoParam | Mapping[str, Any],
        *,
        over: float = 30.0,
        timeout: float | None = None,
    ) -> None:
        """Move to another address, without a gap: there first, then away from here.

        As many connections as the pool has, up to `max_connecting`, are opened there
        and configured, beside those of the pool, and are closed again. If one fails,
        nothing has changed. Then the pool connects there only, and its connections are
        replaced as by `drain(over=...)`; that is begun, and not waited for. If the call
        is interrupted before, nothing has changed either, and what it has opened is
        closed.

        Args:
            conninfo: the address, in any form that the constructor takes. Arguments of
                the pool in it have no effect, and a line in the log says so.
            over: in how many seconds the connections are replaced, one after the other.
            timeout: how long they may take, in seconds. Default: the pool's `timeout`.

        Raises:
            PoolTimeout: they took longer; with the latest error as the cause.
            ConnectFailed: they fail, and waiting would not help.
            TypeError, ValueError: it is no address, or contradicts `role`; or `over` is
                no number, negative or not finite, or `timeout` no number.
            PoolClosed: the pool was closed.
        """
        timeout = self.timeout if timeout is None else timeout
        pool = scout(self, self._plain_pool, conninfo, over)
        with pool:
            pool.wait(timeout)
        move(self, conninfo, over)

    # procrastinate calls these for the connection on which it listens, beside the pool.
    # That has to lead past a pooler.

    def _resolve_conninfo(self) -> str:
        return self._direct_arguments()[0]

    def _resolve_kwargs(self) -> dict[str, Any]:
        return self._direct_arguments()[1]

    def _direct_arguments(self) -> tuple[str, dict[str, Any]]:
        direct = self.direct_conninfo
        adapter: Any = self._adapter
        address = self.conninfo if direct is None else direct
        return cast("tuple[str, dict[str, Any]]", adapter.arguments(address))


class AsyncBeside(PsycopgFace[ACT, AsyncAdapter[ACT]]):
    """The calls of a pool for tasks that connect beside it."""

    # What it makes for that; set where they are, for they derive from this class.
    _plain_pool: ClassVar[type[AsyncConnectionPool[Any]]]
    _null_pool: ClassVar[type[AsyncNullConnectionPool[Any]]]

    def direct(self, timeout: float | None = None) -> AsyncDirectConnection[ACT]:
        """Return a context manager that connects past the pool, and closes at the end.

        To `direct_conninfo`; without it, to the pool's own. For what needs a session of
        its own: migrations, advisory locks, COPY. It has the pool's arguments, is
        configured, and takes no place of the pool, which need not be open. At the end
        an open transaction is committed, or rolled back on an exception. `close` of the
        pool neither ends it nor waits for it. Whoever is cancelled while it connects
        leaves no session behind.

        The first time, a pooler in the way is looked for: one that shares a session
        among its clients is refused if it is what `direct_conninfo` leads to, and
        warned of otherwise.

        Args:
            timeout: how long connecting may take, in seconds. Default: the pool's
                `timeout`.

        Raises (on entering):
            PoolTimeout: it took longer.
            ConnectFailed: it fails, and waiting would not help; or a pooler is in the
                way.
            PoolClosed: the pool was closed.
        """
        return AsyncDirectConnection(self, self._null_pool, timeout)

    def listen(self, *channels: str, timeout: float | None = None) -> AsyncListener:
        """Listen to channels, and return an iterator of what was notified.

        It gives psycopg's `Notify`, and a `Gap` where the connection was lost, and
        notifications may have been. It has a direct connection of its own, as `direct`
        has, and gets another one, with backoff, when that is lost. It listens from
        its first use on, or from where it is entered by `async with`.
        It ends when it is closed, or the pool is.

        Args:
            channels: their names, as they are: upper case is kept.
            timeout: how long the first connection may take, in seconds. Default: the
                pool's `timeout`.

        Raises:
            TypeError, ValueError: no channel, or a name that cannot be one; or
                `timeout` is no number.
            PoolClosed: the pool was closed.
            PoolTimeout, ConnectFailed (at the first use): as `direct`.
        """
        return AsyncListener(self, self._plain_pool, channels, timeout)

    async def switch(
        self,
        conninfo: AsyncConninfoParam | Mapping[str, Any],
        *,
        over: float = 30.0,
        timeout: float | None = None,
    ) -> None:
        """Move to another address, without a gap: there first, then away from here.

        As many connections as the pool has, up to `max_connecting`, are opened there
        and configured, beside those of the pool, and are closed again. If one fails,
        nothing has changed. Then the pool connects there only, and its connections are
        replaced as by `drain(over=...)`; that is begun, and not waited for. If the call
        is cancelled, nothing has changed either, and what it has opened is closed.

        Args:
            conninfo: the address, in any form that the constructor takes. Arguments of
                the pool in it have no effect, and a line in the log says so.
            over: in how many seconds the connections are replaced, one after the other.
            timeout: how long they may take, in seconds. Default: the pool's `timeout`.

        Raises:
            PoolTimeout: they took longer; with the latest error as the cause.
            ConnectFailed: they fail, and waiting would not help.
            TypeError, ValueError: it is no address, or contradicts `role`; or `over` is
                no number, negative or not finite, or `timeout` no number.
            PoolClosed: the pool was closed.
        """
        timeout = self.timeout if timeout is None else timeout
        pool = scout(self, self._plain_pool, conninfo, over)
        async with pool:
            await pool.wait(timeout)
        move(self, conninfo, over)

    # procrastinate calls these for the connection on which it listens, beside the pool.
    # That has to lead past a pooler.

    async def _resolve_conninfo(self) -> str:
        return (await self._direct_arguments())[0]

    async def _resolve_kwargs(self) -> dict[str, Any]:
        return (await self._direct_arguments())[1]

    async def _direct_arguments(self) -> tuple[str, dict[str, Any]]:
        direct = self.direct_conninfo
        adapter: Any = self._adapter
        address = self.conninfo if direct is None else direct
        return cast("tuple[str, dict[str, Any]]", await adapter.arguments(address))
