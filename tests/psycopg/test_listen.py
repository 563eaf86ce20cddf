"""Notifications come, also after the connection was lost; and then that is said."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

import edgepool
from edgepool import BorrowedBeforeFork, ConnectFailed, Gap, PoolClosed, PoolTimeout
from edgepool._drivers.housekeeper import Housekeeper
from support.cancel import at_every_suspension
from support.forks import Child
from support.parity import PATIENCE, entered, eventually, result, spawn
from support.pg import TASKS, Sessions, application_name, beside, error_of


@pytest.fixture
def hearing(conninfo):
    """The direct address, under another application_name than the pool's."""
    return make_conninfo(conninfo, application_name=f"{application_name(conninfo)}-ear")


@pytest.fixture
def ears(admin, hearing):
    """The sessions that listen."""
    return Sessions(admin, application_name(hearing))


@pytest.fixture
def notify(admin):
    def notify(channel, payload=""):
        admin.execute("select pg_notify(%s, %s)", [channel, payload])

    return notify


@pytest.fixture
def pool_that_hears(colour, conninfo, hearing):
    def make(**arguments):
        arguments = {"min_size": 0, "max_size": 1, "name": "p", **arguments}
        return colour.pool(conninfo, direct_conninfo=hearing, **arguments)

    return make


async def heard(events, number=1):
    """Give what comes next, in short."""
    return [told(await result(events.get(PATIENCE))) for _ in range(number)]


def told(event):
    if isinstance(event, psycopg.Notify):
        return event.channel, event.payload
    return type(event).__name__


async def failure(events, timeout=PATIENCE):
    async def attempt():
        return await result(events.get(timeout))

    return await error_of(attempt())


async def all_of(events):
    """Hear until the end."""
    if hasattr(events, "__aiter__"):
        return [told(event) async for event in events]
    return [told(event) for event in events]


# --- what comes -----------------------------------------------------------------------


async def test_what_is_notified_comes_in_order(pool_that_hears, notify):
    async with pool_that_hears() as pool, entered(pool.listen("a", "b")) as events:
        for number in range(3):
            notify("a", str(number))
            notify("b", str(number))

        assert await heard(events, 6) == [
            *(("a", "0"), ("b", "0"), ("a", "1")),
            *(("b", "1"), ("a", "2"), ("b", "2")),
        ]


async def test_it_hears_what_comes_after_it_was_entered(pool_that_hears, notify):
    async with pool_that_hears() as pool:
        notify("a", "too early")
        async with entered(pool.listen("a")) as events:
            notify("a", "early")

            assert await heard(events) == [("a", "early")]


@pytest.mark.parametrize("name", ["Upper Case", 'a "quoted" one', "ä; drop", "x" * 63])
async def test_a_name_is_taken_as_it_is(pool_that_hears, notify, admin, name):
    async with pool_that_hears() as pool, entered(pool.listen(name)) as events:
        notify(name, "by function")
        admin.execute(SQL("notify {}, 'by name'").format(Identifier(name)))

        assert await heard(events, 2) == [(name, "by function"), (name, "by name")]


@pytest.mark.parametrize(
    ("channels", "error", "text"),
    [
        ((), ValueError, "listen needs the name of a channel"),
        (("",), ValueError, "must have 1 to 63 bytes and no NUL, not 0: ''"),
        (("ä" * 32,), ValueError, "must have 1 to 63 bytes and no NUL, not 64: 'ää"),
        (("a\0b",), ValueError, "must have 1 to 63 bytes and no NUL, not 3"),
        ((7,), TypeError, "must be a string, not 7"),
    ],
    ids=["none", "empty", "long", "nul", "number"],
)
def test_what_is_no_name_is_refused(colour, channels, error, text):
    pool = colour.Pool(open=False)

    with pytest.raises(error, match=text):
        pool.listen(*channels)


async def test_nothing_comes_within_the_timeout(pool_that_hears, notify):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        assert await result(events.get(0)) is None
        assert await result(events.get(0.05)) is None

        notify("a", "later")

        assert await heard(events) == [("a", "later")]


