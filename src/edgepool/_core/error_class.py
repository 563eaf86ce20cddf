"""What an error means to a pool, whatever the resource is."""

from __future__ import annotations

from enum import Enum


class ErrorClass(Enum):
    """What an error means to the pool: of a connect, or of what a borrower did.

    The pool never repeats what a borrower did, whatever the class.
    """

    ORDINARY = "ordinary"
    """Nothing special: a failed connect is tried again, a connection is kept."""
    RETIRE = "retire"
    """The connection is not to be used again."""
    SUSPECT = "suspect"
    """Neither is it, and what ended it may have ended its siblings: they are probed."""
    BACK_OFF = "back off"
    """There is no place for another connection now: the pool makes do with its own."""
    CREDENTIALS = "credentials"
    """Not admitted: new credentials may help if there is a provider, waiting cannot."""
    FAIL_FAST = "fail fast"
    """Waiting cannot help: those who wait are told."""
    READ_ONLY = "read-only"
    """The server takes no writes: it may have become a standby."""


# A connect that failed like this fails again, however long one waits.
PERMANENT = frozenset((ErrorClass.CREDENTIALS, ErrorClass.FAIL_FAST))
