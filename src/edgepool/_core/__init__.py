"""Every decision of the pool, and no effect.

Nothing in here waits, connects, logs, reads a clock, rolls dice or takes a lock.
`PoolCore` is told facts, each with the time at which it happened, and leaves behind
what is to be done about them: commands for I/O, and waiters who have an answer.
"""

from .commands import Abort, Alarm, Check, Close, Command, Connect, Reset, Sweep
from .core import PoolCore
from .entry import NEVER, Entry, Note, Reason, Refusal, State, Tether, Waiter
from .error_class import PERMANENT, ErrorClass
from .planner import BRIEFEST
from .settings import (
    PROBE_AFTER,
    RENEWAL,
    STAGGER,
    Nested,
    Settings,
    must_be_seconds,
    whole,
)
from .statistics import PoolStatistics

__all__ = [
    "BRIEFEST",
    "NEVER",
    "PERMANENT",
    "PROBE_AFTER",
    "RENEWAL",
    "STAGGER",
    "Abort",
    "Alarm",
    "Check",
    "Close",
    "Command",
    "Connect",
    "Entry",
    "ErrorClass",
    "Nested",
    "Note",
    "PoolCore",
    "PoolStatistics",
    "Reason",
    "Refusal",
    "Reset",
    "Settings",
    "State",
    "Sweep",
    "Tether",
    "Waiter",
    "must_be_seconds",
    "whole",
]
