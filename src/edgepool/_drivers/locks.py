"""What a lock has to stand, wherever a thread may be interrupted.

Ctrl-C and the exceptions of other signal handlers come out of any line, also between
taking a lock and the `with` that would let it go. And a handler, or a finaliser that
the garbage collector runs, may use the pool in the midst of what its own thread does to
it. So these locks are reentrant, and know their owner.
"""

from __future__ import annotations

from threading import RLock
from typing import Any


def owned(lock: RLock) -> bool:
    """Tell whether this thread has the lock. As `Condition` does."""
    own: Any = lock
    return bool(own._is_owned())


def let_go(lock: RLock) -> None:
    """Free a lock of this thread, however often it has been taken, if at all."""
    while owned(lock):
        lock.release()
