"""Who has borrowed what, and where; what is told of a borrow that was never returned.

A place costs some 60 ns to note, a borrower 100: so borrows are tracked on demand.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable
from sys import _getframe
from typing import Any
from weakref import ref

from .._core import PoolCore, Tether
from .._places import place

log = logging.getLogger("edgepool.leak")

# How long after the garbage collector a leak is told of, in seconds: so not at the end
# of a program or an event loop, where everything is dropped.
A_MOMENT = 0.05

HINT = "an unknown place (track_borrows=True tells)"


class Tracker:
    """Notes borrows, and looks whether the borrowers are still there.

    Args:
        current: gives the thread or task that runs now.
        has_ended: tells whether one has ended.
    """

    def __init__(
        self, current: Callable[[], Any], has_ended: Callable[[Any], bool]
    ) -> None:
        self._current = current
        self._has_ended = has_ended

    def note(self, tether: Tether[Any], depth: int) -> None:
        """Note who borrows, and where: so many frames above the caller."""
        frame = _getframe(depth + 1)
        note = tether.note
        note.code, note.offset = frame.f_code, frame.f_lasti
        note.returned = False
        tether.borrower = ref(self._current())

    def look(self, name: str, lent: Iterable[Tether[Any]]) -> None:
        """Tell once of each borrower that has ended without returning what it had."""
        for tether in lent:
            if tether.borrower is None:
                continue
            borrower = tether.borrower()
            if borrower is None or self._has_ended(borrower):
                tether.borrower = None
                log.warning(
                    "%s: a thread or task has ended with a connection borrowed at %s",
                    name,
                    place(tether.note),
                )


def tell_of_leaks(name: str, core: PoolCore[Any]) -> None:
    """Tell once of each connection that was dropped by its borrower."""
    while core.leaked:
        tether = core.leaked.pop()
        known = tether.owner is not None or tether.borrower is not None
        where = place(tether.note) if known else HINT
        log.warning(
            "%s: a connection borrowed at %s was dropped, not returned", name, where
        )
        warnings.warn(
            f"a connection of the pool {name!r}, borrowed at {where},"
            " was dropped instead of returned",
            ResourceWarning,
            stacklevel=2,
        )