async def test_it_begins_at_its_first_use(pool_that_hears, notify, ears):
    heard = []

    async def hear(events):
        while True:
            heard.append(told(await result(events.get(PATIENCE))))

    async with pool_that_hears() as pool:
        events = pool.listen("a")
        notify("a", "too early")

        assert 0 == ears.count

        hearing = spawn(hear, events)
        await eventually(lambda: ears.queries == ['LISTEN "a"'])
        await eventually(lambda: ears.states == {"idle": 1})
        notify("a", "x")
        await eventually(lambda: heard)
        await result(pool.close())

        assert isinstance(await error_of(hearing), PoolClosed)

    assert [("a", "x")] == heard


async def test_it_takes_no_place_of_the_pool(pool_that_hears, ears):
    async with pool_that_hears() as pool, entered(pool.listen("a")):
        assert ears.count == 1
        assert pool.get_stats()["pool_size"] == 0


# --- when the connection is lost ------------------------------------------------------


async def test_a_loss_is_told_of_in_its_place(pool_that_hears, notify, ears, caplog):
    caplog.set_level(logging.INFO, logger="edgepool.direct")
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        notify("a", "before")
        assert await heard(events) == [("a", "before")]
        ears.terminate()
        notify("a", "lost")

        gap = await result(events.get(PATIENCE))
        notify("a", "after")

        assert await heard(events) == [("a", "after")]

    assert isinstance(gap, Gap)
    assert isinstance(gap.cause, psycopg.OperationalError)
    assert 0 <= gap.lasted < PATIENCE
    lines = [r.getMessage() for r in caplog.records if r.name == "edgepool.direct"]
    assert len(lines) == 2
    assert lines[0].startswith("p: no longer listening: ")
    assert lines[1].startswith("p: listening again after 0.")


async def test_what_came_before_the_loss_is_not_lost(pool_that_hears, admin, ears):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        # Of one transaction: so they come together.
        admin.execute("select pg_notify('a', n::text) from generate_series(0, 2) n")

        assert await heard(events) == [("a", "0")]

        ears.terminate()

        assert await heard(events, 3) == [("a", "1"), ("a", "2"), "Gap"]


async def test_who_waits_hears_of_a_loss(pool_that_hears, ears, notify):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        for _ in range(3):
            waiting = spawn(events.get, PATIENCE)
            ears.terminate()

            assert isinstance(await waiting, Gap)

        notify("a", "after all")

        assert await heard(events) == [("a", "after all")]


async def test_a_restart_of_the_server_is_bridged(colour, own_server):
    server = own_server()
    async with (
        colour.pool(server.conninfo, min_size=0, max_size=1) as pool,
        entered(pool.listen("a")) as events,
    ):
        waiting = spawn(events.get, PATIENCE)
        await beside(server.stop)
        await eventually(lambda: events._lost is not None)
        await beside(server.start)

        assert isinstance(await waiting, Gap)

        with psycopg.connect(server.conninfo, autocommit=True) as conn:
            conn.execute("notify a, 'after'")

        assert await heard(events) == [("a", "after")]


async def test_short_waits_get_over_a_loss_too(pool_that_hears, ears):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        ears.terminate()
        while (event := await result(events.get(0.01))) is None:
            pass

        assert isinstance(event, Gap)


async def test_what_waiting_does_not_mend_is_raised(colour, role, conninfo, guarded):
    hearing = role.conninfo(password="right", application_name="ear")
    async with (
        colour.pool(conninfo, min_size=0, max_size=1, direct_conninfo=hearing) as pool,
        entered(pool.listen("a")) as events,
    ):
        role.set_password("another")
        with psycopg.connect(guarded.conninfo, autocommit=True) as admin:
            Sessions(admin, "ear").terminate()

        assert isinstance(await failure(events), ConnectFailed)

        role.set_password("right")

        assert isinstance(await result(events.get(PATIENCE)), Gap)


async def test_a_first_connection_has_a_timeout(colour, conninfo):
    nowhere = "host=127.0.0.1 port=1"
    async with colour.pool(
        conninfo, min_size=0, max_size=1, direct_conninfo=nowhere
    ) as pool:
        events = pool.listen("a", timeout=0.1)

        assert type(await failure(events)) is PoolTimeout

        await result(events.close())


