"""What users write, as type checkers see it. Checked by mypy and pyright, never run."""

from __future__ import annotations

import psycopg
import psycopg_pool
from flask import Flask
from psycopg.rows import DictRow, TupleRow, dict_row
from typing_extensions import assert_type

from edgepool import (
    Adapter,
    AsyncAdapter,
    AsyncConnectionPool,
    AsyncLease,
    AsyncListener,
    AsyncNullConnectionPool,
    AsyncPool,
    ConnectFailed,
    ConnectionPool,
    Gap,
    Lease,
    Listener,
    NullConnectionPool,
    Pool,
    PoolClosed,
    PoolOverloaded,
    PoolStatistics,
    PoolTimeout,
    TooManyRequests,
    Watchful,
)
from edgepool.flask import EdgePool
from edgepool.testing import (
    AsyncFakeAdapter,
    AsyncTransactionalPool,
    FakeAdapter,
    FakeEvent,
    FakeServer,
    FakeSession,
    Faults,
    PoolPerLoop,
    TransactionalPool,
    run_jumping,
)

# --- a pool of anything ---------------------------------------------------------------


class Numbers:
    """An adapter, found to be one by its methods."""

    def connect(self) -> int:
        return 1

    def is_clean(self, resource: int, /) -> bool:
        return True

    def check(self, resource: int, /) -> None: ...

    def reset(self, resource: int, /) -> bool:
        return True

    def close(self, resource: int, /) -> None: ...


class AsyncNumbers:
    async def connect(self) -> int:
        return 1

    def is_clean(self, resource: int, /) -> bool:
        return True

    async def check(self, resource: int, /) -> None: ...

    async def reset(self, resource: int, /) -> bool:
        return True

    async def close(self, resource: int, /) -> None: ...


def a_pool_of_numbers() -> None:
    adapter: Adapter[int] = Numbers()
    pool = Pool(adapter, min_size=1, max_size=5, timeout=2.5)
    assert_type(pool, Pool[int])
    assert_type(Pool(Numbers()), Pool[int])
    assert_type(pool.borrow(), Lease[int])
    with pool as entered, pool.borrow(timeout=1) as number:
        assert_type(entered, Pool[int])
        assert_type(number, int)
    assert_type(pool.statistics(), PoolStatistics)
    assert_type(pool.statistics().failing_since, "float | None")


async def an_async_pool_of_numbers() -> None:
    adapter: AsyncAdapter[int] = AsyncNumbers()
    pool = AsyncPool(adapter)
    assert_type(pool, AsyncPool[int])
    assert_type(pool.borrow(), AsyncLease[int])
    async with pool as entered, pool.borrow(timeout=1) as number:
        assert_type(entered, AsyncPool[int])
        assert_type(number, int)


def adapters_are_not_mixed_up() -> None:
    Pool(AsyncNumbers())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncPool(Numbers())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- a pool of connections ------------------------------------------------------------


class MyConnection(psycopg.Connection[TupleRow]):
    def greet(self) -> str:
        return "hello"


class OtherConnection(psycopg.Connection[TupleRow]): ...


class MyAsyncConnection(psycopg.AsyncConnection[TupleRow]):
    def greet(self) -> str:
        return "hello"


def a_plain_pool(pool: ConnectionPool) -> None:
    assert_type(pool, ConnectionPool[psycopg.Connection[TupleRow]])
    with pool.connection() as conn:
        assert_type(conn, psycopg.Connection[TupleRow])
        assert_type(conn.execute("select 1").fetchone(), "TupleRow | None")
    conn = pool.getconn(timeout=1.0)
    assert_type(conn, psycopg.Connection[TupleRow])
    assert_type(pool.putconn(conn), None)
    assert_type(pool.get_stats(), "dict[str, int]")
    assert_type(pool.closed, bool)


async def a_plain_async_pool(pool: AsyncConnectionPool) -> None:
    assert_type(pool, AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]])
    async with pool, pool.connection() as conn:
        assert_type(conn, psycopg.AsyncConnection[TupleRow])
        cursor = await conn.execute("select 1")
        assert_type(await cursor.fetchone(), "TupleRow | None")
    conn = await pool.getconn()
    assert_type(conn, psycopg.AsyncConnection[TupleRow])
    await pool.putconn(conn)


def a_plain_pool_without_an_annotation() -> None:
    # Pyright leaves open what the connections are, as it does for psycopg_pool.
    pool = ConnectionPool("dbname=shop", min_size=2, max_size=10)
    assert_type(pool, ConnectionPool[psycopg.Connection[TupleRow]])  # pyright: ignore
    apool = AsyncConnectionPool("dbname=shop", open=False)
    assert_type(apool, AsyncConnectionPool[psycopg.AsyncConnection[TupleRow]])  # pyright: ignore


