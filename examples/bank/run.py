"""What a run is, and what it results in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bank.score import Score


@dataclass(frozen=True)
class Run:
    """Some workers that make so many transfers each."""

    name: str
    work: Callable[[str, Score, int, int], None]
    workers: int
    each: int
    pooled: bool = False

    @property
    def planned(self) -> int:
        """How many transfers there are to make."""
        return self.workers * self.each

    @property
    def session_name(self) -> str:
        """The `application_name` by which the server knows the run's sessions."""
        return f"edgepool demo: {self.name}"


@dataclass(frozen=True)
class Result:
    """What a run has come to."""

    run: Run
    score: Score
    peak: int
