"""Whether more come than can be served, and from when on somebody is shed for it.

CoDel (Nichols and Jacobson, 2012), in the form that Elixir's db_connection gave it for
a pool. A queue is judged by how long those wait who are served, not by its length: one
that is slow for a moment is a burst, one that stays slow is an overload. While it lasts
whoever has waited for twice the target is sent away, so that what is served is served
soon enough to be of use to somebody.

Two things are not as in db_connection, because a pool may have few connections that are
held for long. The last in the queue is never shed (CoDel's own rule), for a connection
that comes back must find somebody. And shedding itself makes the queue quick, which is
no sign that the overload is over: it lasts until nobody was shed for an interval.
"""

from __future__ import annotations

from .entry import ALWAYS, NEVER
from .settings import Settings

# In an overload, whoever has waited for so many targets is shed (db_connection's).
TARGETS = 2

# How much later than that it may be when only a timer can do it, in targets. A return
# or a newcomer does it in passing; a timer for each waiter would be dear.
GRAIN = 0.25


class Overload:
    """The time in which everybody who is served has waited for longer than the target.

    Args:
        settings: what the user asked for.
    """

    def __init__(self, settings: Settings) -> None:
        # It has begun if by then nobody was served in time; it ends when somebody is,
        # but not before the other moment.
        self._begins_at = NEVER
        self._ends_at = ALWAYS
        # When the timer is to shed.
        self.look_at = NEVER
        self._take(settings)

    def _take(self, settings: Settings) -> None:
        target = settings.shed_target
        self.on = target is not None
        """Whether anybody is ever shed."""
        self._target = NEVER if target is None else target
        self._interval = settings.shed_interval

    def configure(self, now: float, settings: Settings) -> None:
        """Take new settings; if they are others, judge anew."""
        before = self._target, self._interval
        self._take(settings)
        if before != (self._target, self._interval):
            self._ends_at = self.look_at = ALWAYS
            self.fine(now)

    def fine(self, now: float) -> None:
        """Nobody waited, or somebody was served in time."""
        if now >= self._ends_at:
            self._begins_at = now + self._target + self._interval

    def serve(self, now: float, since: float) -> None:
        """Somebody is served who has waited since then."""
        if now - since <= self._target:
            self.fine(now)

    def shed(self, now: float) -> None:
        """Somebody is shed."""
        self._ends_at = now + self._interval

    def due_at(self, since: float) -> float:
        """From when on to shed whoever has waited since then, if things stay as bad."""
        return max(self._begins_at, since + TARGETS * self._target)

    def looked(self, now: float, due_at: float) -> None:
        """The timer has shed who was due; somebody else is from `due_at` on."""
        self.look_at = max(due_at, now + GRAIN * self._target)
