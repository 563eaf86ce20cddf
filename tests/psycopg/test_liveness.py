"""Nothing dead is served, nothing alive is lost, and finding out costs nothing."""

from __future__ import annotations

import select

import pytest
from psycopg.conninfo import make_conninfo

from support.parity import (
    PATIENCE,
    borrowed,
    entered,
    eventually,
    execute,
    fetch,
    lend,
    pid,
    result,
    spawn,
)
from support.pg import at_rest, hung_up, past_grace, set_autocommit
from support.pg_proxy import farewell, notice, parameter_status


def lost(pool):
    return pool.get_stats().get("connections_lost", 0)


async def has_news(*conns):
    """Wait until something has arrived on the socket of each idle connection."""
    await past_grace()
    sockets = [conn.info.pgconn.find().socket for conn in conns]
    return all(select.select([each], [], [], PATIENCE)[0] for each in sockets)


async def use(pool):
    """Be a borrower like any other."""
    async with entered(pool.connection()) as conn:
        return await fetch(conn, "select 1")


async def test_a_session_ended_while_idle_is_not_served(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=1) as pool:
        first = await lend(pool)
        sessions.terminate(first)

        assert await lend(pool) != first

        await at_rest(pool, 1)

        assert sessions.count == 1
        assert lost(pool) == 1


async def test_a_survivor_is_served_and_the_dead_are_replaced_at_once(
    colour, conninfo, sessions
):
    async with colour.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        async with borrowed(pool, 4) as held:
            a, b, c, d = [pid(conn) for conn in held]
        # The last one that was returned would be the next.
        sessions.terminate(a, b, d)

        assert await lend(pool) == c

        # Nobody borrows any more.
        await eventually(lambda: lost(pool) == 3)
        await at_rest(pool, 4)

        assert sessions.count == 4
        assert not {a, b, d} & set(sessions.pids)


async def test_when_all_are_dead_all_are_replaced_at_once(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=4) as pool:
        await at_rest(pool, 4)
        dead = sessions.pids
        sessions.terminate()
        await lend(pool)
        await eventually(lambda: lost(pool) == 4)
        await at_rest(pool, 4)

        assert sessions.count == 4
        assert not set(dead) & set(sessions.pids)


@pytest.mark.parametrize("way", ["at once", "one after the other"])
async def test_twelve_sessions_ended_at_once_cost_nobody_an_error(
    colour, conninfo, sessions, way
):
    async with colour.pool(conninfo, min_size=12) as pool:
        await at_rest(pool, 12)
        sessions.terminate()

        if way == "at once":
            borrowers = [spawn(use, pool) for _ in range(12)]
            answers = [await borrower for borrower in borrowers]
        else:
            answers = [await use(pool) for _ in range(12)]

        assert [1] * 12 == answers

        # What is promised, twice over. Every slot works.
        await eventually(lambda: sessions.count == 12, within=1.0)
        async with borrowed(pool, 12) as held:
            assert [1] * 12 == [await fetch(conn, "select 1") for conn in held]


async def test_every_session_may_die_again_and_again(colour, conninfo, sessions):
    async with colour.pool(conninfo, min_size=3) as pool:
        for _ in range(5):
            await at_rest(pool, 3)
            sessions.terminate()

            assert await use(pool) == 1


@pytest.mark.parametrize("kind", ["pool", "null_pool"])
async def test_a_session_that_ends_with_its_connect_is_not_served(
    colour, conninfo, sessions, kind
):
    # As if the process was frozen between the server's last word and the pool's news.
    ended = []

    async def configure(conn):
        if not ended:
            ended.append(pid(conn))
            sessions.terminate(*ended)

    made = getattr(colour, kind)
    configure = colour.callback(configure)
    async with made(conninfo, min_size=0, max_size=1, configure=configure) as pool:
        assert await use(pool) == 1
        assert len(ended) == lost(pool) == 1


async def test_what_idle_session_timeout_ends_is_not_served(colour, conninfo, sessions):
    conninfo = make_conninfo(conninfo, options="-c idle_session_timeout=50")
    async with colour.pool(conninfo, min_size=3) as pool:
        await at_rest(pool, 3)
        dead = sessions.pids
        hung_up(*dead)

        assert await use(pool) == 1
        assert dead


@pytest.mark.parametrize("sqlstate", ["57P01", "57P05"])
async def test_a_session_that_has_said_farewell_is_not_served(colour, proxy, sqlstate):
    """A millisecond or so lies between the farewell and the end of the process."""
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            before = pid(conn)
        proxy.say(*farewell(sqlstate, "terminating connection because of this test"))

        assert await has_news(conn)
        assert await lend(pool) != before