async def test_behind_a_pooler_that_shares_sessions_it_does_not_begin(colour, bouncer):
    pooled = bouncer("transaction").conninfo_for()
    async with colour.pool(pooled, min_size=0, max_size=1) as pool:
        async with entered(pool.direct()):
            pass  # that may be of use
        error = await failure(pool.listen("a"))

    assert isinstance(error, ConnectFailed)
    assert "the pool needs direct_conninfo" in str(error)


# --- the end --------------------------------------------------------------------------


async def test_the_end_of_the_pool_is_its_end(pool_that_hears, ears):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        hearing = spawn(all_of, events)
        idle = pool.listen("b")
        await result(idle.get(0))
        await eventually(lambda: ears.count == 2)
        await result(pool.close())

        assert await hearing == []
        assert isinstance(await failure(events, 0), PoolClosed)
        assert isinstance(await failure(idle, 0), PoolClosed)

    await eventually(lambda: ears.count == 0)


async def test_a_close_ends_the_wait_of_another(pool_that_hears, ears):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        hearing = spawn(all_of, events)
        await eventually(lambda: ears.states == {"idle": 1})
        await result(events.close())

        assert await hearing == []
        await eventually(lambda: ears.count == 0)

        await result(events.close())


async def test_a_close_ends_the_wait_for_a_connection(pool_that_hears, proxy, colour):
    async with colour.pool(proxy.conninfo(), min_size=0, max_size=1) as pool:
        async with entered(pool.listen("a")) as events:
            proxy.reset()
            hearing = spawn(all_of, events)
            await eventually(lambda: events._lost is not None)
            await result(pool.close())

            assert await hearing == []
        proxy.restore()


async def test_to_leave_the_loop_is_enough(pool_that_hears, notify, ears):
    async with pool_that_hears() as pool:
        events = pool.listen("a")
        await result(events.get(0))
        del events
        gc.collect()

        await eventually(lambda: ears.count == 0)


async def test_a_closed_pool_refuses(colour, conninfo):
    async with colour.pool(conninfo, min_size=0, max_size=1) as pool:
        pass

    with pytest.raises(PoolClosed, match="is already closed"):
        pool.listen("a")


async def test_no_thread_is_left(pool_that_hears, notify, monkeypatch, ears):
    # The process's own may be at work for a pool that another test has left open.
    monkeypatch.setattr("edgepool._drivers.events.housekeeper", Housekeeper())
    before = set(threading.enumerate())
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:
        ears.terminate()
        assert await heard(events) == ["Gap"]

    left = set(threading.enumerate()) - before

    assert [] == [thread.name for thread in left if "edgepool" in thread.name]


async def test_a_forked_child_hears_nothing(colour, pool_that_hears, notify):
    async with pool_that_hears() as pool, entered(pool.listen("a")) as events:

        async def hear():
            return type(await failure(events, 0))

        assert await Child(colour, hear).outcome() is BorrowedBeforeFork

        async def close():
            await result(events.close())
            await result(pool.close())

        await Child(colour, close).outcome()
        notify("a", "still here")

        assert await heard(events) == [("a", "still here")]


@pytest.mark.parametrize("colour", [TASKS], ids=["tasks"])
async def test_a_cancelled_wait_loses_nothing(colour, pool_that_hears, notify, ears):
    async with pool_that_hears() as pool, pool.listen("a") as events:
        waiting = spawn(events.get, PATIENCE)
        await asyncio.sleep(0.01)
        waiting.cancel()
        notify("a", "kept")
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert await heard(events) == [("a", "kept")]


@pytest.mark.parametrize("colour", [TASKS], ids=["tasks"])
async def test_a_cancellation_leaves_nothing_wherever_it_comes(
    colour, hearing, ears, admin
):
    async def scenario(drive):
        pool = edgepool.AsyncConnectionPool(hearing, min_size=0, max_size=1, open=False)

        async def act():
            async with pool.listen("a") as events:
                ears.terminate()
                assert isinstance(await events.get(PATIENCE), Gap)

        await drive(act())
        await pool.close()
        await eventually(lambda: ears.count == 0)

    assert await at_every_suspension(scenario) > 0
