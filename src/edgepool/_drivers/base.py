"""What both drivers have: the adapter's powers, and a new beginning after a fork."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from time import monotonic, time
from typing import Any, TypeVar

from .._adapter import Adapter, AsyncAdapter
from .._core import NEVER, Entry, ErrorClass, PoolCore
from .._flows import Driver
from . import fork
from .housekeeper import WeakCallback
from .tracking import Tracker

T = TypeVar("T")

log = logging.getLogger("edgepool.pool")

# The monotonic clock may stand still while a machine is suspended, and the wall clock
# does not. If it gains more than this, in seconds, the other side may have hung up
# without a chance to say so. In less than that nobody does.
SUSPENDED = 10.0

# Nobody falls asleep and wakes up again in so short a rest, in seconds. So a busy pool
# does not look at the wall clock, which costs a tenth of a microsecond.
NAP = 0.010

RoundTrip = Callable[[T], Coroutine[Any, Any, None]]
"""A step that takes a round trip, in the shape that flows await."""


def _left_alone(resource: object) -> None:
    """Stand in for `disown` of an adapter that has none."""


def _always_alive(resource: object) -> bool:
    """Stand in for `is_alive` of an adapter that has none."""
    return True


def _strangers(entry: object, resource: object) -> None:
    """Stand in for `introduce` of an adapter that has none."""


def _nothing_special(error: Exception) -> ErrorClass:
    """Stand in for `classify` of an adapter that has none."""
    return ErrorClass.ORDINARY


def _for_ever(resource: object) -> float:
    """Stand in for `lasts` of an adapter that has none."""
    return NEVER


def _may_wait(resource: object) -> bool:
    """Stand in for `closes_at_once` of an adapter that has none."""
    return False


class DriverBase(Driver[T]):
    """What a driver is before it waits for anything.

    Args:
        name: the pool's name, for log lines and errors.
        core: the decisions.
        given: how to handle the resources.
        adapter: the same, in the shape that flows await.
    """

    def __init__(
        self,
        name: str,
        core: PoolCore[T],
        given: Adapter[T] | AsyncAdapter[T],
        adapter: AsyncAdapter[T],
    ) -> None:
        self.name = name
        self.adapter = adapter
        # A fake's, which may be virtual, or the real ones.
        self.clock: Callable[[], float] = getattr(given, "clock", monotonic)
        self.wall: Callable[[], float] = getattr(given, "clock", time)
        # Notes who borrows, if the user wants that.
        self.tracker: Tracker | None = None
        self.is_clean = given.is_clean
        # The rest only some adapters have.
        self.is_alive = getattr(given, "is_alive", _always_alive)
        self.introduce = getattr(given, "introduce", _strangers)
        self.configure = getattr(adapter, "configure", None)
        self.cancel = getattr(adapter, "cancel", None)
        self.classify = getattr(given, "classify", _nothing_special)
        self.lasts = getattr(given, "lasts", _for_ever)
        self._abort: Callable[[T], None] | None = getattr(given, "abort", None)
        # Closing a psycopg connection mostly waits for nobody: not worth a thread or a
        # task.
        self._closes_at_once: Callable[[T], bool]
        self._closes_at_once = getattr(given, "closes_at_once", _may_wait)
        self._disown: Callable[[T], object] = getattr(given, "disown", _left_alone)
        self._begin(core)
        fork.enrol(self)

    def _begin(self, core: PoolCore[T]) -> None:
        self.core = core
        core.nudge = WeakCallback(self._nudge)  # type: ignore[method-assign]
        self.faces = set()
        self._wall_ahead = self.wall() - self.clock()
        # In a forked child, until there is something to do: who forked it.
        self._parent = 0

    def start_over(self, parent: int) -> None:
        """Leave all that there is to the parent process: this is a forked child."""
        inherited = self.core
        self._begin(inherited.successor())
        self._parent = parent
        fork.each(self._disown, inherited.disown())

    def _report_fork(self) -> None:
        """Say so if the pool is used in a forked child for the first time."""
        if self._parent:
            parent, self._parent = self._parent, 0
            fork.report(self.name, parent)

    def _look_at_the_wall(self) -> None:
        """If the machine was suspended since the last look, replace everything.

        A probe asks the operating system, which was suspended as well.
        """
        ahead = self.wall() - self.clock()
        gained = ahead - self._wall_ahead
        if gained > SUSPENDED:
            self.tell(self.core.drain)
            log.info(
                "%s: suspended for %.0f s: replacing all connections",
                *(self.name, gained),
            )
        self._wall_ahead = ahead

    @abstractmethod
    def _nudge(self) -> None:
        """Have the core collect what was lost. Called by the garbage collector."""

    def _look_for_the_lost(self) -> None:
        if self.tracker is not None:
            self.tracker.look(self.name, self.core.lent())

    def _cut_off(self, entry: Entry[T]) -> None:
        """End I/O on a resource from outside, if the adapter can do that."""
        resource = entry.reach()
        if self._abort is not None and resource is not None:
            self._abort(resource)
