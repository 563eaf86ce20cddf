"""The nouns of a measurement: rows, what they measure, who takes part, what is asked.

Plain data. How rounds are run is in ``runner.py``, how they are shown in ``report.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from .server import Server

T = TypeVar("T")

BASELINE = "psycopg_pool"
JUDGED = "edgepool"


class Unavailable(Exception):
    """This contender cannot take part here; the text says why."""


@dataclass(frozen=True)
class Target:
    """What is asked of edgepool: a limit it must keep, a stretch it may reach."""

    limit: float
    stretch: float | None = None
    at_least: bool = False
    on: Literal["ratio", "value"] = "ratio"

    def verdict(self, figure: float) -> str:
        """Say whether *figure*, a median, reaches the target."""
        if self.stretch is not None and self._kept(figure, self.stretch):
            return "stretch"

        return "yes" if self._kept(figure, self.limit) else "NO"

    def _kept(self, figure: float, bound: float) -> bool:
        return figure >= bound if self.at_least else figure <= bound


@dataclass(frozen=True)
class Metric:
    """One figure of a row."""

    key: str
    title: str
    unit: str
    clock: Literal["CPU", "wall", "count"]
    target: Target | None = None
    comparable: bool = True
    """Whether a ratio to the baseline means something; not for a count of failures."""


@dataclass
class Sample:
    """What one contender did in one round."""

    values: dict[str, float]
    errors: int = 0
    """Requests that failed although the row lets nothing fail."""


@dataclass(frozen=True)
class Contender:
    """Who takes part in a row, and how one round of it is run."""

    name: str
    sample: Callable[[], Sample]
    other_driver: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the speed table (sync and asyncio are rows of their own)."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    contenders: Callable[[Bench], list[Contender]]
    rounds: int
    quick_rounds: int = 3
    against: Mapping[str, str] = field(default_factory=dict)
    """Whom a contender is compared with, where that is not psycopg_pool."""
    note: str = ""
    judged: str = JUDGED
    """Who is held to the targets."""

    def baseline_of(self, contender: str) -> str:
        """Name the contender that *contender*'s ratios are taken to."""
        return self.against.get(contender, BASELINE)


@dataclass(frozen=True)
class Bench:
    """What every row needs to know of this run."""

    server: Server
    quick: bool

    def pick(self, full: T, quick: T) -> T:
        """Choose the size of a measurement."""
        return quick if self.quick else full
