"""Numbers for people: an immutable snapshot, and the counters behind it."""

from __future__ import annotations

from dataclasses import dataclass


class Counters:
    """What only ever grows. Each is changed in one place, by the core."""

    __slots__ = (
        "bad_returns",
        "connect_errors",
        "connect_time",
        "connects",
        "errors",
        "lost",
        "queued",
        "requests",
        "usage_time",
        "wait_time",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.queued = 0
        self.errors = 0
        self.wait_time = 0.0
        self.usage_time = 0.0
        self.bad_returns = 0
        self.connects = 0
        self.connect_time = 0.0
        self.connect_errors = 0
        self.lost = 0


@dataclass(frozen=True)
class PoolStatistics:
    """A snapshot of a pool: gauges first, then counters since the pool was made.

    `in_use + idle + opening + closing + checking + resetting == size`, and `size` is
    never above `max_size`. Times are seconds.
    """

    min_size: int
    max_size: int
    size: int
    in_use: int
    idle: int
    opening: int
    closing: int
    checking: int
    resetting: int
    waiting: int

    requests: int
    """Borrows asked for."""
    requests_queued: int
    """Those that had to wait."""
    requests_errors: int
    """Those that ended without a connection."""
    wait_time: float
    usage_time: float
    bad_returns: int
    connects: int
    connect_errors: int
    connect_time: float
    lost: int
    """Connections found dead by the pool."""
    failing_since: float | None
    """Since when connecting fails, on the pool's clock; None while it works."""
