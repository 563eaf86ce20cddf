"""What can happen to a server, done by a fake one for the length of a `with`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from threading import Condition

from ._fake_session import FakeSession, Operation, Script
from ._faults import must_be_delay
from ._wire import FULL, STARTING


class FakeFaults:
    """The methods of `Faults`, for a `FakeServer`."""

    _changed: Condition
    _refusal: BaseException | None
    _scripts: dict[Operation, Script]

    @abstractmethod
    def kill(self, *sessions: FakeSession) -> None:
        """See `FakeServer`."""

    @abstractmethod
    def refuse(self, error: BaseException) -> None:
        """See `FakeServer`."""

    @abstractmethod
    def delay(self, operation: Operation, seconds: float) -> None:
        """See `FakeServer`."""

    @abstractmethod
    def hang(self, operation: Operation) -> None:
        """See `FakeServer`."""

    @abstractmethod
    def release(self, operation: Operation, count: int | None = None) -> None:
        """See `FakeServer`."""

    def lose_connections(self) -> None:
        """End every session that there is; new ones are taken."""
        self.kill()

    @contextmanager
    def refuse_connections(self) -> Generator[None, None, None]:
        """Refuse connects; sessions go on."""
        with self._refusing(ConnectionRefusedError("the server is down")):
            yield

    @contextmanager
    def reject_connections(
        self, sqlstate: str, message: str
    ) -> Generator[None, None, None]:
        """Answer connects with an error that has this text; sessions go on."""
        with self._refusing(ConnectionError(f"{message} ({sqlstate})")):
            yield

    @contextmanager
    def full(self) -> Generator[None, None, None]:
        """Have no room for one more session; those that there are go on."""
        with self.reject_connections(*FULL):
            yield

    @contextmanager
    def restart(self) -> Generator[None, None, None]:
        """End all sessions, and refuse connects until the end of the block."""
        with self.reject_connections(*STARTING):
            self.kill()
            yield

    @contextmanager
    def slow(self, seconds: float) -> Generator[None, None, None]:
        """Let every operation take so many seconds longer.

        Raises:
            TypeError, ValueError: `seconds` is no number, negative or not finite.
        """
        must_be_delay("seconds", seconds)
        before = {script: script.delay for script in self._scripts.values()}
        for operation, script in self._scripts.items():
            self.delay(operation, script.delay + seconds)
        try:
            yield
        finally:
            for script, delay in before.items():
                script.delay = delay

    @contextmanager
    def black_hole(self) -> Generator[None, None, None]:
        """Let every operation hang that begins in the block, up to its end."""
        hanging: list[Operation]
        hanging = [o for o, s in self._scripts.items() if not s.hanging]
        for operation in hanging:
            self.hang(operation)
        try:
            yield
        finally:
            for operation in hanging:
                self.release(operation)

    @contextmanager
    def _refusing(self, error: BaseException) -> Generator[None, None, None]:
        before = self._refusal
        self.refuse(error)
        try:
            yield
        finally:
            with self._changed:
                self._refusal = before
