"""What one run of the demo has come to so far."""

from __future__ import annotations

import re
import threading
from collections import Counter
from time import monotonic


class Score:
    """Counts transfers, errors and waits; any thread may add to it."""

    def __init__(self, planned: int, time_cap: float) -> None:
        """Start the clock: after `time_cap` seconds no new transfer begins."""
        self.planned = planned
        self.transfers = 0
        self.failures = 0
        self.errors: Counter[str] = Counter()
        self._waits: list[float] = []
        self._lock = threading.Lock()
        self._started = monotonic()
        self._ended: float | None = None
        self._deadline = self._started + time_cap

    def succeeded(self, waited: float) -> None:
        """Count a committed transfer that waited so long for its connection."""
        with self._lock:
            self.transfers += 1
            self._waits.append(waited)

    def failed(self, error: Exception) -> None:
        """Count a transfer that was not made, by the kind of its error."""
        with self._lock:
            self.failures += 1
            self.errors[kind_of(error)] += 1

    def time_is_up(self) -> bool:
        """Tell a worker whether to stop."""
        return monotonic() >= self._deadline

    def end(self) -> None:
        """Stop the clock, and each worker after its current transfer."""
        self._ended = self._deadline = monotonic()

    @property
    def attempts(self) -> int:
        """Transfers that were made or failed."""
        return self.transfers + self.failures

    @property
    def seconds(self) -> float:
        """How long the run has taken."""
        return (self._ended or monotonic()) - self._started

    @property
    def rate(self) -> float:
        """Transfers made per second."""
        return self.transfers / self.seconds

    def wait(self, percent: int) -> float | None:
        """Return this percentile of the waits; None if nobody got a connection."""
        waits = sorted(self._waits)
        if not waits:
            return None
        return waits[(len(waits) - 1) * percent // 100]


def kind_of(error: Exception) -> str:
    """Return the gist of an error: without the server's address and without hints."""
    text = str(error) or type(error).__name__
    said_by_server = re.search(r"FATAL: +(.+)", text)
    if said_by_server:
        return f"FATAL: {said_by_server[1]}"
    return text.splitlines()[0].split("failed: ")[-1]
