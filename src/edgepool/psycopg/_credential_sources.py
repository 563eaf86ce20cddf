"""How a provider of credentials is asked: in a thread, or on the event loop."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from time import monotonic
from typing import Any

from .._drivers.workers import workers
from ._credentials import Credentials, Flight, Held


def _is_coroutine_function(provider: Callable[[], Any]) -> bool:
    call = getattr(type(provider), "__call__", None)  # noqa: B004, an object's method
    return iscoroutinefunction(provider) or iscoroutinefunction(call)


def _in_thread(job: Callable[[], None], owner: object) -> None:
    try:
        workers.submit(job, id(owner))
    except RuntimeError:  # no thread to be had: better here than never
        job()


class BlockingFlight(Flight):
    """A question that is asked in a thread."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.begun = False
        self.landed = threading.Event()


class BlockingCredentials(Credentials[BlockingFlight]):
    """Credentials for a pool of threads."""

    def __init__(self, provider: Callable[[], Any], name: Callable[[], str]) -> None:
        super().__init__(provider, name)
        if _is_coroutine_function(provider):
            raise TypeError(
                "credentials must not be a coroutine function in a pool of threads"
            )

    def get(self) -> Held:
        """Give a credential; ask for one if there is none, for `FETCH` at most.

        Raises:
            CredentialsError: there is none to be had.
            PermanentError: and to ask again cannot help.
        """
        if (held := self._at_hand()) is not None:
            return held
        flight = self._take_off()
        flight.landed.wait(max(flight.until - monotonic(), 0.0))
        return flight.outcome()

    def _new_flight(self, now: float) -> BlockingFlight:
        return BlockingFlight(now)

    def _ask(self, flight: BlockingFlight) -> None:
        _in_thread(partial(self._fetch, flight), self)

    def _fetch(self, flight: BlockingFlight) -> None:
        if flight.begun:  # a worker's job may be called twice
            return
        flight.begun = True
        given, error = None, None
        try:
            given = self._provider()
        except BaseException as raised:
            error = raised
        try:
            self._land(flight, given, error)
        finally:
            flight.landed.set()
            del error, given  # else the error and this frame keep each other


class TaskFlight(Flight):
    """A question that is asked by a task."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None


class TaskCredentials(Credentials[TaskFlight]):
    """Credentials for a pool of tasks.

    Args:
        provider: the user's. A coroutine function is awaited; what may block is called
            in a thread.
        name: gives the pool's name.
        spawn: runs a coroutine as a task that ends with the pool.
    """

    def __init__(
        self,
        provider: Callable[[], Any],
        name: Callable[[], str],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        super().__init__(provider, name)
        self._spawn = spawn

    async def get(self) -> Held:
        """Give a credential; see `BlockingCredentials.get`."""
        if (held := self._at_hand()) is not None:
            return held
        flight = self._take_off()
        timeout = max(flight.until - monotonic(), 0.0)
        await asyncio.wait({flight.landed}, timeout=timeout)
        if not flight.landed.done() and flight.task is not None:
            flight.task.cancel()
        return flight.outcome()

    def _new_flight(self, now: float) -> TaskFlight:
        return TaskFlight(now)

    def _is_lost(self, flight: TaskFlight, now: float) -> bool:
        elsewhere = flight.landed.get_loop() is not asyncio.get_running_loop()
        return elsewhere or super()._is_lost(flight, now)

    def _ask(self, flight: TaskFlight) -> None:
        flight.task = self._spawn(self._fetch(flight))

    async def _fetch(self, flight: TaskFlight) -> None:
        given, error = None, None
        try:
            if _is_coroutine_function(self._provider):
                given = await self._provider()
            else:
                given, error = await self._called_in_thread()
                if isawaitable(given):
                    given = await given
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception):
                raise
        finally:
            try:
                self._land(flight, given, error)
            finally:
                if not flight.landed.done():
                    flight.landed.set_result(None)
                del error, given

    async def _called_in_thread(self) -> tuple[Any, BaseException | None]:
        # What it raises is an answer as well: not all of it can be raised here.
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def tell(given: object, error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result((given, error))

        def job() -> None:
            given, error = None, None
            try:
                given = self._provider()
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, given, error)

        _in_thread(job, self)
        return await answer
