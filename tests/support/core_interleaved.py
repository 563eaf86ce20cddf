"""Two threads of control in the core, interleaved at a bytecode of one's choice.

A thread switch can happen between any two bytecodes. Here it happens where the test
wants it: one piece of code (the victim) is watched while it runs; just before its n-th
bytecode inside the core another piece (the intruder) runs from beginning to end. A test
tries every n, and so every such interleaving.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Semaphore, Thread, get_ident
from types import CodeType, FrameType
from typing import Any

import edgepool._core
from edgepool._core import Check, Close, Connect, Entry, Reset, State, Waiter

from .core import Driven, Resource, nobody_sleeps

CORE = str(Path(edgepool._core.__file__).parent)

# These touch nothing but the frame's own stack and variables. A switch before one of
# them is the same as a switch before the next bytecode that is none of them.
PRIVATE = (
    *(
        "CACHE",
        "COPY",
        "DUP_",
        "EXTENDED_ARG",
        "NOP",
        "NOT_TAKEN",
        "POP_TOP",
        "PRECALL",
    ),
    *("PUSH_NULL", "RESUME", "ROT_", "SWAP"),
    *("LOAD_CONST", "LOAD_FAST", "LOAD_GLOBAL", "LOAD_SMALL_INT", "STORE_FAST"),
)
IS_PRIVATE = [name.startswith(PRIVATE) for name in dis.opname]

Part = Callable[[], object]


def preempt(victim: Part, intrusions: Iterable[tuple[int, Part]]) -> bool:
    """Run the victim; run each intruder before the bytecode with its number, from 0.

    Args:
        victim: what is stopped.
        intrusions: the numbers, in ascending order, and the intruders.

    Returns:
        Whether the victim has that many; else not all intruders have run.
    """
    count = -1
    pending = list(intrusions)

    def before(code: CodeType, offset: int) -> None:
        nonlocal count
        if not pending or IS_PRIVATE[bytecode(code)[offset]]:
            return
        count += 1
        while pending and pending[0][0] == count:
            _, intruder = pending.pop(0)
            with watching(None):
                intruder()

    with watching(before):
        victim()
    return not pending


def cross(first: Part, n: int, second: Part, m: int) -> tuple[bool, bool]:
    """Run the first up to its bytecode n, the second up to its m; then end both.

    Returns:
        Of each, whether it has that many bytecodes; else it has run to its end.
    """
    # The first runs in a thread of its own, which is stopped and let go by these two.
    stopped, go_on = Semaphore(0), Semaphore(0)
    errors: list[BaseException] = []
    reached = False

    def stop() -> None:
        nonlocal reached
        reached = True
        stopped.release()
        go_on.acquire()

    def run() -> None:
        try:
            preempt(first, [(n, stop)])
        except BaseException as error:
            errors.append(error)
        finally:
            stopped.release()

    thread = Thread(target=run)

    def end_first() -> None:
        go_on.release()
        thread.join()

    thread.start()
    stopped.acquire()
    second_reached = preempt(second, [(m, end_first)])
    end_first()
    if errors:
        raise errors[0]
    return reached, second_reached


@cache
def bytecode(code: CodeType) -> bytes:
    """Give the bytecode; the attribute is computed at each access."""
    return code.co_code


Watcher = Callable[[CodeType, int], None] | None

if sys.version_info >= (3, 12):
    # Of `frame.f_trace_opcodes` these versions take note too late.
    monitoring = sys.monitoring
    TOOL = 4
    watchers: dict[int, Watcher] = {}

    @contextmanager
    def watching(watcher: Watcher) -> Iterator[None]:
        """Call the watcher before each bytecode of this thread in the core."""
        instrument()
        thread = get_ident()
        before = watchers.get(thread)
        look(thread, watcher)
        try:
            yield
        finally:
            look(thread, before)

    def look(thread: int, watcher: Watcher) -> None:
        """Let a thread have this watcher from now on."""
        watchers[thread] = watcher
        if watcher is None:
            del watchers[thread]
        # Without a callback the bytecodes take a tenth of the time.
        callback = watch if watchers else None
        monitoring.register_callback(TOOL, monitoring.events.INSTRUCTION, callback)

    @cache
    def instrument() -> None:
        """Have each bytecode in the core watched from now on."""
        event = monitoring.events.INSTRUCTION
        monitoring.use_tool_id(TOOL, "interleavings")
        for name, module in list(sys.modules.items()):
            if name.startswith(edgepool._core.__name__):
                for code in code_in(module):
                    monitoring.set_local_events(TOOL, code, event)

    def watch(code: CodeType, offset: int) -> None:
        """Call the watcher of this thread."""
        watcher = watchers.get(get_ident())
        if watcher is not None:
            watcher(code, offset)

    def code_in(owner: Any) -> Iterator[CodeType]:
        """Give the code of the functions of a module, or of a class in it."""
        for value in vars(owner).values():
            function = getattr(value, "fget", value)
            code = getattr(function, "__code__", None)
            if code is not None and code.co_filename.startswith(CORE):
                yield code
                yield from (c for c in code.co_consts if isinstance(c, CodeType))
            elif isinstance(value, type) and value.__module__ == owner.__name__:
                yield from code_in(value)

else:

    @contextmanager
    def watching(watcher: Watcher) -> Iterator[None]:
        """Call the watcher before each bytecode of this thread in the core."""

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            if event == "call":
                if not frame.f_code.co_filename.startswith(CORE):
                    return None
                frame.f_trace_opcodes = True
                frame.f_trace_lines = False
            elif event == "opcode" and watcher is not None:
                watcher(frame.f_code, frame.f_lasti)
            return trace

        before = sys.gettrace()
        sys.settrace(None if watcher is None else trace)
        try:
            yield
        finally:
            sys.settrace(before)


class Contended(Driven):
    """A driven core whose driver has a lock, and borrowers who come at any time.

    What is told while the lock is held is told when it is free.
    """

    def __init__(self, **settings: Any) -> None:
        self.locked = False
        self.blocked: list[Callable[[], object]] = []
        # What is lent now, by the books of the borrowers.
        self.lent: list[Entry[Resource]] = []
        self.waiters: list[Waiter[Resource]] = []
        self.suspects: list[Entry[Resource]] = []
        super().__init__(**settings)

    def tell(self, event: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.locked:
            self.blocked.append(lambda: self.tell(event, *args, **kwargs))
            return None
        self.locked = True
        result = super().tell(event, *args, **kwargs)
        self.locked = False
        while self.blocked:
            self.blocked.pop(0)()
        return result

    def note_steps(self) -> None:
        """Do not: an entry is seen in the midst of a step."""

    def borrow(self) -> Entry[Resource] | None:
        """Borrow; wait if there is nothing."""
        entry = self.core.borrow(self.now, None)
        if entry is None:
            self.wait()
        else:
            self._is_lent(entry)
        return entry

    def borrow_at_once(self) -> None:
        """Borrow in no time: between two bytecodes of somebody else."""
        waiting = self.core.waiters()
        if self.borrow() is not None:
            assert not waiting, "a newcomer has overtaken"

    def wait(self, again: bool = False) -> Waiter[Resource]:
        waiter = Waiter[Resource](nobody_sleeps)
        self.tell(self._enqueue, waiter, again)
        return waiter

    def _enqueue(self, now: float, waiter: Waiter[Resource], again: bool) -> None:
        self.waiters.insert(0 if again else len(self.waiters), waiter)
        self.core.enqueue(now, waiter, again)

    def suspect(self) -> None:
        """Suspect all idle connections."""
        self.tell(lambda now: self.suspects.extend(self.core.suspect(now)))

    def lose(self, entry: Entry[Resource]) -> None:
        """Find a borrowed connection dead."""
        self.lent.remove(entry)
        self.tell(lambda now: self.suspects.extend(self.core.lost(now, entry)))

    def clear_suspects(self) -> None:
        """Find all suspects alive."""
        while self.suspects:
            entry = self.suspects.pop()
            self.tell(self.core.checked, entry, alive=True, proven=False)

    def give_back(self, entry: Entry[Resource]) -> None:
        self.lent.remove(entry)
        follow_up = self.core.give_back(self.now, entry)
        if follow_up is not None:
            self.tell(follow_up, entry)

    def give_back_as(self, event: Callable[..., Any], entry: Entry[Resource]) -> Any:
        """Give back what is not simply clean."""
        self.lent.remove(entry)
        return self.tell(event, entry)

    def receive_wake(self, waiter: Waiter[Resource]) -> None:
        super().receive_wake(waiter)
        if waiter.entry is not None:
            first = next(w for w in self.waiters if w is waiter or not w.resolved)
            assert first is waiter, "not first come, first served"
            self._is_lent(waiter.entry)

    def _is_lent(self, entry: Entry[Resource]) -> None:
        assert entry not in self.lent, "lent to two"
        self.lent.append(entry)

    # --- what has to hold when both are through -----------------------------------

    def check(self) -> None:
        """Each entry is in one place; nobody waits for what is idle; a timer is set."""
        stats = self.stats
        places = {
            State.IDLE: (self.idle, stats.idle),
            State.IN_USE: (self.lent, stats.in_use),
            State.CONNECTING: (self.wanted(Connect), stats.opening),
            State.CHECKING: (self.wanted(Check) + self.suspects, stats.checking),
            State.RESETTING: (self.wanted(Reset), stats.resetting),
            State.CLOSING: (self.wanted(Close), stats.closing),
        }
        everywhere = [entry for place, _ in places.values() for entry in place]
        assert len(everywhere) == len(set(everywhere)), "in two places"
        for state, (place, count) in places.items():
            inside = [entry for entry in place if not self._is_cut_off(entry)]
            assert count == len(inside), (state, place, stats)
            assert all(entry.state is state for entry in inside), (state, place)
        assert stats.size == sum(count for _, count in places.values())
        assert not (stats.waiting and stats.idle), "somebody waits, something is idle"
        if not self.core.open:
            assert 0 == stats.idle == stats.waiting

    def _is_cut_off(self, entry: Entry[Resource]) -> bool:
        return entry in self.aborted or entry.state in (State.ABORTED, State.GONE)

    def end(self) -> None:
        """Let everybody do their part, then close the pool: nothing is left."""
        while self.todo or self.lent or self.suspects:
            self.work()
            self.clear_suspects()
            while self.lent:
                self.give_back(self.lent[0])
        self.check()
        assert not self.stats.waiting, "forgotten"
        self.tell(self.core.close)
        self.work()
        assert 0 == self.stats.size == self.stats.closing == self.stats.in_use
        assert [] == self.living


Make = Callable[[], Contended]
Act = Callable[[Contended], object]


def interleave(make: Make, victim: Act, *intruders: Act) -> int:
    """Try all moments at which the intruders may come in between, one after the other.

    Returns:
        How many there are.
    """
    count = 0
    moments = [0] * len(intruders)
    while True:
        pool = make()
        acts = [partial(intruder, pool) for intruder in intruders]
        with located(moments):
            done = preempt(partial(victim, pool), zip(moments, acts, strict=True))
            if done:
                pool.check()
                pool.end()
                count += 1
                moments[-1] += 1
                continue
        # The last one has come too late: one step for the one before, if there is one.
        if len(moments) == 1 or moments[-1] == moments[-2]:
            return count
        moments[-2] += 1
        moments[-1] = moments[-2]


def interleave_crosswise(make: Make, first: Act, second: Act) -> int:
    """Try all pairs of moments at which two acts are stopped, and end in that order.

    Returns:
        How many there are.
    """
    count = 0
    n = m = 0
    while True:
        pool = make()
        with located([n, m]):
            first_reached, second_reached = cross(
                partial(first, pool), n, partial(second, pool), m
            )
            pool.check()
            pool.end()
        if not first_reached:
            return count
        count += 1
        n, m = (n, m + 1) if second_reached else (n + 1, 0)


@contextmanager
def located(moments: list[int]) -> Iterator[None]:
    """Add to an error at which bytecodes the acts were stopped."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"stopped at bytecodes {moments}: {error}") from error
