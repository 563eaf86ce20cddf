"""The jumping event loop: no time passes, and nothing else is different."""

from __future__ import annotations

import asyncio
import socket

import pytest

from edgepool.testing import JumpingLoop, run_jumping


def now():
    return asyncio.get_running_loop().time()


def test_it_returns_what_the_coroutine_returns():
    async def main():
        return "result"

    assert "result" == run_jumping(main())


def test_it_raises_what_the_coroutine_raises():
    async def main():
        raise KeyError("of main")

    with pytest.raises(KeyError, match="of main"):
        run_jumping(main())


def test_the_clock_starts_at_0_and_jumps_to_each_timer():
    async def main():
        times = [now()]
        for seconds in (3600.0, 0.0, 0.25):
            await asyncio.sleep(seconds)
            times.append(now())
        return times

    assert [0.0, 3600.0, 3600.0, 3600.25] == run_jumping(main())


def test_a_wait_longer_than_a_day_is_as_long_as_it_says():
    async def main():
        await asyncio.sleep(1e6)
        return now()

    assert pytest.approx(1e6) == run_jumping(main())


def test_timers_come_in_order():
    async def main():
        order = []
        for seconds in (3, 1, 2):
            asyncio.get_running_loop().call_later(seconds, order.append, seconds)
        await asyncio.sleep(5)
        return order

    assert [1, 2, 3] == run_jumping(main())


def test_no_time_passes_while_anybody_can_run():
    async def main():
        timer = asyncio.create_task(asyncio.sleep(1e-9))
        for _ in range(1000):
            await asyncio.sleep(0)

        assert not timer.done()
        assert 0.0 == now()

        await timer

    run_jumping(main())


def test_timeouts_of_asyncio_are_on_the_same_clock():
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), timeout=60.0)
        return now()

    assert 60.0 == run_jumping(main())


def test_quiet_is_when_everybody_else_waits():
    async def main():
        done = []

        async def work():
            for _ in range(10):
                await asyncio.sleep(0)
            done.append("work")
            await asyncio.sleep(1.0)
            done.append("more work")

        task = asyncio.create_task(work())
        await asyncio.get_running_loop().quiet()

        assert ["work"] == done
        assert 0.0 == now()

        await task

    run_jumping(main())


def test_several_may_wait_for_quiet():
    async def main():
        loop = asyncio.get_running_loop()
        order = []

        async def wait(name):
            await loop.quiet()
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

        await asyncio.gather(wait("a"), wait("b"))
        return order

    assert ["a", "a", "b", "b"] == run_jumping(main())


def test_quiet_can_be_cancelled():
    async def main():
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(loop.quiet())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(1.0)
        return waiting.cancelled()

    assert run_jumping(main())


def test_a_wait_that_nothing_can_end_is_an_error():
    async def main():
        await asyncio.sleep(2.0)
        await asyncio.gather(asyncio.Event().wait(), asyncio.Event().wait())

    with pytest.raises(RuntimeError, match=r"3 tasks wait, and no timer .* 2 s"):
        run_jumping(main())


def test_what_still_runs_at_the_end_is_cancelled():
    async def main():
        async def work():
            try:
                await asyncio.sleep(1e9)
            finally:
                await asyncio.sleep(1.0)
                cleaned_up.append(now())

        task = asyncio.create_task(work())
        await asyncio.sleep(1.0)
        return task

    cleaned_up = []
    task = run_jumping(main())

    assert task.cancelled()
    assert [2.0] == cleaned_up


def test_an_error_at_the_end_is_reported(caplog):
    async def main():
        async def work():
            try:
                await asyncio.sleep(1e9)
            finally:
                raise KeyError("at the end")

        task = asyncio.create_task(work())
        await asyncio.sleep(1.0)
        return task

    run_jumping(main())

    assert "unhandled exception while run_jumping() ended" in caplog.text


def test_an_executor_is_waited_for_in_earnest():
    async def main():
        return await asyncio.to_thread(lambda: "from a thread")

    assert "from a thread" == run_jumping(main())


def test_a_socket_is_waited_for_in_earnest():
    async def main():
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            receiving = asyncio.create_task(loop.sock_recv(near, 10))
            await loop.quiet()
            far.send(b"hello")
            return await receiving

    assert b"hello" == run_jumping(main())


def test_another_thread_may_wake_it():
    async def main():
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        await asyncio.to_thread(loop.call_soon_threadsafe, event.set)
        await event.wait()

    run_jumping(main())


def test_it_is_an_event_loop_like_any_other():
    loop = JumpingLoop()
    try:
        assert 5.0 == loop.run_until_complete(later(5.0))
        assert 7.0 == loop.run_until_complete(later(2.0))
    finally:
        loop.close()


async def later(seconds):
    await asyncio.sleep(seconds)
    return now()
