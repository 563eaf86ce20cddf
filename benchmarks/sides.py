"""Threads and asyncio behind one face, so that a scenario is written once.

A scenario is an ``async def``. On the asyncio side it runs as usual. On the threads
side every awaitable in it blocks instead of suspending, so that it runs to its end in
one step. That costs about a microsecond per request, alike for every peer; the rows
that count nanoseconds (``rows/overhead.py``) use the pools' own calls instead.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, cast

import psycopg

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which borrowers that wait for each other are given up."""


class Side(Protocol):
    """What a scenario may ask of the world it runs in."""

    name: str
    connection_class: Any

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run *scenario* to its end."""

    def entered(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        """Make a context manager of this side's colour usable in a scenario."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Do nothing for a while, and let others run."""

    async def offload(self, call: Callable[..., T], *args: object) -> T:
        """Run a blocking call without holding up the other workers."""

    async def crew(
        self,
        worker: Callable[[int], Coroutine[Any, Any, T]],
        count: int,
        prepare: Callable[[], Awaitable[None]] | None = None,
        gate: bool = True,
    ) -> list[T]:
        """Run *count* workers when *prepare* is done.

        With the *gate* all are made before and released at once; without it each is
        made, and begins, after the one before.
        """

    def meeting(self, count: int) -> Callable[[], Awaitable[None]]:
        """Return a call that waits until *count* workers have made it."""

    async def connect(self, conninfo: str) -> None:
        """Open one connection without a pool, and close it."""

    async def select_one(self, conn: Any) -> None:
        """Run the cheapest query there is."""


class Threads:
    """Scenarios whose workers are threads."""

    name = "threads"
    connection_class: Any = psycopg.Connection

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        try:
            scenario.send(None)
        except StopIteration as done:
            return cast("T", done.value)

        raise RuntimeError("a blocking scenario tried to suspend")

    def entered(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        return _Blocking(manager)

    def sleep(self, seconds: float) -> Awaitable[None]:
        time.sleep(seconds)
        return _Done()

    async def offload(self, call: Callable[..., T], *args: object) -> T:
        return call(*args)

    async def crew(
        self,
        worker: Callable[[int], Coroutine[Any, Any, T]],
        count: int,
        prepare: Callable[[], Awaitable[None]] | None = None,
        gate: bool = True,
    ) -> list[T]:
        ready = threading.Semaphore(0)
        opened = threading.Event()
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        def body(number: int) -> None:
            ready.release()
            opened.wait()
            if errors:
                return
            try:
                results[number] = self.run(worker(number))
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=body, args=(number,), daemon=True)
            for number in range(count)
        ]
        if gate:
            for thread in threads:
                thread.start()
                ready.acquire()

        try:
            if prepare is not None:
                await prepare()
        except BaseException as error:
            errors.append(error)
        opened.set()

        for thread in threads:
            if not gate:
                thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[number] for number in range(count)]

    def meeting(self, count: int) -> Callable[[], Awaitable[None]]:
        barrier = threading.Barrier(count, timeout=PATIENCE)

        async def meet() -> None:
            barrier.wait()

        return meet

    async def connect(self, conninfo: str) -> None:
        psycopg.connect(conninfo, autocommit=True).close()

    async def select_one(self, conn: Any) -> None:
        conn.execute("SELECT 1").fetchone()


class Tasks:
    """Scenarios whose workers are asyncio tasks on one event loop."""

    name = "tasks"
    connection_class: Any = psycopg.AsyncConnection

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(scenario)

    def entered(self, manager: Any) -> AbstractAsyncContextManager[Any]:
        return cast("AbstractAsyncContextManager[Any]", manager)

    def sleep(self, seconds: float) -> Awaitable[None]:
        return asyncio.sleep(seconds)

    async def offload(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, call, *args)

    async def crew(
        self,
        worker: Callable[[int], Coroutine[Any, Any, T]],
        count: int,
        prepare: Callable[[], Awaitable[None]] | None = None,
        gate: bool = True,
    ) -> list[T]:
        opened = asyncio.Event()

        async def body(number: int) -> T:
            await opened.wait()
            return await worker(number)

        if not gate and prepare is not None:
            await prepare()
        tasks = [asyncio.create_task(body(number)) for number in range(count)]
        await asyncio.sleep(0)

        try:
            if gate and prepare is not None:
                await prepare()
            opened.set()
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def meeting(self, count: int) -> Callable[[], Awaitable[None]]:
        everybody = asyncio.Event()
        missing = count

        async def meet() -> None:
            nonlocal missing
            missing -= 1
            if missing == 0:
                everybody.set()
            await asyncio.wait_for(everybody.wait(), PATIENCE)

        return meet

    async def connect(self, conninfo: str) -> None:
        conn = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
        await conn.close()

    async def select_one(self, conn: Any) -> None:
        await (await conn.execute("SELECT 1")).fetchone()


class _Blocking:
    """A blocking context manager, entered and left with ``async with``."""

    __slots__ = ("_manager",)

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return self._manager.__enter__()

    async def __aexit__(self, *failure: Any) -> Any:
        return self._manager.__exit__(*failure)


class _Done:
    """Something to await that is over already."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


THREADS = Threads()
TASKS = Tasks()
