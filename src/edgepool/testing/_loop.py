"""An event loop in which nothing takes time: its clock jumps to the next timer.

A program that waits for ten minutes has then waited for them in microseconds, and twice
the same program does twice the same, to the last digit. The idea is trio's `MockClock`
with its autojump. For tests of what waits for timers; a real network has its own time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still, but for jumps.

    It starts at 0. When nothing is ready to run, it jumps to the next timer. When there
    is no timer either, and no real file and no executor to wait for, nothing will ever
    happen any more, and what runs in the loop ends with a `RuntimeError`.

    `loop.time` is the clock to give to whatever else keeps time in the test.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._until_quiet: list[asyncio.Future[None]] = []
        self._files = selectors.DefaultSelector()
        super().__init__(_JumpingSelector(self, self._files))
        # The loop's own: what other threads and signals wake it with.
        self._own_files = len(self._files.get_map())

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    async def quiet(self) -> None:
        """Wait until everybody else waits, without letting time pass.

        What could happen now has then happened: who was to be woken is in its next
        wait, or has ended.
        """
        quiet = self.create_future()
        self._until_quiet.append(quiet)
        await quiet

    def _nothing_is_ready(self, timeout: float | None) -> None:
        """Called when all tasks wait: the only place where time passes."""
        while self._until_quiet:
            quiet = self._until_quiet.pop(0)
            if not quiet.done():
                quiet.set_result(None)
                return
        if timeout is not None:
            self._now += timeout
            return
        if self._waits_in_earnest():
            self._files.select(None)  # and the loop asks again, with what is ready
            return
        waiting = sum(not task.done() for task in asyncio.all_tasks(self))
        raise RuntimeError(
            f"nothing will ever happen any more: {waiting} tasks wait,"
            f" and no timer is set (at {self._now:g} s)"
        )

    def _waits_in_earnest(self) -> bool:
        executor = getattr(self, "_default_executor", None)
        return executor is not None or len(self._files.get_map()) > self._own_files


class _JumpingSelector(selectors.BaseSelector):
    """Passes everything on to a real selector, except for the waiting."""

    def __init__(self, loop: JumpingLoop, files: selectors.BaseSelector) -> None:
        self._loop = loop
        self._files = files

    def select(self, timeout: float | None = None) -> Any:
        ready = self._files.select(0)
        if not ready and timeout != 0:
            self._loop._nothing_is_ready(timeout)  # pyright: ignore[reportPrivateUsage]
            ready = self._files.select(0)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return self._files.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> Any:
        return self._files.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> Any:
        return self._files.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._files.get_map()

    def close(self) -> None:
        self._files.close()


def run_jumping(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a `JumpingLoop`: as `asyncio.run`, but in no time.

    Example:
        ```python
        async def an_hour() -> float:
            await asyncio.sleep(3600)
            return asyncio.get_running_loop().time()


        assert 3600.0 == run_jumping(an_hour())
        ```
    """
    loop = JumpingLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


def _cancel_all_tasks(loop: JumpingLoop) -> None:
    """Leave no task behind, as `asyncio.run` does (which takes no loop on 3.10)."""
    # In order, oldest first: a set has none, and what ends twice is to end alike.
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: _natural(task.get_name()))
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception while run_jumping() ended",
                    "exception": error,
                    "task": task,
                }
            )


def _natural(name: str) -> tuple[int, str]:
    return len(name), name
