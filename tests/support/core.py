"""A driver for `PoolCore` that is played by hand.

It does nothing by itself. A test says what happens, in the order in which it happens
and at the time that `now` says; what the core wants done piles up in `todo` until the
test has it done. So each example reads as given, when, then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edgepool._core import (
    NEVER,
    Abort,
    Alarm,
    Check,
    Close,
    Connect,
    Entry,
    ErrorClass,
    PoolCore,
    PoolStatistics,
    Reset,
    Settings,
    State,
    Sweep,
    Waiter,
)

THOROUGH = bool(os.environ.get("EDGEPOOL_THOROUGH"))
"""Whether to take minutes: for the night, and before a release."""

MUTANTS = bool(os.environ.get("EDGEPOOL_MUTANTS"))
"""Whether faults in the core are to be found, and not to be explained."""

REFUSED = ConnectionRefusedError("nobody listens")
"""What connecting fails with, unless a test says otherwise."""


class Resource:
    """What is pooled: remembers only whether it was closed."""

    closed = False


def nobody_sleeps() -> None:
    """Be the `wake` of a waiter behind which there is no thread or task."""


class Driven:
    """An open core, and a driver played by hand.

    Args:
        now: the time at which the pool is opened.
        opened: False: leave it as it was made.
        jitter: what each draw gives, until a test changes the attribute.
        settings: those of `Settings`; min_size is 0 unless given.
    """

    def __init__(
        self,
        *,
        now: float = 0.0,
        opened: bool = True,
        jitter: float = 0.0,
        **settings: Any,
    ) -> None:
        self.now = now
        self.jitter = jitter
        self.core = PoolCore[Resource](
            Settings(**{"min_size": 0, **settings}), jitter=lambda: self.jitter
        )
        # The commands that are outstanding, oldest first.
        self.todo: list[Any] = []
        # Who was told that there is an answer, in the order of the telling.
        self.woken: list[Waiter[Resource]] = []
        self.alarms = 0
        self.sweeps = 0
        # What was cut off although somebody used it.
        self.aborted: list[Entry[Resource]] = []
        # Every resource that was ever opened.
        self.resources: list[Resource] = []
        # Every state of an entry that was seen after an event, and each step between.
        self.states: dict[Entry[Resource], State] = {}
        self.steps: list[tuple[State, State]] = []
        if opened:
            self.tell(self.core.start)

    # --- events -------------------------------------------------------------------

    def tell(self, event: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Tell the core a fact, and take what it has left behind."""
        result = event(self.now, *args, **kwargs)
        self.take_outboxes()
        return result

    def take_outboxes(self) -> None:
        """Empty both outboxes; note what became of the entries."""
        core = self.core
        wakes, core.wakes = core.wakes, []
        commands, core.commands = core.commands, []
        for waiter in wakes:
            self.receive_wake(waiter)
        for command in commands:
            self.receive(command)
        self.note_steps()

    def receive_wake(self, waiter: Waiter[Resource]) -> None:
        """Take note that a waiter has an answer."""
        self.woken.append(waiter)

    def receive(self, command: Any) -> None:
        """Take note of what the core wants done."""
        if isinstance(command, Alarm):
            self.alarms += 1
        elif isinstance(command, Sweep):
            self.sweeps += 1
        elif isinstance(command, Abort):
            self.aborted.append(command.entry)
        else:
            self.todo.append(command)
            if isinstance(command, Connect):
                self.states[command.entry] = State.CONNECTING

    def note_steps(self) -> None:
        """Note each entry whose state is not the one seen last."""
        for entry, before in list(self.states.items()):
            if entry.state is not before:
                self.states[entry] = entry.state
                self.steps.append((before, entry.state))
            if entry.state is State.GONE:
                del self.states[entry]

    def borrow(self, owner: object = None) -> Entry[Resource] | None:
        """Take an idle entry, if there is one for a newcomer."""
        entry = self.core.borrow(self.now, owner)
        self.note_steps()
        return entry

    def give_back(self, entry: Entry[Resource]) -> None:
        """Return a clean entry, and tell the event that is due after it."""
        follow_up = self.core.give_back(self.now, entry)
        self.note_steps()
        if follow_up is not None:
            self.tell(follow_up, entry)

    def wait(self, again: bool = False, owner: object = None) -> Waiter[Resource]:
        """Put somebody into the queue."""
        waiter = Waiter[Resource](nobody_sleeps, owner)
        self.tell(self.core.enqueue, waiter, again)
        return waiter

    def wait_for(self, event: Callable[..., Any]) -> Waiter[Resource]:
        """Let somebody wait for what `core.when_ready` or `core.when_empty` tells."""
        waiter = Waiter[Resource](nobody_sleeps)
        self.tell(event, waiter)
        return waiter

    def configure(self, **changes: Any) -> None:
        """Change some of the settings."""
        settings = {**vars(self.core.settings), **changes}
        self.tell(self.core.configure, Settings(**settings))

    def tick(self, at: float | None = None) -> None:
        """Let the timer fire; at a later time, if one is given."""
        if at is not None:
            self.now = at
        self.tell(self.core.tick)

    # --- what the core wants done -------------------------------------------------

    def wanted(self, kind: type) -> list[Entry[Resource]]:
        """Give the entries of outstanding commands of one kind, oldest first."""
        return [command.entry for command in self.todo if type(command) is kind]

    def take(self, kind: type) -> Entry[Resource]:
        """Take the oldest outstanding command of one kind: the caller answers it."""
        command = next(command for command in self.todo if type(command) is kind)
        self.todo.remove(command)
        return command.entry

    def connect_one(self, took: float = 0.0) -> Entry[Resource]:
        """Let the oldest outstanding connect succeed."""
        entry, resource = self.take(Connect), Resource()
        self.resources.append(resource)
        self.tell(self.core.connected, entry, resource, took)
        return entry

    def connect_all(self) -> list[Entry[Resource]]:
        """Let all outstanding connects succeed, also those that this gives rise to."""
        entries = []
        while self.wanted(Connect):
            entries.append(self.connect_one())
        return entries

    def begin_configuring(self) -> None:
        """Let the oldest outstanding connect come as far as that; it is to fail yet."""
        entry = self.wanted(Connect)[0]
        entry.resource, entry.connected = Resource(), True
        self.resources.append(entry.resource)

    def fail_one(
        self,
        error: BaseException = REFUSED,
        permanent: bool = False,
        kind: ErrorClass = ErrorClass.ORDINARY,
    ) -> Entry[Resource]:
        """Let the oldest outstanding connect fail."""
        entry = self.take(Connect)
        kind = ErrorClass.FAIL_FAST if permanent else kind
        self.tell(self.core.connect_failed, entry, error, kind)
        return entry

    def check_one(self, alive: bool = True, proven: bool = True) -> Entry[Resource]:
        """Answer the oldest outstanding check."""
        entry = self.take(Check)
        self.tell(self.core.checked, entry, alive, proven)
        return entry

    def reset_one(self, clean: bool = True) -> Entry[Resource]:
        """Answer the oldest outstanding reset."""
        entry = self.take(Reset)
        self.tell(self.core.was_reset, entry, clean)
        return entry

    def close_one(self) -> Entry[Resource]:
        """Do the oldest outstanding close."""
        entry = self.take(Close)
        if entry.resource.closed:
            raise AssertionError("a resource is closed twice")
        entry.resource.closed = True
        self.tell(self.core.was_closed, entry)
        return entry

    def close_all(self) -> list[Entry[Resource]]:
        """Do all outstanding closes."""
        return [self.close_one() for _ in self.wanted(Close)]

    def work(self) -> None:
        """Do all that is outstanding, and what follows from it; it all goes well."""
        ways = {
            Connect: self.connect_one,
            Check: self.check_one,
            Reset: self.reset_one,
            Close: self.close_one,
        }
        while self.todo:
            ways[type(self.todo[0])]()

    # --- where a test begins ------------------------------------------------------

    def lend(self, count: int) -> list[Entry[Resource]]:
        """Lend so many, all at the same time."""
        waiters = [self.wait() for _ in range(count)]
        self.connect_all()
        return [served(waiter) for waiter in waiters]

    def warm_up(self, count: int) -> list[Entry[Resource]]:
        """Open connections so that they are idle; coldest first."""
        entries = self.lend(count)
        for entry in entries:
            self.give_back(entry)
        return entries

    # --- what can be seen ---------------------------------------------------------

    @property
    def stats(self) -> PoolStatistics:
        """The core's statistics."""
        return self.core.statistics()

    @property
    def idle(self) -> list[Entry[Resource]]:
        """The idle entries, coldest first."""
        return self.core.idle_entries()

    @property
    def wake_at(self) -> float:
        """When the core wants to be ticked at the latest."""
        return self.core.wake_at

    @property
    def established(self) -> int:
        """How many connections can be, or come to be, used."""
        stats = self.stats
        return stats.size - stats.closing - stats.opening

    def deadline(self, entry: Entry[Resource]) -> float:
        """Tell until when an idle entry may stay as it is."""
        settings = self.core.settings
        deadline = entry.expires_at
        if self.established > settings.min_size:
            deadline = min(deadline, entry.idle_since + settings.max_idle)
        if 0 < settings.check_after < NEVER:
            deadline = min(deadline, entry.proven_at + settings.check_after)
        return deadline

    @property
    def living(self) -> list[Resource]:
        """The resources that were opened and not closed: what the server sees."""
        return [resource for resource in self.resources if not resource.closed]


def served(waiter: Waiter[Resource]) -> Entry[Resource]:
    """Give what a waiter was served."""
    if waiter.entry is None:
        raise AssertionError(f"not served: refusal {waiter.refusal}")
    return waiter.entry
