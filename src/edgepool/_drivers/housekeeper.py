"""The one thread of a process that keeps time for all its thread pools.

It starts with the first deadline and leaves with the last. It is a daemon and holds no
lock while it runs a callback, so it delays neither the pools nor the process's end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, Thread, current_thread
from time import monotonic
from weakref import WeakMethod

from . import fork
from .deadlines import Deadline, Deadlines

log = logging.getLogger("edgepool.housekeeper")

Callback = Callable[[], object]


class WeakCallback:
    """A callback that does not keep alive what it belongs to."""

    def __init__(self, method: Callable[[], object]) -> None:
        self.method = WeakMethod(method)

    def __call__(self) -> None:
        """Call back, if there is anybody left."""
        if (method := self.method()) is not None:
            method()


def _is_abandoned(callback: Callback) -> bool:
    return isinstance(callback, WeakCallback) and callback.method() is None


class Housekeeper:
    """Calls callbacks at their time. They must be brief."""

    def __init__(self) -> None:
        self._begin()
        fork.enrol(self)

    def start_over(self, parent: int) -> None:
        """Begin again: in a child there is no thread, and the lock may be held."""
        self._begin()

    def _begin(self) -> None:
        self._condition = Condition()
        self._deadlines = Deadlines[Callback]()
        self._thread: Thread | None = None

    def call_at(self, when: float, callback: Callback) -> Deadline:
        """Call back at `when` (on the monotonic clock), or soon after."""
        with self._condition:
            sooner = when < self._deadlines.next
            deadline = self._deadlines.add(when, callback)
            if self._thread is None:
                self._thread = Thread(
                    target=self._run, name="edgepool-housekeeper", daemon=True
                )
                self._thread.start()
            elif sooner:
                self._condition.notify()
        return deadline

    def cancel(self, deadline: Deadline) -> bool:
        """Forget a deadline; False if it was called before."""
        with self._condition:
            cancelled = self._deadlines.remove(deadline)
            if self._deadlines.next == float("inf"):
                self._condition.notify()
        return cancelled

    def rest(self) -> None:
        """If nothing is left to do, wait until the thread has gone.

        What pools have left behind that were never closed, and are gone, is not left
        to do.
        """
        with self._condition:
            self._deadlines.drop(_is_abandoned)
            self._condition.notify()
            thread = self._thread
            if thread is current_thread() or self._deadlines.next < float("inf"):
                return
        if thread is not None:
            thread.join(timeout=1.0)

    def _run(self) -> None:
        while (callbacks := self._wait()) is not None:
            for callback in callbacks:
                try:
                    callback()
                except Exception:
                    log.exception("error in housekeeping")

    def _wait(self) -> list[Callback] | None:
        with self._condition:
            while True:
                now = monotonic()
                if due := self._deadlines.due(now):
                    return due
                following = self._deadlines.next
                if following == float("inf"):
                    self._thread = None
                    return None
                self._condition.wait(following - now)


housekeeper = Housekeeper()
