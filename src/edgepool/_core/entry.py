"""The nouns: a place in the pool, somebody in the queue, and words for their fates."""

from __future__ import annotations

from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")

NEVER = float("inf")
ALWAYS = float("-inf")


class State(Enum):
    """Where an entry is. The legal ways between states are in `transitions`."""

    CONNECTING = "connecting"
    IDLE = "idle"
    IN_USE = "in use"
    CHECKING = "checking"
    RESETTING = "resetting"
    CLOSING = "closing"
    ABORTED = "aborted"
    GONE = "gone"


class Reason(Enum):
    """Why an entry is retired."""

    EXPIRED = "older than max_lifetime"
    UNUSED = "idle for max_idle"
    SURPLUS = "more than max_size"
    UNPOOLED = "nobody waits for it, and a null pool keeps none"
    LOST = "found dead"
    BROKEN = "returned broken"
    SOILED = "could not be reset"
    DRAINED = "drained"
    CLOSED = "the pool is closed"
    FORKED = "this is a forked child, and it belongs to the parent process"


class Refusal(Enum):
    """Why a waiter does not get a connection."""

    TIMEOUT = "timeout"
    FULL = "too many waiting"
    CLOSED = "closed"
    FAILED = "connecting fails, and waiting would not help"


class Entry(Generic[T]):
    """A place in the pool: one resource from its connect to its close.

    Times are seconds on the driver's clock. Deadlines (`expires_at`, `due_at`) are
    absolute numbers, computed once, so that no two comparisons of the same deadline can
    round differently.
    """

    __slots__ = (
        "asked_at",
        "borrows",
        "due_at",
        "expires_at",
        "idle_since",
        "inherited",
        "lent_at",
        "proven_at",
        "reason",
        "resource",
        "state",
        "usage_time",
    )

    resource: T
    """Set when connected; before that the attribute does not exist."""

    def __init__(self, asked_at: float, idle_since: float, inherited: bool) -> None:
        self.state = State.CONNECTING
        self.reason: Reason | None = None
        # Moved into the past for what is to leave at the next occasion.
        self.expires_at = NEVER
        self.idle_since = idle_since
        # True: it replaces an entry and inherited its idle clock.
        self.inherited = inherited
        # When its connect was asked for.
        self.asked_at = asked_at
        self.lent_at = self.proven_at = ALWAYS
        # An examination is due before a borrow from then on.
        self.due_at = ALWAYS
        self.borrows = 0
        self.usage_time = 0.0

    def __repr__(self) -> str:
        reason = f", {self.reason.value}" if self.reason else ""
        return f"<Entry {self.state.value}{reason}>"


class Waiter(Generic[T]):
    """Somebody in the queue. Resolved exactly once: with an entry, or with a refusal.

    `wake` is the driver's: by it he wakes the thread or task when an answer is there.
    Waiters for an event of the pool (ready, empty) are resolved without an entry.
    """

    __slots__ = ("cause", "entry", "refusal", "resolved", "since", "wake")

    def __init__(self, wake: Any) -> None:
        self.wake = wake
        self.since = NEVER
        self.resolved = False
        self.entry: Entry[T] | None = None
        self.refusal: Refusal | None = None
        self.cause: BaseException | None = None
