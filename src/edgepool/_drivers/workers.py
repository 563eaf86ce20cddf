"""Short-lived daemon threads for what may block: connects, checks, resets.

A worker that has finished stays for a moment, because work comes in bursts and starting
a thread costs more than waking one; then it leaves. Not a ThreadPoolExecutor: the
interpreter joins its threads at exit, so a connect that hangs would hang the exit.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread, current_thread
from time import monotonic

from . import fork

Job = Callable[[], object]

# How long a worker waits for more work, in seconds.
LINGER = 0.2

# How long to wait until all that are sent away have gone, in seconds.
PATIENCE = 0.4


class _Worker:
    __slots__ = ("gate", "job", "owner", "thread")

    def __init__(self, job: Job, owner: int) -> None:
        self.job: Job | None = job
        # Whose job it is, or was: an id, so that a pool is not kept alive by it.
        self.owner: int | None = owner
        self.gate = Lock()
        self.gate.acquire()
        self.thread: Thread | None = None


class Workers:
    """Threads on demand, shared by all pools of the process."""

    def __init__(self) -> None:
        self._begin()
        fork.enrol(self)

    def start_over(self, parent: int) -> None:
        """Begin again: in a child there is no thread, and the lock may be held."""
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()
        self._all: dict[_Worker, None] = {}
        self._idle: list[_Worker] = []

    def submit(self, job: Job, owner: int) -> None:
        """Run a job in a thread that is or becomes free now.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.job, worker.owner = job, owner
                worker.gate.release()
                return
        worker = _Worker(job, owner)
        worker.thread = Thread(
            target=self._run, args=(worker,), name="edgepool-worker", daemon=True
        )
        worker.thread.start()

    def rest(self, owner: int) -> None:
        """Send away the idle workers, and those of one pool that are about to be idle.

        Waits until they have gone; but not for long, for one may still be at work.
        """
        with self._lock:
            leaving = [w for w in self._all if w.owner == owner or w in self._idle]
            for worker in leaving:
                worker.owner = None
            for worker in self._idle:
                worker.gate.release()
            self._idle.clear()
        until = monotonic() + PATIENCE
        for worker in leaving:
            if worker.thread is not None and worker.thread is not current_thread():
                worker.thread.join(timeout=max(until - monotonic(), 0.0))

    def _run(self, worker: _Worker) -> None:
        with self._lock:
            self._all[worker] = None
        while worker.job is not None:
            worker.job()
            worker.job = None
            self._wait_for_job(worker)
        with self._lock:
            del self._all[worker]

    def _wait_for_job(self, worker: _Worker) -> None:
        with self._lock:
            if worker.owner is None:  # sent away
                return
            self._idle.append(worker)
        woken = worker.gate.acquire(timeout=LINGER)
        with self._lock:
            if worker in self._idle:  # it waited in vain
                self._idle.remove(worker)
            elif not woken:  # a job came in the very moment in which it gave up
                worker.gate.acquire()


workers = Workers()
