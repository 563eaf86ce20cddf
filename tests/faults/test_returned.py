"""What was returned, or never was: refused, found, put back as it had been."""

from __future__ import annotations

import contextlib
import gc
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.range import Range

from edgepool import ConnectionPool, ConnectionReturned, NestedBorrow, PoolTimeout
from support.conservation import conserved
from support.parity import (
    entered,
    eventually,
    execute,
    fetch,
    in_and_out,
    in_event_loop,
    lend,
    pid,
    result,
    spawn,
    waiter,
)
from support.pg import (
    THREADS,
    application_name,
    at_rest,
    set_autocommit,
)

UTC = timezone.utc

# --- used after the return ------------------------------------------------------------


USES = {
    "execute": lambda conn, cursor: conn.execute("select 1"),
    "cursor": lambda conn, cursor: conn.cursor(),
    "commit": lambda conn, cursor: conn.commit(),
    "rollback": lambda conn, cursor: conn.rollback(),
    "close": lambda conn, cursor: conn.close(),
    "fileno": lambda conn, cursor: conn.fileno(),
    "a cursor's execute": lambda conn, cursor: cursor.execute("select 1"),
    "a cursor's executemany": lambda conn, cursor: cursor.executemany(
        "select %s", [(1,), (2,)]
    ),
    "prepare_threshold": lambda conn, cursor: setattr(conn, "prepare_threshold", 1),
    "adapters": lambda conn, cursor: conn.adapters.register_loader(23, None),
    "transaction": lambda conn, cursor: in_and_out(conn.transaction()),
    "pipeline": lambda conn, cursor: in_and_out(conn.pipeline()),
    "a cursor's copy": lambda conn, cursor: in_and_out(
        cursor.copy("copy t from stdin")
    ),
    "a cursor's stream": lambda conn, cursor: all_of(cursor.stream("select 1")),
}


async def all_of(rows):
    if hasattr(rows, "__aiter__"):
        return [row async for row in rows]
    return list(rows)


