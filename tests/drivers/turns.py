"""Threads that take turns, in virtual time.

What `JumpingLoop` is for tasks, this is for threads: of all threads, one runs, and it
runs until it waits. Then it is the turn of whoever was woken first. When everybody
waits, the clock jumps to the next timeout. So a test of the thread driver takes no
time, and twice the same test does twice the same.

The driver under test is the real one; only what it waits with is from here: locks,
conditions, events, threads and the clock.

With dice, a thread may lose its turn at any line of edgepool's code, as it may with the
interpreter's own scheduler; but the same dice give the same schedule.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path

import edgepool

SOURCES = str(Path(edgepool.__file__).parent)

# How often a thread loses its turn, with dice: once in so many lines.
LINES = 10


class Stay:
    """One wait of one thread, from its beginning to its end."""

    def __init__(self):
        self.gate = threading.Lock()
        self.gate.acquire()
        self.thread = threading.current_thread()
        self.over = False
        self.woken = False
        self.interruption = None


class Turns:
    """Whose turn it is, and what time. Made by the thread that has the first turn.

    Args:
        dice: say when a thread loses its turn, and who is next. None: when it waits,
            and who was woken first.
    """

    def __init__(self, dice=None):
        self._dice = dice
        self._now = 0.0
        self._ready = deque()
        self._until_quiet = deque()
        self._timeouts = []
        self._order = count()
        # The stay of each thread that waits.
        self._parked = {}
        self._main = threading.current_thread()
        self._ended = False
        self.threads = []

    # --- what a test asks for -----------------------------------------------------

    def time(self):
        return self._now

    def sleep(self, seconds):
        self.stay(Stay(), seconds)

    def quiet(self):
        """Wait until every other thread waits, without letting time pass."""
        stay = Stay()
        self._until_quiet.append(stay)
        self.stay(stay, None)

    def interrupt(self, thread, interruption):
        """Let an exception come out of where a thread waits, as Ctrl-C does.

        Also if it has been woken in this very moment, and has not had its turn yet.
        """
        stay = self._parked[thread]
        stay.interruption = interruption
        self.wake(stay)

    @property
    def running(self):
        """The threads that were started and have not ended."""
        return [thread for thread in self.threads if not thread.ended]

    def end(self):
        """End all threads: whoever waits, now or later, gets a SystemExit."""
        self._ended = True
        if self._dice is not None:
            sys.settrace(None)
        for stay in [*self._ready, *self._parked.values()]:
            if stay.gate.locked():
                stay.gate.release()
        for thread in self.threads:
            threading.Thread.join(thread)

    # --- what the primitives are made of ------------------------------------------

    def stay(self, stay, timeout):
        """Wait until somebody wakes this stay (True), or the time is up (False)."""
        self._must_go_on()
        if timeout is not None:
            heappush(self._timeouts, (self._now + timeout, next(self._order), stay))
        self._parked[stay.thread] = stay
        self.pass_on()
        stay.gate.acquire()
        del self._parked[stay.thread]
        self._must_go_on()
        if stay.interruption is not None:
            raise stay.interruption
        return stay.woken

    def _must_go_on(self):
        if self._ended and threading.current_thread() is not self._main:
            raise SystemExit

    def trace(self):
        """Let the thread that calls this lose its turn now and then."""
        if self._dice is not None:
            sys.settrace(self._trace_call)

    def _trace_call(self, frame, event, argument):
        path = frame.f_code.co_filename
        if path.startswith(SOURCES) and "testing" not in path:
            return self._trace_line
        return None

    def _trace_line(self, frame, event, argument):
        if event == "line" and not self._ended and self._dice.random() * LINES < 1:
            stay = Stay()
            self.wake(stay)
            self.stay(stay, None)
        return self._trace_line

    def wake(self, stay):
        if not stay.over:
            stay.over = stay.woken = True
            self._ready.append(stay)

    def pass_on(self):
        """Give the turn to the next thread."""
        if self._ended:
            return
        following = self._next()
        if following is None:
            following = self._parked[self._main]
            following.over = True
            following.interruption = RuntimeError(
                f"nothing will ever happen any more: {len(self.running)} threads wait,"
                f" and none of them has a timeout (at {self._now:g} s)"
            )
        following.gate.release()

    def _next(self):
        if self._ready:
            if self._dice is not None:
                self._ready.rotate(self._dice.randrange(len(self._ready)))
            return self._ready.popleft()
        while self._timeouts and self._timeouts[0][-1].over:
            heappop(self._timeouts)
        if self._until_quiet and not self._is_due():
            return self._until_quiet.popleft()
        if not self._timeouts:
            return None
        when, _, stay = heappop(self._timeouts)
        stay.over = True
        self._now = max(self._now, when)
        return stay

    def _is_due(self):
        return self._timeouts and self._timeouts[0][0] <= self._now

    # --- the primitives -----------------------------------------------------------

    @property
    def primitives(self):
        """What modules import to wait with, by the names that it has there."""
        return {
            "Condition": partial(TurnCondition, self),
            "Event": partial(TurnEvent, self),
            "Lock": partial(TurnLock, self),
            "RLock": partial(TurnRLock, self),
            "Thread": self.thread,
            "allocate_lock": partial(TurnLock, self),
            "monotonic": self.time,
        }

    def thread(self, **arguments):
        thread = TurnThread(self, **arguments)
        self.threads.append(thread)
        return thread


class TurnLock:
    def __init__(self, turns):
        self._turns = turns
        self._locked = False
        self._stays = deque()

    def acquire(self, blocking=True, timeout=-1):
        if not self._locked:
            self._locked = True
            return True
        if not blocking or timeout == 0:
            return False
        stay = Stay()
        self._stays.append(stay)
        return self._turns.stay(stay, None if timeout < 0 else timeout)

    def release(self):
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        while self._stays:
            stay = self._stays.popleft()
            if not stay.over:
                self._turns.wake(stay)  # the lock is handed over, and stays locked
                return
        self._locked = False

    def locked(self):
        return self._locked

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exc_info):
        self.release()


class TurnRLock:
    def __init__(self, turns):
        self._lock = TurnLock(turns)
        self._owner = None
        self._depth = 0

    def acquire(self):
        if self._owner is not threading.current_thread():
            self._lock.acquire()
            self._owner = threading.current_thread()
        self._depth += 1

    def _is_owned(self):
        return self._owner is threading.current_thread()

    def release(self):
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()

    def __enter__(self):
        self.acquire()

    def __exit__(self, *exc_info):
        self.release()


class TurnCondition:
    """A condition; its lock is reentrant, unless it is given one."""

    def __init__(self, turns, lock=None):
        self._turns = turns
        self._lock = lock or TurnRLock(turns)
        self._stays = deque()

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *exc_info):
        self._lock.__exit__()

    def wait(self, timeout=None):
        stay = Stay()
        self._stays.append(stay)
        self._lock.release()
        try:
            return self._turns.stay(stay, timeout)
        finally:
            self._lock.acquire()

    def notify(self):
        while self._stays:
            stay = self._stays.popleft()
            if not stay.over:
                self._turns.wake(stay)
                return

    def notify_all(self):
        while self._stays:
            self.notify()


class TurnEvent:
    def __init__(self, turns):
        self._turns = turns
        self._set = False
        self._stays = []

    def set(self):
        self._set = True
        for stay in self._stays:
            self._turns.wake(stay)
        self._stays = []

    def wait(self, timeout=None):
        if not self._set:
            stay = Stay()
            self._stays.append(stay)
            self._turns.stay(stay, timeout)
        return self._set


class TurnThread(threading.Thread):
    def __init__(self, turns, **arguments):
        super().__init__(**arguments)
        self._turns = turns
        self._first = Stay()
        self._end = TurnEvent(turns)
        self.ended = False

    def start(self):
        self._turns.wake(self._first)
        if self._turns._ended:  # one that ends has another take its place
            self._first.gate.release()
        super().start()

    def run(self):
        self._first.gate.acquire()
        try:
            self._turns._must_go_on()
            self._turns.trace()
            super().run()
        except SystemExit:
            pass  # the test has ended
        finally:
            sys.settrace(None)
            self.ended = True
            self._end.set()
            self._turns.pass_on()

    def join(self, timeout=None):
        self._end.wait(timeout)
