"""What stands between a pool and its server, as far as it has shown itself.

Decides; what it decides by is found out in `_detection`. Nobody announces a pooler, so
there are three signs:

- libpq was told another process id than the server's own: there is a pooler. PgBouncer
  makes a number up, mostly one that no process can have.
- two connections that are open have one server process, or one connection has another
  one than before: it is not theirs for longer than a transaction. The former shows when
  little is going on, the latter when clients queue. That neither does proves nothing,
  and no sign proves that a pooler lends its sessions for good.
- a prepared statement has another name at the server: the pooler keeps track of them,
  which it does only where sessions are shared.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

Asked: TypeAlias = Literal["auto", "none", "session", "transaction"]

# Found only: not looked yet; there is one, in a mode that has not shown itself.
UNKNOWN: Final = "unknown"
UNDETERMINED: Final = "undetermined"

# How often connections are stared at. With a glance beside the first stare, a pooler is
# worth three round trips; no pooler is one, a glance. The glance cannot go along with
# the stare: what is sent in one go has one session.
MOST_STARES: Final = 2

# No process of Linux has a higher number.
MOST_PROCESSES: Final = 4_194_304


class Look(Enum):
    """A round trip that tells something."""

    GLANCE = auto()
    """Which process is it?"""
    STARE = auto()
    """Which process, of which server, and what does it call a prepared statement?"""


class Sight(NamedTuple):
    """What a connection shows."""

    told: int
    """The process that libpq was told of."""
    process: int
    """The process that answers."""
    server: str = ""
    """What tells servers apart, whose processes may have the same number."""
    renames: bool = False
    """Whether it has another name for a prepared statement than its client."""


def _may_exist(process: int) -> bool:
    return 0 < process <= MOST_PROCESSES


class Pooler:
    """What a pool knows of a pooler in front of its server.

    Args:
        asked: what the user says there is; "auto": that is to be found out.

    Raises:
        ValueError: `asked` is something else.

    Attributes:
        mode: what was found: one of the user's words, "unknown" or "undetermined".
        prepares: whether a prepared statement is sure to be the one that was meant.
        is_known: whether the user has said all there is to know.
    """

    def __init__(self, asked: str) -> None:
        choices = get_args(Asked)
        if asked not in choices:
            shown = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
            raise ValueError(f"pooler must be {shown}, not {asked!r}")
        self.asked = asked
        self.mode = UNKNOWN if asked == "auto" else asked
        # Nothing is left to be found out.
        self.is_known = self.prepares = asked in ("none", "session")
        # The mode that the DSN says, which counts if there is a pooler.
        self.hint: str | None = None
        self._stares = 0
        # Whether the connections looked at were told of processes that may exist.
        self._may_exist: bool | None = None

    @property
    def is_there(self) -> bool:
        """Whether it is known that there is one."""
        return self.mode not in (UNKNOWN, "none")

    @property
    def shares_sessions(self) -> bool:
        """Whether it is known that a session lasts for a transaction only."""
        return self.mode == "transaction"

    def next_look(self, told: int, taken: tuple[Look, ...] = ()) -> Look | None:
        """Tell how to look at a new connection; None for nearly all.

        Args:
            told: the process that libpq was told of.
            taken: how this connection was looked at already.
        """
        if self.asked == "transaction":
            # Only whether it keeps track of prepared statements is not known.
            return None if self._stares else Look.STARE
        if Look.STARE in taken:
            # Does it have another process by now?
            again = self.mode == UNDETERMINED and self._stares == len(taken) == 1
            return Look.GLANCE if again else None
        may_stare = self._stares < MOST_STARES
        if self.mode == UNKNOWN:
            made_up = not _may_exist(told)
            return Look.STARE if made_up and may_stare else Look.GLANCE
        if self.mode == UNDETERMINED and may_stare:
            return Look.STARE
        # Has one come since, or gone?
        kind, usual = _may_exist(told), self._may_exist
        if not taken and usual is not None and kind != usual:
            return Look.GLANCE if kind or self.mode == "none" else None
        return None

    def looking(self, look: Look) -> None:
        """Take note that a look is taken, whatever comes of it."""
        # A pooler that breaks off when it is stared at is to be left alone afterwards.
        if look is Look.STARE:
            self._stares += 1

    def saw(self, sight: Sight, shared: bool) -> None:
        """Take note of what a look has shown.

        Args:
            sight: what it has shown.
            shared: the process was another connection's at the same time, or this
                connection had another one before.
        """
        if self.asked == "transaction":
            self.prepares = sight.renames
            return
        if sight.told == sight.process:
            self.mode, self.prepares, self._stares = "none", True, 0
        elif self.mode in (UNKNOWN, "none"):
            self.mode, self.prepares = self.hint or UNDETERMINED, False
        elif self._may_exist != _may_exist(sight.told):
            return  # a pooler as before, with an unusual number
        self._may_exist = _may_exist(sight.told)
        if sight.renames or shared:
            self.mode, self.prepares = "transaction", sight.renames

    def saw_nothing(self) -> None:
        """Take note that the server does not understand the question."""
        self._stares = MOST_STARES
        if self.mode == UNKNOWN:
            self.mode = self.hint or UNDETERMINED
