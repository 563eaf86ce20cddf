"""Watches a run from outside: how many sessions the server has, how far the work is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from psycopg import Connection

from bank.score import Score
from bank.terminal import IS_TERMINAL, bar, say, say_for_now

SAMPLE_EVERY = 0.1  # seconds
LINE_EVERY = 1.0  # seconds, where the output is no terminal and no line is replaced
GONE_WITHIN = 10.0  # seconds; a server ends a session in a few milliseconds

COUNT_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"


class Watch:
    """Samples a run's sessions and shows its numbers, while a `with` block lasts.

    Its connection was opened before the run: during a run without a pool there
    might be none to be had.
    """

    def __init__(self, admin: Connection[Any], session_name: str, score: Score) -> None:
        """Prepare to watch the sessions whose `application_name` is that."""
        self.sessions = 0
        self.peak = 0
        self._admin = admin
        self._session_name = session_name
        self._score = score
        self._ended = Event()
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> Watch:
        """Start to watch, in a thread."""
        self._watching = self._executor.submit(self._watch)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, and show the last numbers."""
        self._ended.set()
        self._executor.shutdown()
        say_for_now("")
        say(self._line())
        if exc is None:
            self._watching.result()  # raises what went wrong in the thread

    def wait_until_gone(self) -> None:
        """Wait until the server has ended the sessions: the next run needs the room."""
        give_up_at = monotonic() + GONE_WITHIN
        while self._sample() and monotonic() < give_up_at:
            sleep(SAMPLE_EVERY)

    def _watch(self) -> None:
        next_line_at = monotonic() + LINE_EVERY
        while not self._ended.wait(SAMPLE_EVERY):
            self._sample()
            say_for_now(self._line())
            if not IS_TERMINAL and monotonic() >= next_line_at:
                say(self._line())
                next_line_at += LINE_EVERY

    def _sample(self) -> int:
        row = self._admin.execute(COUNT_SESSIONS, [self._session_name]).fetchone()
        assert row is not None
        self.sessions = row[0]
        self.peak = max(self.peak, self.sessions)
        return self.sessions

    def _line(self) -> str:
        score = self._score
        return (
            f"  {bar(score.attempts, score.planned)}"
            f" {score.transfers:>6,} done {score.rate:>6,.0f}/s"
            f"  {self.sessions:>2} sessions, peak {self.peak:>2}"
            f" {score.failures:>6,} errors"
        )
