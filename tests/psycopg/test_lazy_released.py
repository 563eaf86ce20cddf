"""Given back in the midst of a block, and borrowed again: `lease.released()`."""

from __future__ import annotations

import psycopg
import pytest

from edgepool import (
    ConnectionReturned,
)
from support.conservation import conserved
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    in_and_out,
    pid,
    result,
    spawn,
)
from support.pg import application_name, at_rest, error_of, in_use, one, set_autocommit


async def test_what_is_released_is_for_others(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, timeout=1.0) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            same = conn
            async with entered(lease.released()):
                assert 0 == in_use(pool)

                async with entered(pool.connection()) as other:
                    assert other is not conn
                    assert 1 == await fetch(other, "select 1")

            assert 0 == in_use(pool)

            assert 1 == await fetch(conn, "select 1")
            assert conn is same
            assert 1 == in_use(pool)

        assert 0 == in_use(pool)
        assert 3 == pool.statistics().requests


async def test_after_it_another_connection_serves(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            cursor = conn.cursor()
            prepared = "select 1 where pg_backend_pid() = %s or true"
            await result(cursor.execute(prepared, [0], prepare=True))
            kept = await execute(conn, "select 7")
            first = pid(conn)
            await result(conn.commit())
            async with entered(lease.released()):
                taken = await result(pool.getconn())

                assert pid(taken) == first

            assert 1 == await one(conn)
            assert pid(conn) != first

            # Cursors from before go on, with what they have and on what there is.
            assert (7,) == await result(kept.fetchone())

            await result(cursor.execute("select pg_backend_pid()"))

            assert (pid(conn),) == await result(cursor.fetchone())

            await result(cursor.execute(prepared, [0], prepare=True))
            await result(cursor.executemany("select %s", [(1,), (2,)]))

            # No word of this has reached the other one.
            assert psycopg.pq.TransactionStatus.IDLE == taken.info.transaction_status

            await result(pool.putconn(taken))
        await conserved(pool, server, application_name(conninfo))


USES = {
    "execute": lambda conn, cursor: conn.execute("select 1"),
    "cursor": lambda conn, cursor: conn.cursor(),
    "commit": lambda conn, cursor: conn.commit(),
    "set_autocommit": lambda conn, cursor: conn.set_autocommit(True),
    "a cursor's execute": lambda conn, cursor: cursor.execute("select 1"),
    "transaction": lambda conn, cursor: in_and_out(conn.transaction()),
    "pipeline": lambda conn, cursor: in_and_out(conn.pipeline()),
    "fileno": lambda conn, cursor: conn.fileno(),
}


@pytest.mark.parametrize("used", [False, True], ids=["nothing borrowed", "borrowed"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_is_released_refuses_and_sends_nothing(colour, proxy, use, used):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        await at_rest(pool, 1)
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await set_autocommit(conn, True)
            cursor = conn.cursor()
            if used:
                await one(conn)
            async with entered(lease.released()):
                with (
                    proxy.recording() as said,
                    pytest.raises(ConnectionReturned, match=r"parity\.py"),
                ):
                    await result(use(conn, cursor))

                assert [] == said

            assert 1 == await one(conn)


async def open_a_transaction(conn):
    await execute(conn, "select 1")


async def fail_in_a_transaction(conn):
    assert isinstance(await error_of(execute(conn, "select 1/0")), psycopg.Error)


async def hold_a_cursor(conn):
    cursor = conn.cursor("held", withhold=True)
    await result(cursor.execute("select 1"))
    await result(conn.commit())
    conn.borrowers_own = cursor


async def open_two_phases(conn):
    await result(conn.tpc_begin("mine"))


OPEN = {
    open_a_transaction: r"INTRANS.*commit",
    fail_in_a_transaction: r"INERROR",
    hold_a_cursor: r"the cursor 'held'",
    open_two_phases: r"two-phase",
}


@pytest.mark.parametrize("leave", OPEN, ids=lambda f: f.__name__)
async def test_what_would_be_lost_is_named_and_kept(colour, conninfo, leave):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await leave(conn)
            with pytest.raises(psycopg.ProgrammingError, match=OPEN[leave]):
                async with entered(lease.released()):
                    pytest.fail("it was released")

            assert 1 == in_use(pool)

            if leave is hold_a_cursor:
                await result(conn.borrowers_own.close())
            elif leave is open_two_phases:
                await result(conn.tpc_rollback())
            else:
                await result(conn.rollback())
            async with entered(lease.released()):
                assert 0 == in_use(pool)


async def test_an_open_pipeline_is_named(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn, entered(conn.pipeline()):
            error = await error_of(in_and_out(lease.released()))

            assert isinstance(error, psycopg.ProgrammingError)
            assert "a pipeline is open" in str(error)


async def test_what_somebody_uses_is_not_released(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await set_autocommit(conn, True)
            busy = spawn(execute, conn, "select pg_sleep(0.2)")
            await eventually(
                lambda: (
                    psycopg.pq.TransactionStatus.ACTIVE == conn.info.transaction_status
                )
            )
            error = await error_of(in_and_out(lease.released()))

            assert isinstance(error, psycopg.ProgrammingError)
            assert "a statement is under way" in str(error)

            await busy


async def test_it_is_released_once_and_within_its_block(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        error = await error_of(in_and_out(lease.released()))

        assert "not entered" in str(error)

        async with entered(lease), entered(lease.released()):
            error = await error_of(in_and_out(lease.released()))

            assert isinstance(error, ConnectionReturned)

        error = await error_of(in_and_out(lease.released()))

        assert isinstance(error, ConnectionReturned)


async def test_an_exception_in_it_ends_the_block_in_order(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        with pytest.raises(ZeroDivisionError):
            async with entered(lease) as conn:
                await one(conn)
                async with entered(lease.released()):
                    raise ZeroDivisionError
        await conserved(pool, server, application_name(conninfo))


async def test_a_lost_session_may_be_released_and_replaced(
    colour, server, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=1) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            sessions.terminate()

            assert isinstance(
                await error_of(execute(conn, "select 1")), psycopg.OperationalError
            )

            async with entered(lease.released()):
                pass

            assert 1 == await one(conn)
        await conserved(pool, server, application_name(conninfo))


async def test_a_reset_sees_what_is_released(colour, conninfo):
    seen = []

    async def reset(conn):
        seen.append(pid(conn))

    async with colour.pool(conninfo, min_size=1, reset=colour.callback(reset)) as pool:
        lease = pool.connection(lazy=True)
        async with entered(lease) as conn:
            await one(conn)
            first = pid(conn)
            async with entered(lease.released()):
                await at_rest(pool, 1)

                assert [first] == seen

            await one(conn)
