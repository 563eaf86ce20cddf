"""The sessions of a fake server, and what is done with them."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from ._fake_server import FakeServer

Operation: TypeAlias = Literal["connect", "check", "reset", "close"]

OPERATIONS: tuple[Operation, ...] = ("connect", "check", "reset", "close")


class FakeEvent(NamedTuple):
    """A line of a fake server's log."""

    at: float
    """When, on the server's clock."""
    what: str
    """An operation that began (`"connect"`), or what came of it: `"connected"`,
    `"connect failed"`, `"killed"`, `"aborted"`, `"closed"`, `"dropped"`…"""
    session: int
    """The number of the session: 1 is the first that somebody tried to open."""


class FakeSession:
    """What a fake pool lends: a session of a `FakeServer`.

    It ends when it is closed or killed, or when its pool, or everybody, has lost it: as
    a connection of psycopg does.

    Attributes:
        number: 1 for the first session that somebody tried to open.
        dirty: set it to True to leave the session as an open transaction would: it
            needs a reset before the next borrower.
        hopeless: set it to True as well, and no reset makes the session clean.
    """

    def __init__(self, server: FakeServer) -> None:
        self.number: int = 0
        self.dirty: bool = False
        self.hopeless: bool = False
        self._server = server
        self._connected = False
        self._ended_by: str | None = None
        self._closes = 0
        self._step: Step | None = None
        self._tied: object = None

    def __del__(self) -> None:
        self._drop()

    def _tie_to(self, entry: object) -> None:
        """End with the pool's entry, whoever keeps the session, as psycopg's do."""
        me = ref(self)

        def end(_: object) -> None:
            if (session := me()) is not None:
                session._drop()

        self._tied = ref(entry, end)

    def _drop(self) -> None:
        # Without the lock: the garbage collector may run while this very thread has it.
        if self._connected and self._ended_by is None:
            self._ended_by = "dropped"
            self._server._sessions.pop(self, None)
            self._server._log("dropped", self)

    @property
    def alive(self) -> bool:
        """False when either side has ended the session."""
        return self._ended_by is None

    def close(self) -> None:
        """Close the session behind the pool's back, as a borrower should not."""
        self._server._end_session(self, "closed")

    def __repr__(self) -> str:
        state = f" {self._ended_by}" if self._ended_by else ""
        return f"<FakeSession {self.number}{state}>"


class Step:
    """An operation under way."""

    __slots__ = ("operation", "patience", "session", "wake")

    def __init__(
        self,
        operation: Operation,
        session: FakeSession,
        patience: float | None,
        wake: Callable[[], object],
    ) -> None:
        self.operation: Operation = operation
        self.session = session
        # For how long it takes; None: until it is released.
        self.patience = patience
        self.wake = wake


class Script:
    """How one kind of operation goes."""

    __slots__ = ("begun", "delay", "errors", "hanging", "lasting")

    def __init__(self) -> None:
        self.begun = 0
        self.delay = 0.0
        self.hanging = False
        # Errors for as many operations, and one for all that follow.
        self.errors: deque[BaseException] = deque()
        self.lasting: BaseException | None = None
