"""AsyncPool: the pool of anything, for asyncio."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from inspect import isawaitable
from sys import _getframe
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

from . import _flows
from ._adapter import AsyncAdapter
from ._core import Entry, PoolCore, must_be_seconds
from ._drivers.tasks import TaskDriver, task_of
from ._face import Face

T = TypeVar("T")

log = logging.getLogger("edgepool.pool")


class AsyncLease(Generic[T]):
    """A borrower's claim on a resource, from `async with` to its end."""

    __slots__ = ("_driver", "_entry", "_timeout")

    def __init__(self, driver: TaskDriver[T], timeout: float | None) -> None:
        self._driver = driver
        self._timeout = timeout
        self._entry: Entry[T] | None = None

    async def __aenter__(self) -> T:
        driver = self._driver
        now = driver.clock()
        owner = id(task_of(driver.loop))
        entry = driver.core.borrow(now, owner)
        if entry is None or now >= entry.due_at:
            entry = await driver.settle(entry, now, self._timeout, owner)
        self._entry = entry
        if driver.tracker is None:
            frame, note = _getframe(1), entry.tether.note
            note.code, note.offset = frame.f_code, frame.f_lasti
        else:
            driver.tracker.note(entry.tether, 1)
        return entry.resource

    async def __aexit__(self, *exc_info: object) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._driver.put(entry)


class AsyncPool(Face[T, AsyncAdapter[T]]):
    """A pool of anything, for the tasks of one event loop. Its arguments: `Face`'s.

    It belongs to the event loop in which it is first used.
    """

    __module__ = "edgepool"

    _engine: TaskDriver[T]

    def _start_engine(
        self, name: str, core: PoolCore[T], adapter: AsyncAdapter[T]
    ) -> None:
        self._engine = engine = TaskDriver(name, core, adapter)
        engine.before_waiting = self._must_be_open
        engine.alarm = self.reconnect_failed

    @property
    def _driver(self) -> TaskDriver[T]:
        return self._engine

    def borrow(self, timeout: float | None = None) -> AsyncLease[T]:
        """Return a context manager that borrows a resource and returns it at the end.

        Args:
            timeout: how long the borrow may take, in seconds; the queue, the connect
                and the check together. 0: take an idle one, or be refused at once.
                Default: the pool's `timeout`.

        Raises (on entering):
            PoolTimeout: none became available in time.
            ConnectFailed: connecting fails, and waiting would not help.
            TooManyRequests: `max_waiting` others wait already.
            PoolOverloaded: more come than can be served; see `shed_target`.
            PoolClosed: the pool is not open, or was closed meanwhile.
            TypeError, ValueError: `timeout` is no number.
        """
        return AsyncLease(self._engine, timeout)

    async def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool; again, if it was closed. Without effect on an open pool.

        The first `min_size` connections are opened in the background.

        Args:
            wait: wait until they are open; see `wait`.
            timeout: for how long, in seconds.

        Raises: as `wait`, if it waits.
        """
        must_be_seconds(timeout)
        self._open()
        if wait:
            await self.wait(timeout)

    async def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are open. A cancel changes nothing.

        Raises:
            PoolTimeout: they are not, after `timeout` seconds; the pool is closed then.
            ConnectFailed: connecting fails, and waiting would not help; the same.
            PoolClosed: the pool is not open, or was closed meanwhile.
            TypeError, ValueError: `timeout` is no number.
        """
        must_be_seconds(timeout)
        self._must_be_open()
        engine = self._engine
        waiter = await engine.park(engine.core.when_ready, engine.clock() + timeout)
        if waiter.refusal is None:
            return
        error = self._not_ready(waiter, timeout, engine.clock())
        await self.close()
        raise error

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool.

        Who waits is told so at once, who comes later too. Idle connections are closed
        now; borrowed ones when they are returned. After `timeout` seconds those still
        borrowed are cut off. Leaves no task behind. Without effect on a closed pool. If
        it is cancelled the pool is closed all the same; another call waits for those
        who have borrowed, and cuts them off.

        Raises:
            TypeError, ValueError: `timeout` is no number.
        """
        must_be_seconds(timeout)
        engine = self._engine
        was_open = engine.core.open
        if not (was_open or engine.core.fresh or engine.statistics().size):
            return
        engine.use_running_loop()
        until = engine.clock() + timeout
        engine.tell(engine.core.close)
        engine.cancel_connects()
        waiter = await engine.park(engine.core.when_empty, until)
        if waiter.refusal is not None:
            engine.tell(engine.core.abort)
            log.warning("%s: cut off what was not back in %g s", self.name, timeout)
        await engine.leave()
        if was_open:
            log.info("%s: closed", self.name)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    async def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the size at run time.

        Connections beyond a smaller `max_size` are closed now if they are idle, else
        when they are returned.

        Raises:
            ValueError: the sizes are out of range.
        """
        self._resize(min_size, max_size)

    async def drain(self, *, over: float = 0.0) -> None:
        """Replace all connections: the idle ones now, the others on their return.

        Args:
            over: replace them one after the other, in so many seconds; each after its
                successor is connected, where max_size leaves room for that.

        Raises:
            TypeError, ValueError: `over` is no number, negative or not finite.
        """
        self._drain(over)

    async def check(self) -> None:
        """Check all idle connections now, one after the other; replace the dead."""
        self._engine.use_running_loop()
        await _flows.check_idle(self._engine)

    async def reconnect_failed(self) -> None:
        """Call the user's `reconnect_failed`, which may be a coroutine function.

        Called by the pool; may be overridden.
        """
        if self._reconnect_failed is not None:
            outcome = self._reconnect_failed(self)
            if isawaitable(outcome):
                await outcome
