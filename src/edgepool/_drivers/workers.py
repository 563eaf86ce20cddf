"""Short-lived daemon threads for what may block: connects, checks, resets.

A worker that has finished stays for a moment, because work comes in bursts and starting
a thread costs more than waking one; then it leaves. Not a ThreadPoolExecutor: the
interpreter joins its threads at exit, so a connect that hangs would hang the exit.

A job is put on the list first, and then a worker is called for it. Whichever worker is
free takes it from there; one who finds nothing to do does no harm. If a worker is
interrupted, another one calls the job again. So an interruption anywhere can cost a
worker, but no job; and a job has to bear being called twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, RLock, Thread, current_thread
from time import monotonic

from . import fork
from .locks import let_go

Job = Callable[[], object]

# How long a worker waits for more work, in seconds.
LINGER = 0.2

# How long to wait until all that are sent away have gone, in seconds.
PATIENCE = 0.4


class _Worker:
    __slots__ = ("gate", "job", "leaving", "owner", "thread")

    def __init__(self, owner: int, run: Callable[[_Worker], None]) -> None:
        # Whose job it does, or did: an id, so that a pool is not kept alive by it.
        self.owner = owner
        self.job: Job | None = None
        self.leaving = False
        self.thread = Thread(
            target=run, args=(self,), name="edgepool-worker", daemon=True
        )
        self.gate = Lock()
        self.gate.acquire()


class Workers:
    """Threads on demand, shared by all pools of the process."""

    def __init__(self) -> None:
        self._begin()
        fork.enrol(self)

    def start_over(self, parent: int) -> None:
        """Begin again: in a child there is no thread, and the lock may be held."""
        self._begin()

    def _begin(self) -> None:
        self._lock = RLock()
        self._jobs: deque[tuple[Job, int]] = deque()
        self._all: dict[_Worker, None] = {}
        self._idle: list[_Worker] = []

    def submit(self, job: Job, owner: int) -> None:
        """Run a job in a thread that is or becomes free now.

        Raises:
            RuntimeError: no thread can be started.
        """
        item = (job, owner)
        self._jobs.append(item)
        try:
            self._call_worker(owner)
        except RuntimeError:
            try:
                self._jobs.remove(item)
            except ValueError:  # a worker has become free in this very moment
                return
            raise
        except BaseException:  # interrupted, perhaps before anybody was called
            let_go(self._lock)
            self._call_worker(owner)
            raise

    def rest(self, owner: int, hangs: bool = False) -> None:
        """Send away the idle workers, and those of one pool that are about to be idle.

        Waits until they have gone; but not for long, for one may still be at work, and
        not for those that are if their work `hangs`.
        """
        try:
            leaving = self._send_away(owner)
        except BaseException:
            let_go(self._lock)
            raise
        until = monotonic() + PATIENCE
        for worker in leaving:
            if hangs and worker.job is not None:
                continue
            if worker.thread.is_alive() and worker.thread is not current_thread():
                worker.thread.join(timeout=max(until - monotonic(), 0.0))

    def _send_away(self, owner: int) -> list[_Worker]:
        with self._lock:
            everybody = list(self._all)
            leaving = [w for w in everybody if w.owner == owner or w in self._idle]
            for worker in leaving:
                worker.leaving = True
            while self._idle:
                self._idle.pop().gate.release()
        return leaving

    def _call_worker(self, owner: int) -> None:
        # Popped without a look before: a finaliser in between may call one, too.
        with self._lock, suppress(IndexError):
            called = self._idle.pop()
            called.owner = owner
            called.gate.release()
            return
        worker = _Worker(owner, self._run)
        self._all[worker] = None
        try:
            worker.thread.start()
        except BaseException:
            self._all.pop(worker, None)
            raise

    def _run(self, worker: _Worker) -> None:
        try:
            while True:
                self._do_jobs(worker)
                if not self._is_called(worker):
                    return
        finally:
            let_go(self._lock)  # it may have been interrupted
            self._all.pop(worker, None)
            if worker in self._idle:
                self._idle.remove(worker)
            if worker.job is not None:
                self._jobs.appendleft((worker.job, worker.owner))
            if self._jobs:
                self._call_worker(worker.owner)

    def _do_jobs(self, worker: _Worker) -> None:
        while True:
            try:
                worker.job, worker.owner = self._jobs.popleft()
            except IndexError:
                return
            worker.job()
            worker.job = None

    def _is_called(self, worker: _Worker) -> bool:
        """Wait for a moment; tell whether there may be more to do."""
        with self._lock:
            if worker.leaving:
                return False
            self._idle.append(worker)
        woken = worker.gate.acquire(timeout=LINGER)
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return False
        if not woken:  # it was called in the very moment in which it gave up
            worker.gate.acquire(False)
        return True


workers = Workers()
