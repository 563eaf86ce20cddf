"""The fake server does as it is told, and its adapters keep the protocol.

That they behave as real connections do is in test_contract.py.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from drivers.world import DEAD, call

from edgepool import AsyncPool, Pool, PoolTimeout
from edgepool.testing import AsyncFakeAdapter, FakeAdapter, FakeServer, run_jumping


@pytest.fixture
def world(world):
    world.allowed = 10  # though there is no pool
    return world


async def connect(world):
    return await call(world.Adapter(world.server).connect)


@pytest.mark.parametrize(
    "tell",
    [
        lambda server: server.fail("conect", OSError()),
        lambda server: server.fail_always("conect", OSError()),
        lambda server: server.delay("conect", 1.0),
        lambda server: server.hang("conect"),
        lambda server: server.release("conect"),
        lambda server: server.begun("conect"),
        lambda server: server.under_way("conect"),
    ],
)
def test_an_operation_that_there_is_not_is_refused(tell):
    known = r"\['connect', 'check', 'reset', 'close'\]"

    with pytest.raises(ValueError, match=rf"^operation must be one of {known}, not"):
        tell(FakeServer())


# --- what a test tells it -------------------------------------------------------------


async def test_a_session_is_open_from_connect_to_close(world):
    adapter = world.Adapter(world.server)

    session = await call(adapter.connect)

    assert (session,) == world.server.sessions
    assert session.alive
    assert 1 == session.number

    await call(adapter.close, session)

    assert () == world.server.sessions
    assert not session.alive


async def test_a_server_that_is_down_ends_all_sessions_and_refuses(world):
    session = await connect(world)

    world.server.down()

    assert not session.alive
    with pytest.raises(ConnectionRefusedError):
        await connect(world)

    world.server.up()
    await connect(world)

    assert 3 == world.server.connects
    world.server.down()


async def test_a_server_that_refuses_keeps_its_sessions(world):
    session = await connect(world)
    error = OSError("go away")

    world.server.refuse(error)

    with pytest.raises(OSError, match="go away"):
        await connect(world)
    assert session.alive
    session.close()


async def test_it_takes_so_many_sessions_and_no_more(world):
    world.server.max_sessions = 1
    session = await connect(world)

    with pytest.raises(ConnectionError, match="too many clients"):
        await connect(world)

    session.close()
    (await connect(world)).close()


async def test_an_operation_takes_as_long_as_it_is_told(world):
    world.server.delay("connect", 2.0)

    session = await connect(world)

    assert 2.0 == world.now
    assert [0.0] == world.server.times("connect")
    assert [2.0] == world.server.times("connected")
    session.close()


async def test_what_hangs_waits_until_it_is_released(world):
    world.server.hang("connect")
    connecting = [world.start(connect(world)) for _ in range(3)]
    await world.sleep(1000.0)

    assert 3 == world.server.under_way("connect")

    world.server.release("connect", 1)
    await world.quiet()

    assert [True, False, False] == [each.done for each in connecting]

    world.server.release("connect")
    for each in connecting:
        (await each.outcome()).close()
    (await connect(world)).close()


async def test_an_operation_fails_as_it_is_told(world):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    world.server.fail("check", DEAD, KeyError("another"))

    with pytest.raises(ConnectionResetError):
        await call(adapter.check, session)
    with pytest.raises(KeyError):
        await call(adapter.check, session)
    await call(adapter.check, session)

    world.server.fail_always("check", DEAD)
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            await call(adapter.check, session)
    world.server.fail_always("check", None)
    await call(adapter.check, session)
    session.close()


async def test_who_hangs_when_the_server_goes_down_is_refused(world):
    world.server.hang("connect")
    connecting = world.start(connect(world))
    await world.quiet()
    world.server.down()

    world.server.release("connect")

    assert isinstance(await connecting.error(), ConnectionRefusedError)


async def test_who_hangs_in_a_session_that_is_killed_learns_of_it(world):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    world.server.hang("check")
    checking = world.start(call(adapter.check, session))
    await world.quiet()

    world.server.kill(session)

    assert isinstance(await checking.error(), ConnectionResetError)


async def test_a_reset_makes_a_session_clean_unless_it_is_hopeless(world):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    session.dirty = True

    assert not adapter.is_clean(session)
    assert await call(adapter.reset, session)
    assert adapter.is_clean(session)

    session.dirty = session.hopeless = True

    assert not await call(adapter.reset, session)
    session.close()


# --- what it tells a test -------------------------------------------------------------


async def test_it_counts_connects_and_the_most_sessions_at_a_time(world):
    world.server.fail("connect", DEAD)
    with pytest.raises(ConnectionResetError):
        await connect(world)
    for session in [await connect(world) for _ in range(3)]:
        session.close()
    (await connect(world)).close()

    assert (5, 3) == (world.server.connects, world.server.peak)


async def test_a_connect_under_way_counts_as_a_session_at_its_peak(world):
    world.server.hang("connect")
    connecting = [world.start(connect(world)) for _ in range(2)]
    await world.quiet()

    assert 2 == world.server.peak

    world.server.release("connect")
    for each in connecting:
        (await each.outcome()).close()


async def test_its_log_tells_what_happened_and_when(world):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    await world.sleep(1.0)
    world.server.fail("check", DEAD)
    with pytest.raises(ConnectionResetError):
        await call(adapter.check, session)
    await call(adapter.close, session)

    assert [
        (0.0, "connect", 1),
        (0.0, "connected", 1),
        (1.0, "check", 1),
        (1.0, "check failed", 1),
        (1.0, "close", 1),
        (1.0, "closed", 1),
    ] == world.server.log


@pytest.mark.parametrize("operation", ["check", "reset", "close"])
async def test_the_use_of_a_closed_session_is_a_mistake(world, operation):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    await call(adapter.close, session)

    try:
        await call(getattr(adapter, operation), session)
    except ConnectionResetError:
        assert operation != "close"

    assert [f"{operation} after close of session 1"] == world.server.mistakes
    world.server.mistakes.clear()


async def test_two_operations_at_a_time_on_a_session_are_a_mistake(world):
    adapter = world.Adapter(world.server)
    session = await connect(world)
    world.server.hang("check")
    checking = world.start(call(adapter.check, session))
    await world.quiet()

    await call(adapter.reset, session)

    assert ["reset during check of session 1"] == world.server.mistakes
    world.server.mistakes.clear()
    world.server.release("check")
    await checking.outcome()
    session.close()


def test_a_test_of_threads_can_wait_until_something_is_true():
    server = FakeServer()
    server.hang("connect")
    connected = []
    connecting = threading.Thread(
        target=lambda: connected.append(FakeAdapter(server).connect())
    )
    connecting.start()

    server.wait_until(lambda server: server.under_way("connect") == 1)
    server.release("connect")
    server.wait_until(lambda server: len(server.sessions) == 1)

    connecting.join()


def test_a_session_that_nobody_has_any_more_has_ended():
    server = FakeServer()
    kept, dropped = [FakeAdapter(server).connect() for _ in range(2)]

    del dropped

    assert (kept,) == server.sessions
    assert ("dropped", 2) == server.log[-1][1:]


def test_a_test_of_threads_does_not_wait_for_ever():
    server = FakeServer()

    with pytest.raises(AssertionError, match="waited in vain"):
        server.wait_until(lambda server: server.connects > 0, timeout=0.0)


async def test_a_server_may_serve_threads_and_tasks_at_once():
    server = FakeServer()

    threads_session = FakeAdapter(server).connect()
    tasks_session = await AsyncFakeAdapter(server).connect()

    assert (threads_session, tasks_session) == server.sessions


def test_the_example_in_its_docstring_is_true():
    server = FakeServer()
    pool = Pool(FakeAdapter(server), min_size=2, max_size=10)
    pool.open(wait=True)

    server.kill()  # both sessions
    with pool.borrow() as session:
        assert session.alive  # a new one

    server.down()
    server.up()
    pool.close()

    assert not server.sessions
    assert not server.mistakes


def test_a_pool_of_fakes_lives_in_the_time_of_its_server():
    async def ten_minutes():
        loop = asyncio.get_running_loop()
        server = FakeServer(clock=loop.time)
        pool = AsyncPool(AsyncFakeAdapter(server), min_size=1, max_idle=60)
        async with pool:
            await pool.wait()
            with server.restart(), pytest.raises(PoolTimeout):
                async with pool.borrow(timeout=600):
                    pass
            return loop.time()

    assert 600.0 == run_jumping(ten_minutes())
