"""The nouns: a place in the pool, somebody in the queue, and words for their fates."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import CodeType
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from weakref import ref

T = TypeVar("T")

NEVER = float("inf")
ALWAYS = float("-inf")


# How often to look for a good moment to replace something ahead of time; and how long
# to wait between two looks, in seconds, however short that time is.
PATIENCE = 10
MOMENT = 0.001


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
    UNCONFIGURED = "could not be configured"
    DRAINED = "drained"
    CLOSED = "the pool is closed"
    FORKED = "this is a forked child, and it belongs to the parent process"


class Refusal(Enum):
    """Why a waiter does not get a connection."""

    TIMEOUT = "timeout"
    FULL = "too many waiting"
    NESTED = "all connections are held by those who wait"
    CLOSED = "closed"
    FAILED = "connecting fails, and waiting would not help"
    SHED = "overloaded"


class Entry(Generic[T]):
    """A place in the pool: one resource from its connect to its close.

    It belongs to one owner at a time: the idle stack, the borrower, or whoever carries
    out a command. The ledger only has its `Tether`.

    Times are seconds on the driver's clock. Deadlines (`expires_at`, `due_at`) are
    absolute numbers, computed once, so that no two comparisons of the same deadline can
    round differently.
    """

    __slots__ = (
        "__weakref__",
        "asked_at",
        "connected",
        "due_at",
        "expires_at",
        "idle_since",
        "inherited",
        "lent_at",
        "predecessor",
        "proven_at",
        "reason",
        "renew_at",
        "resource",
        "state",
        "succeeded",
        "tether",
        "weak",
    )

    resource: T
    """Set when connected. A lender may let go of it while it is lent (see `weak`)."""

    weak: Callable[[], T | None] | None
    """A weak reference to the resource, if its lender lets go of it; else None."""

    tether: Tether[T]

    def __init__(self, asked_at: float, idle_since: float, inherited: bool) -> None:
        self.state = State.CONNECTING
        self.reason: Reason | None = None
        self.connected = False
        self.weak = None
        # Moved into the past for what is to leave at the next occasion.
        self.expires_at = NEVER
        # From then on it may be replaced ahead of time; never, if that has begun.
        self.renew_at = NEVER
        # Whether its place is filled already, or about to be, by a successor.
        self.succeeded = False
        # The one that it is the successor of.
        self.predecessor: Tether[T] | None = None
        self.idle_since = idle_since
        # True: it replaces an entry and inherited its idle clock.
        self.inherited = inherited
        # When its connect was asked for.
        self.asked_at = asked_at
        self.lent_at = self.proven_at = ALWAYS
        # An examination is due before a borrow from then on.
        self.due_at = ALWAYS

    @property
    def patience(self) -> float:
        """How long to wait for a better moment to replace it, in seconds."""
        return max((self.expires_at - self.renew_at) / PATIENCE, MOMENT)

    def reach(self) -> T | None:
        """Return the resource, wherever it is; None if its borrower has dropped it."""
        return getattr(self, "resource", None) if self.weak is None else self.weak()

    def __repr__(self) -> str:
        reason = f", {self.reason.value}" if self.reason else ""
        return f"<Entry {self.state.value}{reason}>"


class Note:
    """A place in the user's program: of the latest borrow, or of the latest return."""

    __slots__ = ("code", "offset", "returned")

    def __init__(self) -> None:
        self.code: CodeType | None = None
        self.offset = 0
        # True: by a call that returns it, at this place. Else it is borrowed there: by
        # a block, or, if None, for somebody whose framework returns it.
        self.returned: bool | None = False


Away: TypeAlias = Literal["connecting", "checking", "resetting", "closing"]
"""What an entry may be away for that is neither idle nor lent."""


class Tether(ref["Entry[T]"], Generic[T]):
    """What the ledger has of an entry: a weak reference, and what has to outlive it.

    So an entry that everybody has lost (its borrower dropped it, or an exception came
    between two steps) frees its place when it is garbage-collected.

    Args:
        entry: the entry.
        lost: called with the tether when the entry is no more.
    """

    __slots__ = ("away", "borrower", "borrows", "lost", "note", "owner", "usage_time")

    def __init__(  # pyright: ignore[reportInconsistentConstructor]
        self, entry: Entry[T], lost: Callable[[Any], None]
    ) -> None:
        super().__init__(entry, lost)  # type: ignore[call-arg]
        hash(self)  # it is the entry's, and kept from the first time on
        self.away: Away | None = None
        # Whether the entry was garbage-collected. It may come back all the same: the
        # collector wakes a generator to its end after it has told of what it drops.
        self.lost = False
        self.borrows = 0
        self.usage_time = 0.0
        # Who has to return it, if that is known: the identity of a thread or a task.
        self.owner: object = None
        self.note = Note()
        # The thread or task that borrowed it, weakly, where borrows are tracked.
        self.borrower: Callable[[], Any] | None = None


class Waiter(Generic[T]):
    """Somebody in the queue. Resolved exactly once: with an entry, or with a refusal.

    `wake` is the driver's: by it he wakes the thread or task when an answer is there.
    Waiters for an event of the pool (ready, empty) are resolved without an entry.
    """

    __slots__ = (
        "cause",
        "entry",
        "held",
        "owner",
        "refusal",
        "resolved",
        "since",
        "wake",
    )

    def __init__(self, wake: Any, owner: object = None) -> None:
        self.wake = wake
        # Who waits, where that is known: the identity of a thread or a task.
        self.owner = owner
        self.since = NEVER
        self.resolved = False
        self.entry: Entry[T] | None = None
        self.refusal: Refusal | None = None
        self.cause: BaseException | None = None
        # With Refusal.NESTED: what the waiter holds himself.
        self.held: Tether[T] | None = None