def a_connection_class_of_ones_own() -> None:
    pool = ConnectionPool(connection_class=MyConnection)
    assert_type(pool, ConnectionPool[MyConnection])
    with pool.connection() as conn:
        assert_type(conn.greet(), str)
    null_pool = NullConnectionPool(connection_class=MyConnection)
    assert_type(null_pool, NullConnectionPool[MyConnection])
    with null_pool.connection() as conn:
        assert_type(conn.greet(), str)


async def an_async_connection_class_of_ones_own() -> None:
    pool = AsyncConnectionPool(connection_class=MyAsyncConnection)
    assert_type(pool, AsyncConnectionPool[MyAsyncConnection])
    async with pool.connection() as conn:
        assert_type(conn.greet(), str)
    null_pool = AsyncNullConnectionPool(connection_class=MyAsyncConnection)
    assert_type(null_pool, AsyncNullConnectionPool[MyAsyncConnection])


def rows_of_another_kind() -> None:
    pool = ConnectionPool(
        connection_class=psycopg.Connection[DictRow], kwargs={"row_factory": dict_row}
    )
    assert_type(pool, ConnectionPool[psycopg.Connection[DictRow]])
    with pool.connection() as conn:
        assert_type(conn.execute("select 1 as one").fetchone(), "DictRow | None")


# --- callbacks ------------------------------------------------------------------------


def configure(conn: psycopg.Connection) -> None: ...


async def configure_async(conn: psycopg.AsyncConnection) -> None: ...


def password_of_the_hour() -> str:
    return "host=db password=..."


async def password_of_the_hour_async() -> str:
    return "host=db password=..."


def give_up(pool: psycopg_pool.ConnectionPool) -> None: ...


async def give_up_async(pool: psycopg_pool.AsyncConnectionPool) -> None: ...


def with_callbacks() -> None:
    ConnectionPool(
        password_of_the_hour,
        kwargs=lambda: {"autocommit": True},
        configure=configure,
        check=ConnectionPool.check_connection,
        reset=configure,
        reconnect_failed=give_up,
        max_connecting=4,
        check_after=30.0,
    )
    AsyncConnectionPool(
        password_of_the_hour_async,
        configure=configure_async,
        check=AsyncConnectionPool.check_connection,
        reset=configure_async,
        reconnect_failed=give_up_async,
    )
    AsyncConnectionPool(password_of_the_hour)


# --- past the pool --------------------------------------------------------------------


def past_the_pool(pool: ConnectionPool[MyConnection], null: NullConnectionPool) -> None:
    lease = pool.connection(lazy=True)
    with lease as late:
        assert_type(late, MyConnection)
        with lease.released():
            pass
    with pool.connection(5, lazy=bool(pool.closed)) as either:
        assert_type(either, MyConnection)
    assert_type(pool.fetch_one("select 1", row_factory=dict_row), DictRow | None)
    assert_type(pool.fetch_all("select %s", [1], row_factory=dict_row), list[DictRow])
    pool.fetch_value("select 1", timeout=1.0, prepare=True, binary=True)
    pool.execute("select 1").fetchall()
    with pool.direct(timeout=5) as conn:
        assert_type(conn, MyConnection)
    with null.direct() as plain:
        assert_type(plain, psycopg.Connection[TupleRow])
    with pool.listen("a", "b") as events:
        assert_type(events, Listener)
        for event in events:
            assert_type(event, psycopg.Notify | Gap)
            print(event.payload)  # type: ignore[union-attr]  # pyright: ignore
            if not isinstance(event, Gap):
                assert_type(event.payload, str)
        assert_type(events.get(1), psycopg.Notify | Gap | None)


async def past_the_async_pool(pool: AsyncConnectionPool[MyAsyncConnection]) -> None:
    lease = pool.connection(lazy=True)
    async with lease as late:
        assert_type(late, MyAsyncConnection)
        async with lease.released():
            pass
    assert_type(await pool.fetch_one("select 1", row_factory=dict_row), DictRow | None)
    await (await pool.execute("select 1")).fetchall()
    async with pool.direct() as conn:
        assert_type(conn, MyAsyncConnection)
    async with pool.listen("a") as events:
        assert_type(events, AsyncListener)
        async for event in events:
            assert_type(event, psycopg.Notify | Gap)


# --- in place of psycopg_pool's -------------------------------------------------------


def use(pool: psycopg_pool.ConnectionPool) -> None: ...


