"""What both facades show: the settings, the numbers, the name."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import random
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from ._core import (
    NEVER,
    PROBE_AFTER,
    RENEWAL,
    STAGGER,
    Nested,
    PoolCore,
    PoolStatistics,
    Refusal,
    Settings,
    Waiter,
)
from ._errors import PoolClosed, PoolTimeout, refused

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
P = ParamSpec("P")

log = logging.getLogger("edgepool.pool")


class Engine(Protocol[T]):
    """What a facade needs of its driver."""

    name: str

    @property
    def core(self) -> PoolCore[T]: ...

    def start(self) -> None: ...

    def track_borrows(self) -> None: ...

    def tell(
        self, event: Callable[Concatenate[float, P], R], *args: P.args, **kw: P.kwargs
    ) -> R: ...

    def statistics(self) -> PoolStatistics: ...


class Face(Generic[T, A]):
    """The part of a pool that neither waits nor works.

    The settings may be changed at run time; a new value holds for what happens from
    then on (a connection keeps the lifetime with which it was opened).

    Args:
        adapter: how to open, check, reset and close the resources.
        min_size: how many to keep open.
        max_size: how many there are at most, in whatever state. Default: min_size.
        open: True: open now. False: when `open()` or `with` says so. None: then, or at
            the first borrow; so a pool made before a fork is opened after it.
        name: for log lines and errors. Default: `pool-N`.
        timeout: how long a borrow may take, in seconds: the queue, the connect and the
            check together. 0: take an idle one, or be refused at once.
        max_waiting: how many may wait; one more is refused at once. 0: no limit.
        max_lifetime: the age in seconds at which a resource is replaced. Up to 5 % is
            taken off, drawn once for each.
        max_idle: how long one beyond min_size may stay unused, in seconds.
        max_connecting: how many are opened at the same time, at most. One while
            connecting fails.
        check_after: a check is due before a borrow if the resource was not proven alive
            for so many seconds; above 0, idle ones are also checked in the background
            that often. 0: at each borrow. Infinity: never.
        shed_target: how long a wait may be that is no sign of an overload, in seconds.
            In an overload, whoever has waited for twice as long is sent away with
            `PoolOverloaded`. None: nobody is.
        shed_interval: it is an overload if for so many seconds nobody who waited was
            served within shed_target.
        reconnect_timeout: how long connecting may fail, in seconds, before
            `reconnect_failed` is called. The pool goes on trying in any case.
        reconnect_failed: called with the pool when connecting has failed for so long,
            and again each time that it has failed for so long again.
        nested: what becomes of a thread or task that would wait for itself, since all
            resources are lent to those who wait for one. "error": it is refused at
            once; "wait": it waits for its timeout.
        track_borrows: note who borrows what, and where: for the warnings about what
            was never returned.

    Raises:
        ValueError: an argument is out of range; says which, its value and the limit.
    """

    _numbers: ClassVar[count[int]] = count(1)

    _reconnect_failed: Any

    def __init__(
        self,
        adapter: A,
        *,
        min_size: int = 4,
        max_size: int | None = None,
        open: bool | None = None,
        name: str | None = None,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 60 * 60.0,
        max_idle: float = 10 * 60.0,
        max_connecting: int = 10,
        check_after: float = 0.0,
        shed_target: float | None = None,
        shed_interval: float = 1.0,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: Callable[[Any], object] | None = None,
        nested: Nested = "error",
        track_borrows: bool = False,
    ) -> None:
        min_size, max_size = self._sizes(min_size, max_size)
        settings = Settings(
            min_size=min_size,
            max_size=max_size,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            max_connecting=max_connecting,
            check_after=check_after,
            probe_after=PROBE_AFTER if hasattr(adapter, "is_alive") else NEVER,
            stagger=STAGGER,
            renewal=RENEWAL,
            reconnect_timeout=reconnect_timeout,
            nested=nested,
            shed_target=shed_target,
            shed_interval=shed_interval,
        )
        self._set_up(adapter, settings, open, name, reconnect_failed, track_borrows)

    def _set_up(
        self,
        adapter: A,
        settings: Settings,
        open: bool | None,
        name: str | None,
        reconnect_failed: Callable[[Any], object] | None,
        track_borrows: bool,
    ) -> None:
        self._open_lazily = open is None
        self._reconnect_failed = reconnect_failed
        core = PoolCore[T](settings, jitter=random)
        self._start_engine(name or f"pool-{next(Face._numbers)}", core, adapter)
        if track_borrows:
            self._driver.track_borrows()
        if open:
            self._open()

    @property
    @abstractmethod
    def _driver(self) -> Engine[T]:
        """The engine, as far as this part needs it."""

    @abstractmethod
    def _start_engine(self, name: str, core: PoolCore[T], adapter: A) -> None:
        """Make the driver. Each facade has its own."""

    def _open(self) -> None:
        if not self._driver.core.open:
            self._driver.start()
            log.info("%s: open", self.name)

    def _must_be_open(self) -> None:
        """Open a lazy pool at its first use; refuse a pool that is not open."""
        core = self._driver.core
        if core.open:
            return
        if not core.fresh:
            raise PoolClosed(f"the pool {self.name!r} is already closed")
        if not self._open_lazily:
            raise PoolClosed(f"the pool {self.name!r} is not open yet")
        self._open()

    def _configure_core(self, **changes: Any) -> None:
        core = self._driver.core
        self._driver.tell(core.configure, replace(core.settings, **changes))

    def _sizes(self, min_size: int, max_size: int | None) -> tuple[int, int]:
        """Give the sizes that are meant; the rest of validation is the settings'."""
        if max_size is not None:
            return min_size, max_size
        if min_size == 0:  # the settings would blame a max_size that nobody has given
            raise ValueError("if min_size is 0, max_size must be given: at least 1")
        return min_size, min_size

    @staticmethod
    def _must_be_finite(over: float) -> None:
        if not isinstance(over, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"over must be a number, not {over!r}")
        if not 0 <= over < NEVER:
            raise ValueError(f"over must be at least 0 and finite, not {over!r}")

    def _drain(self, over: float) -> None:
        self._must_be_finite(over)
        core = self._driver.core
        if over:
            self._driver.tell(core.drain_over, over)
            log.info("%s: draining over %g s", self.name, over)
        else:
            self._driver.tell(core.drain)
            log.info("%s: draining", self.name)

    def _resize(self, min_size: int, max_size: int | None) -> None:
        min_size, max_size = self._sizes(min_size, max_size)
        self._configure_core(min_size=min_size, max_size=max_size)
        log.info(
            "%s: resized to min_size=%d, max_size=%d", self.name, min_size, max_size
        )

    def _not_ready(self, waiter: Waiter[T], timeout: float, now: float) -> Exception:
        """Make the error of `wait`."""
        statistics, waited = self.statistics(), now - waiter.since
        if waiter.refusal is not Refusal.TIMEOUT:
            return refused(waiter, self.name, statistics, waited)
        error = PoolTimeout(
            f"pool initialization incomplete after {timeout} sec", statistics, waited
        )
        error.__cause__ = waiter.cause
        return error

    @property
    def name(self) -> str:
        """The pool's name: in log lines, errors and statistics."""
        return self._driver.name

    @name.setter
    def name(self, value: str) -> None:
        self._driver.name = value

    @property
    def closed(self) -> bool:
        """True if the pool is not open: not yet, or no more."""
        return not self._driver.core.open

    @property
    def min_size(self) -> int:
        """How many connections the pool keeps open; see `resize`."""
        return self._driver.core.settings.min_size

    @property
    def max_size(self) -> int:
        """How many connections the pool has at most; see `resize`."""
        return self._driver.core.settings.max_size

    @property
    def timeout(self) -> float:
        """How long a borrow may take by default, in seconds."""
        return self._driver.core.settings.timeout

    @timeout.setter
    def timeout(self, value: float) -> None:
        self._configure_core(timeout=value)

    @property
    def max_waiting(self) -> int:
        """How many may wait at the same time; 0 is no limit."""
        return self._driver.core.settings.max_waiting

    @max_waiting.setter
    def max_waiting(self, value: int) -> None:
        self._configure_core(max_waiting=value)

    @property
    def max_lifetime(self) -> float:
        """The age at which a connection is replaced, in seconds."""
        return self._driver.core.settings.max_lifetime

    @max_lifetime.setter
    def max_lifetime(self, value: float) -> None:
        self._configure_core(max_lifetime=value)

    @property
    def max_idle(self) -> float:
        """How long a connection beyond min_size may stay unused, in seconds."""
        return self._driver.core.settings.max_idle

    @max_idle.setter
    def max_idle(self, value: float) -> None:
        self._configure_core(max_idle=value)

    @property
    def max_connecting(self) -> int:
        """How many connections are opened at the same time, at most."""
        return self._driver.core.settings.max_connecting

    @max_connecting.setter
    def max_connecting(self, value: int) -> None:
        self._configure_core(max_connecting=value)

    @property
    def check_after(self) -> float:
        """How long a connection counts as alive without a check, in seconds."""
        return self._driver.core.settings.check_after

    @property
    def shed_target(self) -> float | None:
        """Which wait is no sign of an overload, in seconds, or None."""
        return self._driver.core.settings.shed_target

    @shed_target.setter
    def shed_target(self, value: float | None) -> None:
        self._configure_core(shed_target=value)

    @property
    def shed_interval(self) -> float:
        """How long waits exceed shed_target before it is an overload, in seconds."""
        return self._driver.core.settings.shed_interval

    @shed_interval.setter
    def shed_interval(self, value: float) -> None:
        self._configure_core(shed_interval=value)

    @property
    def reconnect_timeout(self) -> float:
        """How long connecting may fail, in seconds, before `reconnect_failed`."""
        return self._driver.core.settings.reconnect_timeout

    @reconnect_timeout.setter
    def reconnect_timeout(self, value: float) -> None:
        self._configure_core(reconnect_timeout=value)

    @property
    def nested(self) -> Nested:
        """What becomes of who would wait for himself: "error" or "wait"."""
        return self._driver.core.settings.nested

    @nested.setter
    def nested(self, value: Nested) -> None:
        self._configure_core(nested=value)

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the pool."""
        return self._driver.statistics()

    def __repr__(self) -> str:
        s = self.statistics()
        cls = type(self)
        return (
            f"<{cls.__module__}.{cls.__qualname__} {self.name!r}"
            f" {'closed' if self.closed else 'open'}, {s.in_use} in use, {s.idle} idle,"
            f" {s.waiting} waiting, max {self.max_size}>"
        )
