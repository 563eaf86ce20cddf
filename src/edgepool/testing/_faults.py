"""Faults for users' tests: what can happen to a server, for the length of a `with`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from ._proxy import Proxy
from ._wire import FULL, STARTING, problem


class Faults:
    """What can happen to connections, made to happen: a proxy before a real server.

    A pool connects to `conninfo()` instead of the server. Most faults last for a `with`
    block, which may be in an `async` function: nothing here waits. They can be combined
    and nested. `FakeServer` has the same ones.

    Args:
        conninfo: of the server, with host and port; TLS does not pass.

    Raises:
        ValueError: it does not name one host for TCP.

    Example:
        ```python
        with Faults(server.conninfo) as faults:
            with ConnectionPool(faults.conninfo()) as pool:
                with faults.refuse_connections():
                    faults.lose_connections()
                    ...  # the pool has none, and gets none
        ```
    """

    def __init__(self, conninfo: str) -> None:
        self._proxy = Proxy(conninfo)
        self._slow: list[float] = []
        self._holes = 0
        self._refusals = 0
        self._rejections: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, and stop."""
        self._proxy.close()

    def conninfo(self, **parameters: str | int) -> str:
        """Return what connects through here, with parameters added or replaced."""
        return self._proxy.conninfo(**parameters)

    @property
    def connects(self) -> int:
        """How many connects have reached this so far. Refused ones do not."""
        return self._proxy.connects

    def lose_connections(self) -> None:
        """End every connection that there is, without a farewell; new ones are taken.

        What a crash or a firewall does. In a `black_hole` nobody hears of it before
        the end of that.
        """
        self._proxy.reset_present()

    @contextmanager
    def refuse_connections(self) -> Generator[None, None, None]:
        """Refuse new connections, as a system does without a server; others go on."""
        self._refusals += 1
        if self._refusals == 1:
            self._proxy.refuse()
        try:
            yield
        finally:
            self._refusals -= 1
            if not self._refusals:
                self._proxy.listen()

    @contextmanager
    def reject_connections(
        self, sqlstate: str, message: str
    ) -> Generator[None, None, None]:
        """Let the server answer new connections with an error; others go on.

        Args:
            sqlstate: the error's, as `"28P01"`.
            message: its text. libpq does not tell the SQLSTATE of a failed connect, so
                the text is what counts.
        """
        rejection = problem(sqlstate, message)
        self._rejections.append(rejection)
        self._proxy.rejection = rejection
        try:
            yield
        finally:
            self._rejections.remove(rejection)
            last = self._rejections[-1] if self._rejections else None
            self._proxy.rejection = last

    @contextmanager
    def full(self) -> Generator[None, None, None]:
        """Let the server have no room for one more connection; others go on."""
        with self.reject_connections(*FULL):
            yield

    @contextmanager
    def restart(self) -> Generator[None, None, None]:
        """Let the server restart: every connection ends, new ones come too early.

        With the words that PostgreSQL has for it. It is up at the end of the block.
        """
        with self.reject_connections(*STARTING):
            why = "terminating connection due to administrator command"
            self._proxy.say(*problem("57P01", why))
            self._proxy.cut()
            yield

    @contextmanager
    def slow(self, seconds: float) -> Generator[None, None, None]:
        """Let everything take longer, by so many seconds in either direction.

        Raises:
            TypeError, ValueError: `seconds` is no number, negative or not finite.
        """
        must_be_delay("seconds", seconds)
        self._slow.append(seconds)
        self._proxy.delay = sum(self._slow)
        try:
            yield
        finally:
            self._slow.remove(seconds)
            self._proxy.delay = sum(self._slow)

    @contextmanager
    def black_hole(self) -> Generator[None, None, None]:
        """Deliver nothing, in neither direction; what is held up comes afterwards."""
        self._holes += 1
        self._proxy.black_hole()
        try:
            yield
        finally:
            self._holes -= 1
            if not self._holes:
                self._proxy.restore()


def must_be_delay(name: str, seconds: object) -> None:
    """Refuse what is not a time that something can take, in seconds."""
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number, not {seconds!r}")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{name} must be at least 0 and finite, not {seconds!r}")
