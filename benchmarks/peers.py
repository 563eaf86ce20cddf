"""The pools that are compared, each opened with its recommended settings.

All of them hand out real ``psycopg.Connection`` objects in autocommit mode, on the
same server; asyncpg's pool, which cannot, is marked as another driver. A pool is opened
for one sample and closed after it: no helper thread disturbs another's figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from operator import methodcaller
from typing import Any

import asyncpg
import psycopg
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn

import edgepool

from .model import BASELINE, JUDGED
from .sides import TASKS, THREADS, Side

TIMEOUT = 30.0
"""Every pool's limit for one borrow: psycopg_pool's and SQLAlchemy's own default."""


def without_liveness(pool: Any) -> None:
    """Switch off the liveness probe of an edgepool *pool* that is not open yet.

    For the row that asks what liveness costs; nothing else here reaches into edgepool.
    """
    engine = pool._engine
    settings = replace(engine.core.settings, probe_after=inf)
    engine.core.configure(engine.clock(), settings)


Work = Callable[[Any], Awaitable[None]]
"""What a request does with the connection that it borrowed."""


@dataclass(frozen=True)
class Settings:
    """What a row asks of every pool alike."""

    conninfo: str
    size: int
    min_size: int | None = None
    """Connections opened from the start; all of them (*size*) unless said otherwise."""

    connect_delay: float = 0.0
    """Seconds that opening a connection takes longer than it does here."""

    warm: bool = True
    """Whether all connections are open, and were lent once, before anything counts."""

    @property
    def minimum(self) -> int:
        return self.size if self.min_size is None else self.min_size


@dataclass(frozen=True)
class Peer:
    """An open pool, with the calls that the rows use."""

    connection: Callable[[], Any]
    """The pool's own context manager, in its own colour: for counting nanoseconds."""

    getconn: Callable[[], Any]
    putconn: Callable[[Any], Any]

    session: Callable[[], AbstractAsyncContextManager[Any]]
    """The same borrow, for scenarios (``sides.py``); gives the driver's connection."""

    select_one: Work

    async def attempt(self, work: Work | None = None) -> bool:
        """Make one request, `SELECT 1` unless told otherwise; say if it succeeded."""
        try:
            async with self.session() as conn:
                await (work or self.select_one)(conn)
        except Exception:
            return False
        return True


Opener = Callable[..., AbstractAsyncContextManager[Peer]]


@dataclass(frozen=True)
class Recipe:
    """How to open one peer on one side."""

    name: str
    side: Side
    opener: Opener
    options: dict[str, Any] = field(default_factory=dict)
    other_driver: bool = False

    @asynccontextmanager
    async def open(self, settings: Settings) -> AsyncIterator[Peer]:
        """Open the pool, warm if *settings* say so; close it afterwards."""
        async with self.opener(self.side, settings, **self.options) as peer:
            if settings.warm:
                async with AsyncExitStack() as borrowed:
                    for _ in range(settings.size):
                        await borrowed.enter_async_context(peer.session())
            yield peer


