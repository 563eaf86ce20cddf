"""A forked child starts over: whatever it has inherited belongs to its parent.

Owns the package's one hook for forks. It runs in the child before `os.fork` returns
there, in the only thread that a child begins with. So it takes no lock, whose holder
may be gone; starts no thread; does no I/O; logs nothing. What is needed is made at the
first use.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar
from weakref import WeakSet

T = TypeVar("T")

log = logging.getLogger("edgepool.pool")

# Linux's "empty this page in every child"; Python has no name for it.
MADV_WIPEONFORK = 18


class Heir(Protocol):
    """What holds something that a child must not go on with."""

    def start_over(self, parent: int) -> None:
        """Forget everything: this is a child that was just forked by a process."""
        ...


_heirs: WeakSet[Heir] = WeakSet()

# The parent's, and here for ever: to destroy it would reach the parent. An unfinished
# task, for one, would take its sockets back from a selector that both processes share.
_kept: list[object] = []


def _page() -> mmap.mmap | bytearray:
    """Make what is 1 here and, where the system can do that, 0 in a forked child."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(MADV_WIPEONFORK)
    except (AttributeError, OSError, TypeError):  # not Linux, or not as we know it
        return bytearray(b"\1")
    page[0] = 1
    return page


# For forks that Python does not notice, such as uWSGI's: looked at before an idle
# connection is lent. An eighth of the price of `os.getpid`.
UNFORKED = _page()

_pid = os.getpid()


def enrol(heir: Heir) -> None:
    """Have something start over in each child that is forked from now on."""
    _heirs.add(heir)


def keep(inherited: object) -> None:
    """Never destroy something, in this child, that is the parent's."""
    _kept.append(inherited)


def report(name: str, parent: int) -> None:
    """Log that a pool is used in a child for the first time."""
    log.info("%s: starts over in a forked process, child of %d", name, parent)


def each(step: Callable[[T], object], items: Iterable[T]) -> None:
    """Take a step with each item, also after one that fails; raise its error then.

    A step may run an adapter that is not ours. Python prints what the hook raises.
    """
    failed: Exception | None = None
    for item in items:
        try:
            step(item)
        except Exception as error:
            failed = error
    if failed is not None:
        raise failed


def notice() -> None:
    """Start over: this is a child that was just forked."""
    global _pid
    UNFORKED[0] = 1
    parent, _pid = _pid, os.getpid()
    each(lambda heir: heir.start_over(parent), list(_heirs))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=notice)
