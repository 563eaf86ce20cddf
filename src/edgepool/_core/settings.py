"""What the user asked for: validated once, then only read."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Any, Literal, TypeAlias, get_args

from .entry import ALWAYS, NEVER

# A probe without a round trip costs 0.3 to 0.4 µs, so what was proven alive less than
# this long ago, in seconds, is not probed again. It is shorter than a loopback round
# trip: no session can end and the news of it arrive within it.
PROBE_AFTER = 100e-6

# Ten connects that start at once compete for the processors of the server, so that the
# first to end comes late: after 8 sessions were killed on a machine of two processors,
# everybody was served after 6 connect times. One after the other they took half of it;
# but where a connect is slow for the network's sake, that takes ten times as long. A
# millisecond apart costs next to nothing there, and the first comes soon.
STAGGER = 0.001

# In the last part of its life a connection is replaced when that costs nobody anything,
# and not at the moment when it has to be: this share of max_lifetime, as much as the
# jitter spreads, but no more than so many seconds.
RENEWAL = 0.05
RENEWAL_AT_MOST = 30.0

Nested: TypeAlias = Literal["error", "wait"]


def at_least(name: str, value: Any, limit: float) -> None:
    """Refuse an argument that is no number, or below a limit."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if isnan(value) or value < limit:
        raise ValueError(f"{name} must be at least {limit:g}, not {value!r}")


def whole(name: str, value: Any, limit: int) -> None:
    """Refuse an argument that is no whole number, or below a limit."""
    at_least(name, value, limit)
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def must_be_seconds(timeout: object) -> None:
    """Refuse a timeout that no deadline comes of.

    Raises:
        TypeError, ValueError: it is no number; or not a number, as floats have it.
    """
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if timeout != timeout:
        raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")


@dataclass(frozen=True, repr=False, eq=False)
class Settings:
    """The settings of a pool. Times are seconds.

    Raises:
        ValueError: an argument is out of range; says which, its value and the limit.
        TypeError: it is no number; says which, and its value.
    """

    min_size: int = 4
    max_size: int = 4
    timeout: float = 30.0
    max_waiting: int = 0
    max_lifetime: float = 3600.0
    max_idle: float = 600.0
    max_connecting: int = 10
    check_after: float = 0.0
    """A check is due on what was not proven alive for so long; inf: never."""
    probe_after: float = NEVER
    """The same for the probe without a round trip; inf: the resource has none."""
    stagger: float = 0.0
    """Between the start of a connect and the next one beside it."""
    renewal: float = 0.0
    """In which last share of its life a connection may be replaced ahead of time."""
    reconnect_timeout: float = 300.0
    nested: Nested = "error"
    """What becomes of whoever has to wait for himself: "error" or "wait"."""
    shed_target: float | None = None
    """How long a wait may be that is no sign of an overload; None: nobody is shed."""
    shed_interval: float = 1.0
    """Waits have to be longer for so long, for it to be an overload."""
    keep_idle: bool = True
    """False in null pools: what nobody waits for is closed."""

    @property
    def trust(self) -> float:
        """For how long an examined connection is lent without another look.

        Minus infinity if a check is due each time.
        """
        after = min(self.probe_after, self.check_after)
        return after if after else ALWAYS

    def renew_ahead(self, life: float) -> float:
        """How long before its end a connection may be replaced, in seconds."""
        return min(self.renewal * life, RENEWAL_AT_MOST)

    def __post_init__(self) -> None:
        """Validate, in the order in which a reader of the signature would."""
        whole("min_size", self.min_size, 0)
        whole("max_size", self.max_size, 1)
        if self.max_size < self.min_size:
            raise ValueError(
                f"max_size must be greater or equal than min_size ({self.min_size}),"
                f" not {self.max_size}"
            )
        at_least("timeout", self.timeout, 0)
        whole("max_waiting", self.max_waiting, 0)
        at_least("max_lifetime", self.max_lifetime, 0)
        at_least("max_idle", self.max_idle, 0)
        whole("max_connecting", self.max_connecting, 1)
        at_least("check_after", self.check_after, 0)
        at_least("probe_after", self.probe_after, 0)
        at_least("stagger", self.stagger, 0)
        at_least("renewal", self.renewal, 0)
        at_least("reconnect_timeout", self.reconnect_timeout, 0)
        if self.nested not in get_args(Nested):
            raise ValueError(f"nested must be 'error' or 'wait', not {self.nested!r}")
        if self.shed_target is not None:
            at_least("shed_target", self.shed_target, 0)
        at_least("shed_interval", self.shed_interval, 0)