async def test_what_the_network_cuts_is_not_served(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=3) as pool:
        async with borrowed(pool, 3) as held:
            pass
        proxy.cut()

        assert await has_news(*held)
        assert await use(pool) == 1

        await at_rest(pool, 3)

        assert proxy.connects == 6


async def test_what_somebody_has_ended_on_this_side_is_not_served(colour, conninfo):
    """Not by `close`, which is refused after the return: by libpq's own object."""
    async with colour.pool(conninfo, min_size=1) as pool:
        conn = await result(pool.getconn())
        pgconn = conn.pgconn
        await result(pool.putconn(conn))
        pgconn.finish()
        await past_grace()

        assert await use(pool) == 1


# --- alive, though there is news ------------------------------------------------------


async def listen(conn):
    await set_autocommit(conn, True)
    await execute(conn, "listen news")


async def test_a_notification_does_not_make_a_connection_look_dead(
    colour, conninfo, admin
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await listen(conn)
            before = pid(conn)
        admin.execute("notify news, 'hello'")

        assert await has_news(conn)
        assert await lend(pool) == before
        assert lost(pool) == 0


async def test_a_handler_hears_the_notification_that_came_while_idle(
    colour, conninfo, admin
):
    heard = []

    async def configure(conn):
        conn.add_notify_handler(lambda notify: heard.append(notify.payload))

    arguments = {"min_size": 1, "configure": colour.callback(configure)}
    async with colour.pool(conninfo, **arguments) as pool:
        async with entered(pool.connection()) as conn:
            await listen(conn)
        admin.execute("notify news, 'hello'")

        assert await has_news(conn)

        async with entered(pool.connection()) as conn:
            await execute(conn, "select 1")

        assert ["hello"] == heard


async def test_notifies_yields_the_notification_that_came_while_idle(
    colour, conninfo, admin
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await listen(conn)
        admin.execute("notify news, 'hello'")

        assert await has_news(conn)

        async with entered(pool.connection()) as conn:
            # Generous: the notification has arrived.
            arriving = conn.notifies(timeout=0.5, stop_after=1)
            if colour.asynchronous:
                payloads = [notify.payload async for notify in arriving]
            else:
                payloads = [notify.payload for notify in arriving]

        assert ["hello"] == payloads


async def test_a_session_that_ends_after_notifications_is_not_served(
    colour, conninfo, admin, sessions
):
    """The farewell comes after them, in the same stream."""
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await listen(conn)
            before = pid(conn)
        for number in range(20):
            admin.execute(f"notify news, '{number}'")
        sessions.terminate(before)

        assert await lend(pool) != before


async def test_a_session_that_ends_after_many_notifications_is_not_served(
    colour, conninfo, admin, sessions
):
    async with colour.pool(conninfo, min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            await listen(conn)
            before = pid(conn)
        admin.execute(
            "select pg_notify('news', n || repeat('x', 200))"
            " from generate_series(1, 2000) n"
        )
        sessions.terminate(before)

        assert await use(pool) == 1


@pytest.mark.parametrize(
    "message",
    [parameter_status("TimeZone", "Europe/Rome"), notice("hello")],
    ids=["a changed parameter", "a notice"],
)
async def test_news_of_a_server_does_not_make_a_connection_look_dead(
    colour, proxy, message
):
    async with colour.pool(proxy.conninfo(), min_size=2) as pool:
        async with borrowed(pool, 2) as held:
            before = [pid(conn) for conn in held]
        proxy.say(*message)

        assert await has_news(*held)

        async with borrowed(pool, 2) as held:
            after = [pid(conn) for conn in held]

        assert set(before) == set(after)
        assert lost(pool) == 0


async def test_a_changed_parameter_is_taken_note_of(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=1) as pool:
        async with entered(pool.connection()) as conn:
            pass
        proxy.say(*parameter_status("TimeZone", "Europe/Rome"))

        assert await has_news(conn)

        async with entered(pool.connection()) as conn:
            assert conn.info.parameter_status("TimeZone") == "Europe/Rome"


# --- what it costs --------------------------------------------------------------------


async def test_a_borrow_makes_no_round_trip(colour, proxy):
    async with colour.pool(proxy.conninfo(), min_size=2) as pool:
        await at_rest(pool, 2)
        with proxy.recording() as sent:
            for _ in range(20):
                async with entered(pool.connection()):
                    pass
                conn = await result(pool.getconn())
                await result(pool.putconn(conn))
                await past_grace()

        assert [] == sent


async def test_a_check_with_a_round_trip_would_show(colour, proxy):
    check = colour.Pool.check_connection
    async with colour.pool(proxy.conninfo(), min_size=1, check=check) as pool:
        await at_rest(pool, 1)
        with proxy.recording() as sent:
            async with entered(pool.connection()):
                pass

        assert [("Q", b"\0")] == sent
