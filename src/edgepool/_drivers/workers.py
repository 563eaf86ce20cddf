"""Short-lived daemon threads for what may block: connects, checks, resets.

A worker that has finished stays for a moment, because work comes in bursts and starting
a thread costs more than waking one; then it leaves. Not a ThreadPoolExecutor: the
interpreter joins its threads at exit, so a connect that hangs would hang the exit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock, Thread

Job = Callable[[], object]

# How long a worker waits for more work, in seconds.
LINGER = 0.2


class _Worker:
    __slots__ = ("gate", "job", "thread")

    def __init__(self, job: Job) -> None:
        self.job: Job | None = job
        self.gate = Lock()
        self.gate.acquire()
        self.thread: Thread | None = None


class Workers:
    """Threads on demand, shared by all pools of the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: list[_Worker] = []

    def submit(self, job: Job) -> None:
        """Run a job in a thread that is or becomes free now."""
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.job = job
                worker.gate.release()
                return
        worker = _Worker(job)
        worker.thread = Thread(
            target=self._run, args=(worker,), name="edgepool-worker", daemon=True
        )
        worker.thread.start()

    def rest(self) -> None:
        """Send the idle workers away, and wait until they have gone."""
        with self._lock:
            leaving, self._idle = self._idle, []
            for worker in leaving:
                worker.gate.release()
        for worker in leaving:
            if worker.thread is not None:
                worker.thread.join(timeout=1.0)

    def _run(self, worker: _Worker) -> None:
        while worker.job is not None:
            worker.job()
            worker.job = None
            with self._lock:
                self._idle.append(worker)
            woken = worker.gate.acquire(timeout=LINGER)
            with self._lock:
                if worker in self._idle:  # it waited in vain
                    self._idle.remove(worker)
                elif not woken:  # a job came in the very moment in which it gave up
                    worker.gate.acquire()


workers = Workers()

if hasattr(os, "register_at_fork"):
    # The threads do not exist in a forked child, and the lock may be held for ever.
    os.register_at_fork(after_in_child=workers.__init__)  # type: ignore[misc]