@pytest.mark.parametrize("lent_again", [False, True], ids=["idle", "lent again"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_what_was_returned_refuses_and_sends_nothing(
    colour, proxy, use, lent_again
):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await set_autocommit(conn, True)
            cursor = conn.cursor()
        other = await result(pool.getconn()) if lent_again else None
        with proxy.recording() as said:
            if use is USES["prepare_threshold"] or use is USES["adapters"]:
                # Of what is idle nobody hears; of what is lent the borrower would.
                if lent_again:
                    with suppress(ConnectionReturned):
                        use(conn, cursor)

                    assert 5 == other.prepare_threshold
            else:
                with pytest.raises(psycopg.InterfaceError, match="returned") as caught:
                    await result(use(conn, cursor))

                assert isinstance(caught.value, ConnectionReturned)
                assert "parity.py" in str(caught.value)

        assert [] == said

        if other is not None:
            assert await fetch(other, "select 1") == 1
            await result(pool.putconn(other))


# psycopg's own: who kept a cursor past the return has not closed it.
@pytest.mark.filterwarnings("ignore:.*deleted while still open:ResourceWarning")
@pytest.mark.parametrize("lent_again", [False, True], ids=["idle", "lent again"])
@pytest.mark.parametrize("what", ["a server-side cursor", "a stream"])
async def test_what_runs_at_the_return_refuses_to_go_on(
    colour, proxy, what, lent_again
):
    async def following():
        if what == "a server-side cursor":
            return await result(cursor.fetchone())
        return await (anext(rows) if colour.asynchronous else give(next(rows)))

    async with colour.pool(proxy.conninfo(), min_size=1, max_size=2) as pool:
        conn = await result(pool.getconn())
        if what == "a server-side cursor":
            cursor = conn.cursor("named")
            await result(cursor.execute("select generate_series(1, 1000)"))
        else:
            rows = conn.cursor().stream("select generate_series(1, 1000)")
        first = await following()
        await result(pool.putconn(conn))
        await eventually(lambda: pool.statistics().in_use == 0)
        await at_rest(pool, 1)
        other = await result(pool.getconn()) if lent_again else None
        with (
            proxy.recording() as said,
            pytest.raises(ConnectionReturned, match="returned") as caught,
        ):
            await following()

        assert (1,) == first
        assert [] == said
        assert re.search(r"(parity|test_returned)\.py", str(caught.value))

        if other is not None:
            assert await fetch(other, "select 42") == 42
            await result(pool.putconn(other))


async def give(value):
    return value


# What psycopg loads at once, and what it learns to load when it is fetched.
VALUES = {
    "1": 1,
    "'é'::text": "é",
    "array['é', 'b']": ["é", "b"],
    "row('é'::text, 'b'::text)": ("é", "b"),
    "array[row('é'::text, '2026-01-02'::text)]": [("é", "2026-01-02")],
    "row(1, 'é')::pair": (1, "é"),
    "array[row(1, null)::pair]": [(1, None)],
    "int4range(1, 3)": Range(1, 3),
    "tstzrange('2026-01-02 UTC', null)": Range(datetime(2026, 1, 2, tzinfo=UTC), None),
    """'{"a": ["é"]}'::jsonb""": {"a": ["é"]},
    "1.5::numeric": Decimal("1.5"),
    "'2026-01-02 UTC'::timestamptz": datetime(2026, 1, 2, tzinfo=UTC),
    "'2026-01-02'::date": date(2026, 1, 2),
    "'1 day'::interval": timedelta(1),
}
ROW = tuple(VALUES.values())
QUERY = f"select {', '.join(VALUES)} from generate_series(1, 3)"


async def one_by_one(cursor):
    return [await result(cursor.fetchone()) for _ in range(3)]


async def scrolled(cursor):
    await result(cursor.scroll(1))
    rows = await result(cursor.fetchall())
    await result(cursor.scroll(0, mode="absolute"))
    return [await result(cursor.fetchone()), *rows]


FETCHES = {
    "fetchone": one_by_one,
    "fetchmany": lambda cursor: cursor.fetchmany(3),
    "fetchall": lambda cursor: cursor.fetchall(),
    "iteration": all_of,
    "scroll": scrolled,
}


@contextlib.asynccontextmanager
async def kept_cursor(pool, query, binary=False):
    """Borrow, with a composite type that psycopg knows, and keep a cursor."""
    async with entered(pool.connection()) as conn:
        await execute(conn, "create type pg_temp.pair as (number int, word text)")
        pair = await result(CompositeInfo.fetch(conn, "pair"))
        register_composite(pair, conn)
        cursor = conn.cursor(binary=binary)
        await result(cursor.execute(query))
    yield cursor


@pytest.mark.parametrize("lent_again", [False, True], ids=["idle", "lent again"])
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("fetch_all", FETCHES.values(), ids=FETCHES)
async def test_what_has_arrived_is_fetched_after_the_return(
    colour, proxy, fetch_all, binary, lent_again
):
    async with (
        colour.pool(proxy.conninfo(), min_size=1) as pool,
        kept_cursor(pool, QUERY, binary) as cursor,
    ):
        other = await result(pool.getconn()) if lent_again else None
        with proxy.recording() as said:
            assert [ROW] * 3 == await result(fetch_all(cursor))

        assert [] == said

        if other is not None:
            await result(pool.putconn(other))


@pytest.mark.parametrize("value", VALUES)
async def test_a_further_result_is_fetched_after_the_return(colour, conninfo, value):
    """Of one type each: what was learnt for another value is known."""
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        kept_cursor(pool, f"select; select {value}") as cursor,
    ):
        assert cursor.nextset()
        assert (VALUES[value],) == await result(cursor.fetchone())


async def test_what_has_arrived_is_fetched_after_the_end_of_the_session(
    colour, conninfo
):
    async with (
        colour.pool(conninfo, min_size=1) as pool,
        kept_cursor(pool, f"select; {QUERY}") as cursor,
    ):
        await result(pool.close())

        assert cursor.nextset()
        assert [ROW] * 3 == await result(cursor.fetchall())


async def test_text_is_never_taken_for_text_in_another_encoding(colour, conninfo):
    """psycopg's C code could not be told which one it is."""
    latin1 = make_conninfo(conninfo, client_encoding="latin1")
    async with colour.pool(latin1, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            known = await execute(conn, "select 'Ã©'")
            unknown = await execute(conn, "select row('Ã©')")

        assert ("Ã©",) == await result(known.fetchone())
        with suppress(TypeError):  # the C code's
            assert (("Ã©",),) == await result(unknown.fetchone())


async def test_what_refuses_goes_without_a_word(colour, conninfo):
    """psycopg's own finaliser of it would be refused, which Python would tell."""
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as stale:
            pass
        async with entered(pool.connection()) as conn:
            with pytest.raises(ConnectionReturned):
                stale.pgconn.finish()
            with pytest.raises(ConnectionReturned):
                stale.pgconn.nonblocking = 1
            del stale
        async with entered(pool.connection()):
            del conn
    del pool
    gc.collect()


@pytest.mark.parametrize("way", ["a block", "putconn"])
async def test_who_is_about_to_send_a_statement_does_not_reach_the_next_borrower(
    server, conninfo, way
):
    async with THREADS.pool(conninfo, min_size=1, max_size=1) as pool:
        async with AsyncExitStack() as stack:
            if way == "a block":
                conn = await stack.enter_async_context(entered(pool.connection()))
            else:
                conn = await result(pool.getconn())
                stack.push_async_callback(as_coroutine, pool.putconn, conn)
            before = pid(conn)
            # Psycopg has looked at the connection, and has not sent anything yet.
            conn.lock.acquire()

        assert await lend(pool) != before

        await conserved(pool, server, application_name(conninfo))


async def test_what_somebody_waits_for_is_cut_off_and_not_freed(colour, proxy):
    """psycopg in C works on libpq's memory, and the event loop on the descriptor."""
    async with colour.pool(proxy.conninfo(), min_size=1, max_size=1) as pool:
        conn = await result(pool.getconn())
        pgconn = conn.pgconn
        proxy.black_hole()
        running = spawn(execute, conn, "select 1")
        await eventually(lambda: pgconn.transaction_status == TransactionStatus.ACTIVE)
        await result(pool.putconn(conn))

        with pytest.raises(psycopg.Error):
            await running
        proxy.restore()


async def as_coroutine(function, *arguments):
    await result(function(*arguments))


async def test_who_uses_what_was_returned_waits_for_nobody(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as stale:
            cursor = stale.cursor()
        async with entered(pool.connection()) as conn:
            assert conn.lock is not stale.lock

            await result(conn.lock.acquire())  # as a long query does
            with pytest.raises(ConnectionReturned):
                await result(cursor.execute("select 1"))

            conn.lock.release()
            await result(stale.lock.acquire())
            assert await fetch(conn, "select 1") == 1


async def test_a_stale_object_never_works_again(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        stale = []
        for _ in range(5):
            async with entered(pool.connection()) as conn:
                assert await fetch(conn, "select 1") == 1
                stale.append(conn)

        assert 5 == len({id(conn) for conn in stale})

        for conn in stale:
            with pytest.raises(ConnectionReturned):
                await execute(conn, "select 1")

        assert 1 == len({pid(conn) for conn in stale})


async def test_what_nobody_refers_to_is_lent_as_it_is(colour, conninfo):
    async with colour.pool(conninfo, min_size=1) as pool:
        seen = set()
        for _ in range(5):
            async with entered(pool.connection()) as conn:
                seen.add(id(conn))
            del conn
            gc.collect(0)

        assert len(seen) <= 2


# --- never returned -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
async def test_what_is_dropped_gives_its_place_back(colour, server, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=2) as pool:
        held = [await result(pool.getconn()) for _ in range(2)]
        waiting = await waiter(pool)
        del held
        conn = await waiting

        assert await fetch(conn, "select 1") == 1

        await result(pool.putconn(conn))
        del conn
        await conserved(pool, server, application_name(conninfo))

        assert 2 == pool.statistics().leaked


async def holding(pool, query):
    """Borrow at the second step, and return at the end; to be sent itself."""
    me = yield
    conn = await result(pool.getconn())
    try:
        if query:
            await execute(conn, query)
        yield me
    finally:
        await result(pool.putconn(conn))


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
@pytest.mark.parametrize("query", ["", "select 1"], ids=["clean", "dirty"])
async def test_what_a_dropped_generator_returns_is_not_lent_again(
    colour, server, conninfo, query
):
    """The garbage collector first gives its place away, and then has it end."""
    async with colour.pool(conninfo, min_size=0, max_size=2) as pool:
        for _ in range(2):
            generator = holding(pool, query)
            await generator.asend(None)
            await generator.asend(generator)
        assert 2 == pool.statistics().in_use
        del generator
        gc.collect()

        await conserved(pool, server, application_name(conninfo))


@pytest.mark.filterwarnings("ignore:.*was dropped instead of returned")
async def test_a_leak_is_told_with_its_place(colour, server, conninfo, caplog):
    async def lose():
        lost.clear()
        await eventually(lambda: "was dropped, not returned" in caplog.text)
        await eventually(lambda: not pool._engine.core.leaked)

    async with colour.pool(conninfo, min_size=1, track_borrows=True) as pool:
        lost = [await result(pool.getconn())]
        place = r"borrowed at .*(parity|test_returned)\.py"
        with pytest.warns(ResourceWarning, match=place):
            await lose()

        assert re.search(place, caplog.text)

        await conserved(pool, server, application_name(conninfo))


async def test_who_ends_with_what_he_has_borrowed_is_noticed(
    colour, server, conninfo, caplog
):
    kept = []

    async def borrow(pool):
        kept.append(await result(pool.getconn()))

    async with colour.pool(
        conninfo, min_size=1, max_size=1, track_borrows=True
    ) as pool:
        await spawn(borrow, pool)
        with pytest.raises(PoolTimeout):
            await result(pool.getconn(timeout=0.1))

        assert "has ended with a connection borrowed at" in caplog.text

        await result(pool.putconn(kept.pop()))
        await conserved(pool, server, application_name(conninfo))


# --- waiting for oneself --------------------------------------------------------------


async def test_who_would_wait_for_himself_is_refused_at_once(colour, conninfo):
    async with colour.pool(conninfo, min_size=1, timeout=60.0) as pool:
        async with entered(pool.connection()):
            with pytest.raises(NestedBorrow, match="asks for another at") as caught:
                async with entered(pool.connection()):
                    pass

        assert str(caught.value).count(".py:") == 2
        assert 0 == pool.statistics().waiting

        async with entered(pool.connection()) as conn:
            assert await fetch(conn, "select 1") == 1


async def test_who_waits_for_somebody_else_waits(colour, conninfo):
    go = threading.Event()

    async def hold(pool):
        async with entered(pool.connection()) as conn:
            await execute(conn, "select 1")
            await eventually(go.is_set)

    async with colour.pool(conninfo, min_size=2) as pool:
        await at_rest(pool, 2)
        holder = spawn(hold, pool)
        await eventually(lambda: pool.statistics().in_use == 1)
        async with entered(pool.connection()):
            nested = spawn_release(go)
            async with entered(pool.connection()) as conn:
                assert await fetch(conn, "select 1") == 1
            await nested
        await holder


def spawn_release(go):
    """Let the other borrower go in a moment, whether or not anybody waits by then."""

    async def release():
        if in_event_loop():
            import asyncio

            await asyncio.sleep(0.05)
        go.set()

    return spawn(release)


def test_a_generator_may_end_in_another_thread_than_it_has_begun_in(conninfo):
    def dependency(pool):
        with pool.connection() as conn:
            yield conn

    with (
        ConnectionPool(conninfo, min_size=1) as pool,
        ThreadPoolExecutor(1) as first,
        ThreadPoolExecutor(1) as second,
    ):
        one, other = dependency(pool), dependency(pool)
        first.submit(next, one).result()
        waiting = first.submit(next, other)
        THREADS.run(eventually(lambda: waiting.done() or pool.statistics().waiting))
        second.submit(one.close).result()

        assert waiting.result().info.backend_pid > 0

        second.submit(other.close).result()


async def test_waiting_for_oneself_may_be_wanted(colour, conninfo):
    async with (
        colour.pool(conninfo, min_size=1, nested="wait") as pool,
        entered(pool.connection()),
    ):
        with pytest.raises(PoolTimeout) as caught:
            async with entered(pool.connection(timeout=0.05)):
                pass

    assert not isinstance(caught.value, NestedBorrow)
