"""Pool: the pool of anything, for threads."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from _thread import get_ident
from sys import _getframe
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

from . import _flows
from ._adapter import Adapter
from ._core import Entry, PoolCore, must_be_seconds
from ._drivers.threads import ThreadDriver
from ._face import Face

T = TypeVar("T")

log = logging.getLogger("edgepool.pool")

# How long `close` waits for connects under way, in seconds: a thread that waits for a
# silent server cannot be interrupted, and is left to itself.
HANGING = 1.0


class Lease(Generic[T]):
    """A borrower's claim on a resource, from `with` to its end."""

    __slots__ = ("_driver", "_entry", "_timeout")

    def __init__(self, driver: ThreadDriver[T], timeout: float | None) -> None:
        self._driver = driver
        self._timeout = timeout
        self._entry: Entry[T] | None = None

    def __enter__(self) -> T:
        driver = self._driver
        now = driver.clock()
        owner = get_ident()
        entry = driver.core.borrow(now, owner)
        if entry is None or now >= entry.due_at:
            entry = driver.settle(entry, now, self._timeout, owner)
        self._entry = entry
        if driver.tracker is None:
            frame, note = _getframe(1), entry.tether.note
            note.code, note.offset = frame.f_code, frame.f_lasti
        else:
            driver.tracker.note(entry.tether, 1)
        return entry.resource

    def __exit__(self, *exc_info: object) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self._driver.put(entry)


class Pool(Face[T, Adapter[T]]):
    """A pool of anything, for threads. Its arguments are those of `Face`."""

    __module__ = "edgepool"

    _engine: ThreadDriver[T]
    _hanging = HANGING

    def _start_engine(self, name: str, core: PoolCore[T], adapter: Adapter[T]) -> None:
        self._engine = engine = ThreadDriver(name, core, adapter)
        engine.before_waiting = self._must_be_open
        engine.alarm = self.reconnect_failed

    @property
    def _driver(self) -> ThreadDriver[T]:
        return self._engine

    def borrow(self, timeout: float | None = None) -> Lease[T]:
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
        return Lease(self._engine, timeout)

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
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
            self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are open.

        Raises:
            PoolTimeout: they are not, after `timeout` seconds; the pool is closed then.
            ConnectFailed: connecting fails, and waiting would not help; the same.
            PoolClosed: the pool is not open, or was closed meanwhile.
            TypeError, ValueError: `timeout` is no number.
        """
        must_be_seconds(timeout)
        self._must_be_open()
        engine = self._engine
        waiter = engine.park(engine.core.when_ready, engine.clock() + timeout)
        if waiter.refusal is None:
            return
        error = self._not_ready(waiter, timeout, engine.clock())
        self._give_up()
        raise error

    def _give_up(self) -> None:
        """Close; what is being opened has had its time, and is not waited for."""
        self._hanging = 0.0
        self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool.

        Who waits is told so at once, who comes later too. Idle connections are closed
        now; borrowed ones when they are returned. After `timeout` seconds those still
        borrowed are cut off. Leaves no thread behind. Without effect on a closed pool.

        Raises:
            TypeError, ValueError: `timeout` is no number.
        """
        must_be_seconds(timeout)
        engine = self._engine
        was_open = engine.core.open
        # Of a pool that is closed and empty, only what was given up is at work yet.
        hangs = not (was_open or engine.statistics().size)
        until = engine.clock() + timeout
        engine.tell(engine.core.close)
        hanging, self._hanging = self._hanging, HANGING
        soon = min(until, engine.clock() + hanging)
        waiter = engine.park(engine.core.when_empty, soon)
        if waiter.refusal is not None and soon < until:
            hangs = True
            engine.tell(engine.core.abort_connects)
            waiter = engine.park(engine.core.when_empty, until)
        if waiter.refusal is not None:
            engine.tell(engine.core.abort)
            log.warning("%s: cut off what was not back in %g s", self.name, timeout)
        engine.leave(hangs)
        if was_open:
            log.info("%s: closed", self.name)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the size at run time.

        Connections beyond a smaller `max_size` are closed now if they are idle, else
        when they are returned.

        Raises:
            ValueError: the sizes are out of range.
        """
        self._resize(min_size, max_size)

    def drain(self, *, over: float = 0.0) -> None:
        """Replace all connections: the idle ones now, the others on their return.

        Args:
            over: replace them one after the other, in so many seconds; each after its
                successor is connected, where max_size leaves room for that.

        Raises:
            TypeError, ValueError: `over` is no number, negative or not finite.
        """
        self._drain(over)

    def check(self) -> None:
        """Check all idle connections now, one after the other; replace the dead."""
        _flows.run(_flows.check_idle(self._engine))

    def reconnect_failed(self) -> None:
        """Call the user's `reconnect_failed`. Called by the pool; may be overridden."""
        if self._reconnect_failed is not None:
            self._reconnect_failed(self)