def _connection_class(side: Side, delay: float) -> Any:
    """Return psycopg's own class, or one that is slow to connect."""
    if not delay:
        return side.connection_class

    if side is THREADS:

        class SlowConnection(psycopg.Connection):
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                time.sleep(delay)
                return super().connect(*args, **kwargs)

        return SlowConnection

    class AsyncSlowConnection(psycopg.AsyncConnection):
        @classmethod
        async def connect(cls, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(delay)
            return await super().connect(*args, **kwargs)

    return AsyncSlowConnection


@asynccontextmanager
async def _psycopg_style(
    side: Side,
    settings: Settings,
    pool_class: Any,
    adjust: Callable[[Any], None] | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> AsyncIterator[Peer]:
    """Open a pool with psycopg_pool's interface: psycopg_pool's, or ours."""
    pool = pool_class(
        settings.conninfo,
        connection_class=_connection_class(side, settings.connect_delay),
        kwargs={"autocommit": True},
        min_size=settings.minimum,
        max_size=settings.size,
        timeout=timeout,
        open=False,
        **options,
    )
    if adjust is not None:
        adjust(pool)

    async with side.entered(pool):
        yield Peer(
            connection=pool.connection,
            getconn=pool.getconn,
            putconn=pool.putconn,
            session=lambda: side.entered(pool.connection()),
            select_one=side.select_one,
        )


class _Checkout:
    """A borrow from SQLAlchemy's pool as a context manager, which it does not have."""

    __slots__ = ("_connect", "_fairy")

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect

    def __enter__(self) -> Any:
        self._fairy = self._connect()
        return self._fairy.driver_connection

    def __exit__(self, *failure: object) -> None:
        self._fairy.close()


@asynccontextmanager
async def _sqlalchemy_threads(
    side: Side, settings: Settings, pre_ping: bool = False
) -> AsyncIterator[Peer]:
    """Open SQLAlchemy's QueuePool, without the engine around it.

    Its reset on return stays as it comes (a rollback, which psycopg keeps off the
    network when no transaction is open); without it the pool would lend dirty ones.
    """
    connect = _connection_class(side, settings.connect_delay).connect
    pool = QueuePool(
        partial(connect, settings.conninfo, autocommit=True),
        pool_size=settings.size,
        max_overflow=0,
        timeout=TIMEOUT,
        pre_ping=pre_ping,
        dialect=PGDialect_psycopg(dbapi=psycopg),
    )
    checkout = partial(_Checkout, pool.connect)
    try:
        yield Peer(
            connection=checkout,
            getconn=pool.connect,
            putconn=methodcaller("close"),
            session=lambda: side.entered(checkout()),
            select_one=side.select_one,
        )
    finally:
        pool.dispose()


@asynccontextmanager
async def _sqlalchemy_tasks(
    side: Side, settings: Settings, pre_ping: bool = False
) -> AsyncIterator[Peer]:
    """Open SQLAlchemy's asyncio pool; it is only to be had through an engine."""
    connect = _connection_class(side, settings.connect_delay).connect
    engine = create_async_engine(
        "postgresql+psycopg://",
        async_creator=partial(connect, settings.conninfo, autocommit=True),
        isolation_level="AUTOCOMMIT",
        pool_size=settings.size,
        max_overflow=0,
        pool_timeout=TIMEOUT,
        pool_pre_ping=pre_ping,
    )

    @asynccontextmanager
    async def session() -> AsyncIterator[Any]:
        async with engine.connect() as conn:
            yield (await conn.get_raw_connection()).driver_connection

    async def putconn(fairy: Any) -> None:
        await greenlet_spawn(fairy.close)

    try:
        yield Peer(
            connection=engine.connect,
            getconn=engine.raw_connection,
            putconn=putconn,
            session=session,
            select_one=side.select_one,
        )
    finally:
        await engine.dispose()


@asynccontextmanager
async def _asyncpg(side: Side, settings: Settings) -> AsyncIterator[Peer]:
    """Open asyncpg's pool: another driver, so its queries are not comparable."""
    where = conninfo_to_dict(settings.conninfo)

    async def connect(*args: Any, **kwargs: Any) -> Any:
        await side.sleep(settings.connect_delay)
        return await asyncpg.connect(*args, **kwargs)

    async def select_one(conn: Any) -> None:
        await conn.fetchval("SELECT 1")

    async with asyncpg.create_pool(
        host=where["host"],
        port=int(where.get("port") or 5432),
        user=where.get("user"),
        password=where.get("password"),
        database=where.get("dbname"),
        server_settings={"application_name": where["application_name"]},
        min_size=settings.minimum,
        max_size=settings.size,
        connect=connect if settings.connect_delay else None,
    ) as pool:
        acquire = partial(pool.acquire, timeout=TIMEOUT)
        yield Peer(
            connection=acquire,
            getconn=acquire,
            putconn=pool.release,
            session=acquire,
            select_one=select_one,
        )


def _family(side: Side, library: Any) -> Any:
    return library.ConnectionPool if side is THREADS else library.AsyncConnectionPool


def psycopg_pools(side: Side) -> Recipe:
    """psycopg_pool as its documentation shows it first: it checks nothing."""
    options = {"pool_class": _family(side, psycopg_pool)}
    return Recipe(BASELINE, side, _psycopg_style, options)


def psycopg_pools_checked(side: Side) -> Recipe:
    """psycopg_pool with the check that its documentation recommends."""
    pool_class = _family(side, psycopg_pool)
    options = {"pool_class": pool_class, "check": pool_class.check_connection}
    return Recipe(f"{BASELINE} + check", side, _psycopg_style, options)


def edgepools(side: Side) -> Recipe:
    """edgepool as shipped: its liveness is on."""
    options = {"pool_class": _family(side, edgepool)}
    return Recipe(JUDGED, side, _psycopg_style, options)


def edgepools_without_liveness(side: Side) -> Recipe:
    """edgepool with its liveness off, which no user would do."""
    options = {"pool_class": _family(side, edgepool), "adjust": without_liveness}
    return Recipe(f"{JUDGED}, liveness off", side, _psycopg_style, options)


def sqlalchemy(side: Side, pre_ping: bool = False) -> Recipe:
    """SQLAlchemy's QueuePool, or its asyncio form."""
    opener = _sqlalchemy_threads if side is THREADS else _sqlalchemy_tasks
    name = "SQLAlchemy + pre_ping" if pre_ping else "SQLAlchemy"
    return Recipe(name, side, opener, {"pre_ping": pre_ping})


def asyncpgs() -> Recipe:
    """asyncpg's pool, on asyncpg's connections."""
    return Recipe("asyncpg", TASKS, _asyncpg, other_driver=True)


def usual(side: Side) -> list[Recipe]:
    """The peers of most rows."""
    recipes = [psycopg_pools(side), edgepools(side), sqlalchemy(side)]
    return recipes if side is THREADS else [*recipes, asyncpgs()]
