"""How connecting goes: whether it fails, since when, and when to try again."""

from __future__ import annotations

from collections.abc import Callable

from .backoff import EAGER, retry_delay
from .entry import ALWAYS


class Outage:
    """The time from the first failed connect to the next that succeeds.

    Args:
        jitter: gives a random number from 0 to 1 at each call.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self.over()

    def over(self) -> None:
        """Connecting works, or is about to be tried for the first time."""
        self.since: float | None = None
        self.error: BaseException | None = None
        self.retry_at = self._failed_at = self._alarm_at = ALWAYS
        self._hurried_at = ALWAYS

    def failed(
        self,
        now: float,
        asked_at: float,
        error: BaseException,
        waited: bool,
        patience: float,
    ) -> bool:
        """Record a failed connect; set the time of the next.

        Args:
            now: the time.
            asked_at: when that connect was asked for.
            error: what went wrong.
            waited: whether anybody waits for the outcome.
            patience: after how long to sound the alarm, and after how long again.

        Returns:
            Whether to sound it.
        """
        if self.since is None:
            self.since = now
            self._alarm_at = now + patience
        self.error = error
        self._failed_at = now
        self.retry_at = now + retry_delay(now - self.since, waited, self._jitter())
        if self._hurried_at > asked_at:
            # Who came while it was under way has not had the server asked: what failed
            # was an attempt from before.
            self.hurry(now)
        if now < self._alarm_at:
            return False
        self._alarm_at = now + patience
        return True

    def hurry(self, now: float) -> None:
        """Somebody has come: try again soon, whatever the delay has grown to."""
        self._hurried_at = now
        self.retry_at = min(self.retry_at, self._failed_at + EAGER)
