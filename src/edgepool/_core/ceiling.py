"""How many connections the server has room for, as far as it was found out.

A server, or a pooler before it, that refuses another connection because it is full has
answered a question: what the pool has is what it gets. To ask again for each who waits
would load a server that has too much to do already, and would be refused. So those who
wait do so for what comes back, and now and then one connect finds out whether there is
more: after each refusal twice as long passes before that, after each success half.
"""

from __future__ import annotations

from collections.abc import Callable

from .entry import ALWAYS, NEVER

# Between two attempts to have more than the server gave, in seconds: at first, and at
# most. Others who were refused have the same interest, so a fifth is taken off at
# random.
SOONEST = 0.050
LATEST = 5.0
JITTER = 0.2

# A ceiling that nobody has touched for so long, in seconds, says nothing any more.
FORGOTTEN_AFTER = 60.0


class Ceiling:
    """The most connections that the server gave when it refused one more.

    While the server has given none at all there is no ceiling but an outage, which has
    its own pace; this keeps only the shortest pause.

    Args:
        jitter: gives a random number from 0 to 1 at each call.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self.lifted()

    def lifted(self) -> None:
        """Nothing is known of any limit."""
        self.limit: float = NEVER
        self.forgotten_at = NEVER
        self._pause = SOONEST
        self._probe_at = self._learned_at = ALWAYS

    def refused(self, now: float, asked_at: float, established: int) -> None:
        """Record that the server refused one more than these.

        Args:
            now: the time.
            asked_at: when that one was asked for.
            established: how many there are.
        """
        if not established:
            self._pause = SOONEST
        elif self._learned_at < asked_at and self.limit < NEVER:
            # It was asked for in spite of the ceiling, not in the crowd that found it.
            self._pause = min(self._pause * 2.0, LATEST)
        self.limit = established
        self.forgotten_at = now + FORGOTTEN_AFTER
        self._learned_at = now
        self._rest(now)

    def connected(self, now: float, established: int) -> None:
        """Record that there are so many now: one more than the ceiling, perhaps."""
        if established <= self.limit:
            return
        if not self.limit:
            self.lifted()
            return
        self.limit = established
        self._pause = max(self._pause / 2.0, SOONEST)
        self._learned_at = now
        self._rest(now)

    def asked(self, now: float, size: int) -> None:
        """Record that one more than these is asked for."""
        if size >= self.limit:
            self._rest(now)

    def _rest(self, now: float) -> None:
        self._probe_at = now + self._pause * (1.0 - JITTER * self._jitter())

    def look(self, now: float) -> None:
        """Forget what was learned too long ago."""
        if now >= self.forgotten_at:
            self.lifted()

    def opens_at(self, size: int) -> float:
        """Tell from when on one more than these may be asked for."""
        return self._probe_at if size >= self.limit else ALWAYS
