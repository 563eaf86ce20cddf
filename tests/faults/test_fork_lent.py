"""What is lent at a fork stays the parent's; the child is told so."""

from __future__ import annotations

import gc
import os

import psycopg
import pytest

from edgepool import BorrowedBeforeFork
from support.conservation import conserved
from support.forks import Child
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    in_and_out,
    lend,
    result,
    spawn,
)
from support.pg import (
    application_name,
    at_rest,
    error_of,
    set_autocommit,
    size,
)


async def stream_on(cursor):
    if isinstance(cursor, psycopg.AsyncCursor):
        return [row async for row in cursor.stream("select 1")]
    return list(cursor.stream("select 1"))


USES = {
    "execute": lambda conn, cursor, named: execute(conn, "select 1"),
    "commit": lambda conn, cursor, named: conn.commit(),
    "rollback": lambda conn, cursor, named: conn.rollback(),
    "info": lambda conn, cursor, named: conn.info,
    "transaction": lambda conn, cursor, named: in_and_out(conn.transaction()),
    "pipeline": lambda conn, cursor, named: in_and_out(conn.pipeline()),
    "autocommit": lambda conn, cursor, named: set_autocommit(conn, True),
    "a cursor": lambda conn, cursor, named: cursor.execute("select 1"),
    "executemany": lambda conn, cursor, named: cursor.executemany("select 1", [[], []]),
    "copy": lambda conn, cursor, named: in_and_out(cursor.copy("copy t from stdin")),
    "stream": lambda conn, cursor, named: stream_on(cursor),
    "a server-side cursor": lambda conn, cursor, named: named.fetchone(),
}


async def use(name, *arguments):
    await result(USES[name](*arguments))


async def test_using_in_the_child_what_the_parent_has_borrowed_raises(colour, way):
    async def in_the_child():
        said = {n: await error_of(use(n, conn, cursor, named)) for n in USES}
        await result(conn.cancel_safe())  # nothing, not the parent's query
        await result(conn.close())
        return {n: (type(e), str(e)) for n, e in said.items()}, repr(conn)

    async with colour.pool(way.conninfo, min_size=1, name="web") as pool:
        async with entered(pool.connection()) as conn:
            cursor, named = conn.cursor(), conn.cursor("named")
            await execute(conn, "create temporary table t (x int)")
            await result(named.execute("select generate_series(1, 3)"))
            await result(named.fetchone())
            said, shown = await Child(colour, in_the_child).outcome()

            assert dict.fromkeys(USES, BorrowedBeforeFork) == {
                name: error for name, (error, _) in said.items()
            }
            assert all(
                f"'web' opened this connection in process {os.getpid()}" in text
                for _, text in said.values()
            )
            assert "[INHERITED]" in shown
            assert (2,) == await result(named.fetchone())
            await execute(conn, "insert into t values (1)")

            assert 1 == await fetch(conn, "select count(*) from t")

            await result(named.close())

        await conserved(pool, way.server, way.name)


async def test_a_stream_of_the_parent_raises_in_the_child_and_goes_on_in_the_parent(
    colour, way
):
    async def following():
        if colour.asynchronous:
            return await anext(rows, None)
        return next(rows, None)

    async def in_the_child():
        return type(await error_of(following()))

    async with colour.pool(way.conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            rows = conn.cursor().stream("select generate_series(1, 1000)")
            seen = [await following()]

            assert BorrowedBeforeFork is await Child(colour, in_the_child).outcome()

            seen += [await following() for _ in range(1000)]

            assert [*((n,) for n in range(1, 1001)), None] == seen

        await conserved(pool, way.server, way.name)


async def leave(lease):
    if hasattr(lease, "__aexit__"):
        await lease.__aexit__(None, None, None)
    else:
        lease.__exit__(None, None, None)


async def test_what_the_parent_would_borrow_late_the_child_borrows_for_itself(
    colour, conninfo, server
):
    async def in_the_child():
        got = []
        for conn in (unused, released):
            got.append(await fetch(conn, "select pg_backend_pid()"))
            await result(conn.commit())
        with pytest.raises(BorrowedBeforeFork):
            await execute(used, "select 1")
        for lease in leases:
            await leave(lease)
        gc.collect()
        return got, size(pool), pool.statistics().in_use

    async with colour.pool(conninfo, min_size=1, max_size=2) as pool:
        leases = [pool.connection(lazy=True) for _ in range(3)]
        unused, used, released = [await enter(lease) for lease in leases]
        await execute(released, "select 1")
        await result(released.commit())
        backend = await fetch(used, "select pg_backend_pid()")
        async with entered(leases[2].released()):
            pass
        pids, *numbers = await Child(colour, in_the_child).outcome()

        assert [2, 0] == numbers
        assert backend not in pids

        for conn in (unused, used, released):
            assert 1 == await fetch(conn, "select 1")

            if conn is not used:
                await result(conn.commit())
                await leave(leases[0 if conn is unused else 2])
        await leave(leases[1])
        await conserved(pool, server, application_name(conninfo))


async def enter(lease):
    return await result(
        lease.__aenter__() if hasattr(lease, "__aenter__") else lease.__enter__()
    )


async def test_what_the_parent_has_borrowed_may_be_returned_in_the_child(
    colour, conninfo, server
):
    async def in_the_child():
        await result(pool.putconn(conn))
        await result(pool.putconn(returning_conn))
        await result(closing.close())
        await leave(lease)
        gc.collect()
        await lend(pool)
        return size(pool), pool.statistics().bad_returns

    async with colour.pool(conninfo, max_size=4, close_returns=True) as pool:
        conn = await result(pool.getconn())
        returning_conn = await result(pool.getconn())
        closing = await result(pool.getconn())
        lease = pool.connection()
        await (lease.__aenter__() if colour.asynchronous else result(lease.__enter__()))
        await execute(conn, "select 1")  # in a transaction

        assert (4, 0) == await Child(colour, in_the_child).outcome()

        for each in (conn, returning_conn, closing):
            assert 1 == await fetch(each, "select 1")
            await result(each.rollback())
            await result(pool.putconn(each))
        await leave(lease)
        await conserved(pool, server, application_name(conninfo))


async def test_the_query_of_another_thread_or_task_goes_on_in_the_parent(colour, way):
    async def query():
        async with entered(pool.connection()) as conn:
            return await fetch(conn, "select 'done' from pg_sleep(0.5)")

    async def in_the_child():
        gc.collect()
        return await lend(pool)

    async with colour.pool(way.conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        running = spawn(query)
        await eventually(lambda: pool.statistics().in_use == 1)
        child = Child(colour, in_the_child)

        assert await child.outcome() > 0
        assert "done" == await running
        await conserved(pool, way.server, way.name)
