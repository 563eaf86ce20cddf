"""Numbers for people: an immutable snapshot, and the counters behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .entry import NEVER, Tether

if TYPE_CHECKING:
    from .ceiling import Ceiling
    from .ledger import Ledger
    from .outage import Outage
    from .queue import WaitQueue
    from .settings import Settings


class Counters:
    """What only ever grows, and is not on the tether of an entry."""

    __slots__ = (
        "bad_returns",
        "borrows",
        "connect_errors",
        "connect_time",
        "connects",
        "connects_refused",
        "leaked",
        "lost",
        "queued",
        "read_only_errors",
        "refused",
        "shed",
        "usage_time",
        "wait_time",
    )

    def __init__(self) -> None:
        self.borrows = 0
        self.queued = 0
        self.refused = 0
        self.shed = 0
        self.wait_time = 0.0
        self.usage_time = 0.0
        self.bad_returns = 0
        self.connects = 0
        self.connect_time = 0.0
        self.connect_errors = 0
        self.connects_refused = 0
        self.read_only_errors = 0
        self.lost = 0
        self.leaked = 0

    def take_over(self, tether: Tether[Any]) -> None:
        """Keep what was counted on an entry that leaves."""
        self.borrows += tether.borrows
        self.usage_time += tether.usage_time


class PoolStatistics(NamedTuple):
    """A snapshot of a pool: gauges first, then counters since the pool was made.

    `in_use + idle + opening + closing + checking + resetting == size`, and `size` is
    never above `max_size`, unless `resize` has just made that smaller. Times are in
    seconds.
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
    """Borrows that were answered, with a connection or without."""
    requests_queued: int
    """Borrows that had to wait."""
    requests_errors: int
    """Borrows that ended without a connection."""
    requests_shed: int
    """Those of them that were sent away in an overload."""
    wait_time: float
    usage_time: float
    bad_returns: int
    """Connections that came back broken, or that a reset could not clean."""
    connects: int
    """Connections that the pool tried to open."""
    connect_errors: int
    connect_time: float
    lost: int
    """Connections that the pool found dead."""
    leaked: int
    """Connections that were borrowed, and dropped instead of returned."""
    failing_since: float | None
    """Since when connecting fails, on the pool's clock; None while it works."""
    ceiling: int | None
    """How many the server gave when it refused one more; None: no such limit known."""
    connects_refused: int
    """Connects that failed because there was no place for another connection."""
    read_only_errors: int
    """Borrows that ended in an error because the server takes no writes."""
    pooler: str = "unknown"
    """What a pool of connections to PostgreSQL has found in front of the server."""


def snapshot(
    settings: Settings,
    ledger: Ledger[Any],
    queue: WaitQueue[Any],
    outage: Outage,
    ceiling: Ceiling,
    counters: Counters,
) -> PoolStatistics:
    """Take a snapshot of the parts of a core."""
    idle = len(ledger.idle)
    away = ledger.away
    borrows = counters.borrows + sum(t.borrows for t in ledger.tethers)
    usage_time = counters.usage_time + sum(t.usage_time for t in ledger.tethers)
    return PoolStatistics(
        min_size=settings.min_size,
        max_size=settings.max_size,
        size=ledger.size,
        in_use=ledger.established - idle - away["checking"] - away["resetting"],
        idle=idle,
        opening=away["connecting"],
        closing=away["closing"],
        checking=away["checking"],
        resetting=away["resetting"],
        waiting=len(queue.waiting),
        requests=borrows + counters.refused,
        requests_queued=counters.queued,
        requests_errors=counters.refused,
        requests_shed=counters.shed,
        wait_time=counters.wait_time,
        usage_time=usage_time,
        bad_returns=counters.bad_returns,
        connects=counters.connects,
        connect_errors=counters.connect_errors,
        connect_time=counters.connect_time,
        lost=counters.lost,
        leaked=counters.leaked,
        failing_since=outage.since,
        ceiling=None if ceiling.limit == NEVER else int(ceiling.limit),
        connects_refused=counters.connects_refused,
        read_only_errors=counters.read_only_errors,
    )
