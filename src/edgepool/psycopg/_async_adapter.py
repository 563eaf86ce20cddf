"""How a pool of tasks handles psycopg's asyncio connections."""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from sys import _getframe
from typing import TYPE_CHECKING, Any
from weakref import ref

import psycopg
from psycopg_pool.abc import ACT

from .._adapter import PermanentError
from ._adapter_base import CommonAdapter, is_in_use, must_be_idle
from ._cancel import request_cancel, send_async, shut_down
from ._connecting import (
    ASK_AGAIN,
    attempted,
    let_go_of_frames,
    resolved,
    result_of,
    without_traces,
)
from ._handles import pgconn_behind, session_of
from ._leases import take_back
from ._session import tidied
from ._states import IDLE

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from ._credential_sources import TaskCredentials
    from ._credentials import Held


class AsyncConnectionAdapter(CommonAdapter[ACT]):
    """How a pool of tasks handles psycopg's asyncio connections."""

    _new_lock = staticmethod(asyncio.Lock)

    async def connect(self) -> ACT:
        """Open a connection."""
        try:
            return await self._connected()
        except psycopg.Error as error:
            raise without_traces(error) from error.__cause__

    async def _connected(self) -> ACT:
        conninfo, kwargs = await self._arguments(self.conninfo)
        if self._credentials is None:
            return await self._opened(conninfo, kwargs, None)
        held: Held = await self._credentials.get()
        try:
            return await self._opened(conninfo, kwargs, held)
        except psycopg.Error as error:
            if not self._may_be_renewed(error, held):
                raise
        return await self._opened(conninfo, kwargs, await self._credentials.get())

    async def arguments(self, conninfo: Any) -> tuple[str, dict[str, Any]]:
        """Return what somebody else is to connect with, as the pool does."""
        text, kwargs = await self._arguments(conninfo)
        held: Held | None = self._credentials and await self._credentials.get()
        return text, {**kwargs, **(held.arguments() if held else {})}

    async def _arguments(self, conninfo: Any) -> tuple[str, dict[str, Any]]:
        dsn = self._dsn(await result_of(resolved(conninfo)))
        kwargs: dict[str, Any] = await result_of(resolved(self.kwargs)) or {}
        return dsn.conninfo, self._completed(dsn, kwargs)

    async def _opened(
        self, conninfo: str, kwargs: dict[str, Any], held: Held | None
    ) -> ACT:
        if held is not None:
            kwargs = {**kwargs, **held.arguments()}
        try:
            conn: ACT = await self.connection_class.connect(conninfo, **kwargs)
        except BaseException as error:
            let_go_of_frames(error)
            if not isinstance(error, psycopg.Error):
                raise error
            whole = attempted(conninfo, kwargs)
            errors = self._connect_errors()
            kind = await errors.class_of_async(error, whole, ASK_AGAIN)
            raise errors.explained(error, kind) from None
        self._opened_with(conn, kwargs, held)
        return conn

    async def configure(self, conn: ACT, /) -> None:
        """Fit a new connection to what is before the server; have it configured."""
        await self.detection.look_async(conn)
        self._fit(conn)
        if self._configure is None:
            return
        conn._pool = self.pool()
        try:
            with self.detection.listening(conn.pgconn):
                await self._configure(conn)
            must_be_idle(conn, "configure", self._configure)
            self.detection.fit(conn, given=True)  # what it may have set
        except psycopg.ProgrammingError as error:
            raise PermanentError(str(error)) from error
        finally:
            conn._pool = None

    async def check(self, conn: ACT, /) -> None:
        """Run the user's check, or an empty query; raise if that fails.

        A transaction that it leaves open is rolled back.
        """
        with self._in_hand(conn) as mine:
            await self._check(mine)
            if mine.pgconn.transaction_status != IDLE:  # of the check, not a borrower's
                async with mine.lock:
                    await mine.wait(tidied(mine))
            self.placement.must_hold(mine.pgconn)

    async def reset(self, conn: ACT, /) -> bool:
        """Roll back what is open; clean the session, or run the user's reset."""
        if self._hopeless(conn):
            return False
        with self._in_hand(conn) as mine:
            if (tidying := self._tidying(mine)) is not None:
                async with mine.lock:
                    await mine.wait(tidying)
            kind, callback = self._callback_on_reset
            if callback is not None:
                await callback(mine)
                must_be_idle(mine, kind, callback)
                session_of(mine).restore(mine)
            return mine.pgconn.transaction_status == IDLE

    def _credentials_of(self, provider: Callable[[], Any]) -> TaskCredentials:
        # Here, so that it costs who has none no import.
        from ._credential_sources import TaskCredentials

        return TaskCredentials(provider, lambda: self._name, self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.pool()._engine.spawn(work)
        return task

    def _returning(self, conn: Callable[[], ACT | None]) -> Callable[[], Any]:
        async def close() -> None:
            mine = conn()
            pool: Any = None if mine is None else mine._pool
            if mine is None or pool is None:
                return  # returned already; the pool itself closes it otherwise
            if pool.close_returns:
                take_back(pool, mine, _getframe(1))
            else:
                await type(mine).close(mine)

        return close

    def _begin_session(self, conn: ACT) -> None:
        super()._begin_session(conn)
        # What psycopg calls when the task of a statement is cancelled.
        conn._try_cancel = partial(self._end_query, ref(conn.pgconn))  # type: ignore[method-assign]

    async def _end_query(
        self, find: Callable[[], PGconn | None], *, timeout: float = 0.0
    ) -> None:
        """Have the server end the query of a task that is cancelled.

        As psycopg does. But anyio goes on to cancel, at each await, and then psycopg
        gives the connection up, with what the server is doing: that is for `cancel`.
        """
        pgconn = find()
        if pgconn is None or (request := request_cancel(pgconn)) is None:
            return
        try:
            with suppress(psycopg.Error, OSError):
                await send_async(request, pgconn)
        except BaseException:
            self._cancellations.prepare(pgconn)
            raise

    async def cancel(self, conn: ACT, /) -> None:
        """Have the server end what it is doing for what is to be closed."""
        if (pgconn := pgconn_behind(conn)) is None:
            return
        if (request := self._cancellations.take(pgconn)) is not None:
            await send_async(request, pgconn)

    async def close(self, conn: ACT, /) -> None:
        """Close it for real, whatever `close_returns` says."""
        conn._pool = None
        if (pgconn := pgconn_behind(conn)) is not None:
            if is_in_use(conn):
                shut_down(pgconn)
                session_of(conn).forget()
                return
            conn.pgconn = pgconn
        await type(conn).close(conn)
