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
import select
import selectors
from collections.abc import Callable, Iterable
from threading import RLock
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

# What nobody is to destroy here, because it goes on in the parent: asyncio complains of
# a task that was destroyed unfinished.
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

# Only for those who notice: in the hook there is no other thread.
_noticing = RLock()


def enrol(heir: Heir) -> None:
    """Have something start over in each child that is forked from now on."""
    _heirs.add(heir)


def keep(inherited: object) -> None:
    """Never destroy something, in this child, that goes on in the parent."""
    _kept.append(inherited)


def report(name: str, parent: int) -> None:
    """Log that a pool is used in a child for the first time."""
    log.info("%s: starts over in a forked process, child of %d", name, parent)


def part_from(loop: object) -> None:
    """Give an inherited event loop a selector of its own, with the same in it.

    An epoll is shared with the parent: when the child ends the loop, or a task on it,
    what it takes out would be out for the parent as well, who would wait for ever.
    Loops that are not asyncio's own see to that themselves, or are left alone.
    """
    selector = getattr(loop, "_selector", None)
    if not hasattr(selectors, "EpollSelector"):  # a kqueue is not inherited
        return
    if not isinstance(selector, selectors.EpollSelector):
        return
    with select.epoll() as own:
        for key in selector.get_map().values():
            reads = select.EPOLLIN if key.events & selectors.EVENT_READ else 0
            writes = select.EPOLLOUT if key.events & selectors.EVENT_WRITE else 0
            own.register(key.fd, reads | writes)
        os.dup2(own.fileno(), selector.fileno(), inheritable=False)


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
    parent, _pid = _pid, os.getpid()
    try:
        each(lambda heir: heir.start_over(parent), list(_heirs))
    finally:
        UNFORKED[0] = 1


def notice_late() -> None:
    """Start over in a child whose fork nobody has told of; once, for all its threads.

    Who comes second waits until all that was inherited is known to be.
    """
    with _noticing:
        if not UNFORKED[0]:
            notice()


def _notice_at_once() -> None:
    global _noticing
    # Another thread may have had it, and is not here.
    _noticing = RLock()
    notice()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_notice_at_once)