def use_async(pool: psycopg_pool.AsyncConnectionPool) -> None: ...


def use_mine(pool: psycopg_pool.ConnectionPool[MyConnection]) -> None: ...


def use_null(pool: psycopg_pool.NullConnectionPool) -> None: ...


def ours_goes_where_theirs_goes() -> None:
    use(ConnectionPool())
    use(NullConnectionPool())
    use_null(NullConnectionPool())
    use_async(AsyncConnectionPool())
    use_async(AsyncNullConnectionPool())
    use_mine(ConnectionPool(connection_class=MyConnection))
    use_mine(ConnectionPool(connection_class=OtherConnection))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    a_pool_of_anything: Pool[psycopg.Connection[TupleRow]] = ConnectionPool()
    assert_type(a_pool_of_anything.min_size, int)


def their_words_name_our_errors(pool: ConnectionPool) -> None:
    try:
        pool.wait()
    except psycopg_pool.PoolTimeout as error:
        assert_type(error, psycopg_pool.PoolTimeout)
    a_timeout: type[psycopg_pool.PoolTimeout] = PoolTimeout
    another: type[PoolTimeout] = ConnectFailed
    a_third: type[PoolTimeout] = PoolOverloaded
    a_refusal: type[psycopg_pool.TooManyRequests] = TooManyRequests
    an_end: type[psycopg_pool.PoolClosed] = PoolClosed
    the_drivers: list[type[psycopg.OperationalError]] = [
        a_timeout,
        another,
        a_third,
        a_refusal,
        an_end,
    ]
    print(the_drivers)


def what_a_timeout_tells(error: PoolTimeout) -> None:
    assert_type((error.size, error.in_use, error.idle), "tuple[int, int, int]")
    assert_type((error.opening, error.waiting), "tuple[int, int]")
    assert_type(error.waited, float)


# --- tests without a server -----------------------------------------------------------


def fakes() -> None:
    server = FakeServer(max_sessions=3, connect_delay=0.1)
    adapter = FakeAdapter(server)
    watchful: Watchful[FakeSession] = adapter
    assert_type(Pool(adapter), Pool[FakeSession])
    assert_type(AsyncPool(AsyncFakeAdapter(server)), AsyncPool[FakeSession])
    assert_type(server.sessions, "tuple[FakeSession, ...]")
    assert_type(server.log, "list[FakeEvent]")
    assert_type(server.log[0], FakeEvent)
    server.hang("connect")
    server.hang("conect")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(watchful)


async def number() -> int:
    return 1


def in_no_time() -> None:
    assert_type(run_jumping(number()), int)


def a_pool_as_the_environment_has_it(database: dict[str, object]) -> None:
    pool = ConnectionPool.from_env("SHOP_URL", direct="SHOP_DIRECT_URL", max_size=4)
    assert_type(pool, ConnectionPool[psycopg.Connection[TupleRow]])
    assert_type(
        AsyncNullConnectionPool.from_env(environ={}),
        AsyncNullConnectionPool[psycopg.AsyncConnection[TupleRow]],
    )
    ConnectionPool(database, direct_conninfo=lambda: "host=direct")
    AsyncConnectionPool({"host": "db1"}, direct_conninfo="host=direct")


def pools_for_tests() -> None:
    pool = TransactionalPool[psycopg.Connection[TupleRow]]("dbname=test", max_size=4)
    with pool, pool.connection() as conn:
        assert_type(conn, psycopg.Connection[TupleRow])
    assert_type(pool.shared_conninfo(), str)
    with Faults("host=localhost") as faults, faults.slow(0.1), faults.full():
        assert_type(faults.conninfo(dbname="test"), str)


async def pools_of_loops() -> None:
    made = AsyncTransactionalPool[psycopg.AsyncConnection[TupleRow]]("dbname=test")
    pools = PoolPerLoop(lambda: made)
    async with pools().connection() as conn:
        assert_type(conn, psycopg.AsyncConnection[TupleRow])
    assert_type(await pools().shared_conninfo(), str)


def a_pool_of_a_flask_application(app: Flask) -> None:
    db = EdgePool(app, name="reports", pool_class=NullConnectionPool, max_size=3)
    assert_type(db.connection, psycopg.Connection[TupleRow])
    assert_type(db.pool, ConnectionPool[psycopg.Connection[TupleRow]])

    by_name = EdgePool(connection_class=psycopg.Connection[DictRow])
    by_name.init_app(app)
    assert_type(by_name.connection, psycopg.Connection[DictRow])
    assert_type(by_name.give_back(), None)
    EdgePool("web")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
