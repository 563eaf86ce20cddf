"""Runs a row: rounds, interleaved and rotated, garbage collection alike for everyone.

In round 1 the order is A B C, in round 2 B C A, and so on, so that a slow minute of the
machine hits everybody and nobody always runs first. Ratios are taken within a round,
and the median of them is the answer.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .model import Bench, Contender, Metric, Row, Sample, Unavailable

Rounds = list[float | None]


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Figure | None:
        """Summarise *values*; None if there are none."""
        if not values:
            return None
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass
class Standing:
    """All rounds of one contender."""

    name: str
    other_driver: bool
    rounds: list[dict[str, float] | None] = field(default_factory=list)
    errors: int = 0
    problem: str = ""
    """Why it is not there, or the last thing that went wrong."""

    def values(self, metric: Metric) -> Rounds:
        """This contender's figures, round by round; None where it has none."""
        return [each.get(metric.key) if each else None for each in self.rounds]


@dataclass
class Outcome:
    """A row that was run."""

    row: Row
    standings: list[Standing]

    def standing(self, name: str) -> Standing | None:
        """Find a contender by name."""
        return next((each for each in self.standings if each.name == name), None)

    def absolute(self, name: str, metric: Metric) -> Figure | None:
        """Summarise what a contender measured."""
        found = self.standing(name)
        if found is None:
            return None
        return Figure.of([v for v in found.values(metric) if v is not None])

    def ratio(self, name: str, metric: Metric) -> Figure | None:
        """Summarise a contender's rounds, each against its baseline's same round."""
        mine, base = self.standing(name), self.standing(self.row.baseline_of(name))
        if mine is None or base is None:
            return None
        pairs = zip(mine.values(metric), base.values(metric), strict=True)
        return Figure.of([a / b for a, b in pairs if a is not None and b])


@contextmanager
def no_collection() -> Iterator[None]:
    """Begin with a clean heap, and keep the collector out of the measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_row(bench: Bench, row: Row, rounds: int | None = None) -> Outcome:
    """Run all rounds of *row*; a contender that fails is noted, the others go on."""
    contenders = row.contenders(bench)
    standings = {
        each.name: Standing(each.name, each.other_driver) for each in contenders
    }

    rounds = rounds or bench.pick(row.rounds, row.quick_rounds)
    for number in range(rounds):
        turn = number % len(contenders)
        for contender in contenders[turn:] + contenders[:turn]:
            _run_sample(bench, contender, standings[contender.name])

    return Outcome(row, list(standings.values()))


def _run_sample(bench: Bench, contender: Contender, standing: Standing) -> None:
    try:
        with no_collection():
            sample = contender.sample()
        bench.server.settle()
    except Unavailable as reason:
        standing.problem = str(reason)
        standing.rounds.append(None)
    except Exception as failure:
        standing.problem = f"{type(failure).__name__}: {failure}"
        standing.errors += 1
        standing.rounds.append(None)
    else:
        standing.errors += sample.errors
        standing.rounds.append(_finite(sample))


def _finite(sample: Sample) -> dict[str, float]:
    return {key: v for key, v in sample.values.items() if math.isfinite(v)}
