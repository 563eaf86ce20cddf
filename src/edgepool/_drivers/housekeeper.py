"""The one thread of a process that keeps time for all its thread pools.

It starts with the first deadline and leaves with the last. It is a daemon and holds no
lock while it runs a callback, so it delays neither the pools nor the process's end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import TIMEOUT_MAX, Lock, RLock, Thread, current_thread
from time import monotonic
from weakref import WeakMethod

from . import fork
from .deadlines import Deadline, Deadlines
from .locks import let_go

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
    """Calls callbacks at their time. They must be brief, and bear to be called twice.

    That happens if the thread is interrupted in one: another thread takes its place.
    """

    def __init__(self) -> None:
        self._begin()
        fork.enrol(self)

    def start_over(self, parent: int) -> None:
        """Begin again: in a child there is no thread, and the lock may be held."""
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()
        # What the thread waits at; not a Condition, which an interruption can tear.
        self._gate = Lock()
        self._gate.acquire()
        self._deadlines = Deadlines[Callback]()
        # Until when the thread waits, if it does: maybe for one that was cancelled.
        # What comes later need not wake it, or each check of a connection would.
        self._waits_until = float("inf")
        self._calling: Callback | None = None
        self._thread: Thread | None = None

    def call_at(self, when: float, callback: Callback) -> Deadline:
        """Call back at `when` (on the monotonic clock), or soon after."""
        deadline: Deadline = []
        try:
            with self._lock:
                sooner = when < self._waits_until
                deadline = self._deadlines.add(when, callback)
                self._wake_up(sooner)
        except BaseException:
            let_go(self._lock)
            if deadline:
                self.cancel(deadline)
            raise
        return deadline

    def cancel(self, deadline: Deadline) -> bool:
        """Forget a deadline; False if it was called before."""
        try:
            with self._lock:
                cancelled = self._deadlines.remove(deadline)
                self._wake_up(self._deadlines.next == float("inf"))
        except BaseException:
            let_go(self._lock)
            raise
        return cancelled

    def rest(self) -> None:
        """If nothing is left to do, wait until the thread has gone.

        What pools have left behind that were never closed, and are gone, is not left
        to do.
        """
        try:
            with self._lock:
                self._deadlines.drop(_is_abandoned)
                idle = self._deadlines.next == float("inf")
                thread = self._thread
                self._wake_up(idle)
        except BaseException:
            let_go(self._lock)
            raise
        if idle and thread is not None and thread is not current_thread():
            thread.join(timeout=1.0)

    def _wake_up(self, at_once: bool) -> None:
        """See to it that there is a thread, if it is needed. Called with the lock."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            if at_once and self._gate.locked():
                self._gate.release()
        elif self._deadlines.next < float("inf") or self._calling is not None:
            self._thread = Thread(
                target=self._run, name="edgepool-housekeeper", daemon=True
            )
            # No thread to be had: the next who comes tries again. A borrower, or who
            # returns, has nothing to do with it.
            with suppress(RuntimeError):
                self._thread.start()

    def _run(self) -> None:
        try:
            while (callback := self._wait()) is not None:
                try:
                    callback()
                except Exception:
                    log.exception("error in housekeeping")
                self._calling = None
        except BaseException:  # interrupted: another takes over
            let_go(self._lock)
            with self._lock:
                self._thread = None
                self._wake_up(False)
            raise

    def _wait(self) -> Callback | None:
        """Give what is to be called now, or was to be when the thread was interrupted.

        It is noted before it is taken out of the heap, and forgotten after the call.
        """
        while True:
            with self._lock:
                if self._thread is not current_thread():
                    return None  # it was interrupted, and another has its place
                if self._calling is not None:
                    return self._calling
                following = self._deadlines.next
                if following == float("inf"):
                    self._thread = None
                    return None
                patience = following - monotonic()
                if patience <= 0:
                    self._calling = self._deadlines.first
                    self._deadlines.take_first()
                    return self._calling
                self._waits_until = following
            self._gate.acquire(timeout=min(patience, TIMEOUT_MAX))


housekeeper = Housekeeper()
