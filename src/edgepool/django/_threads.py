"""A thread that ends gives back what it has borrowed.

Django has a wrapper for each thread, in a reference cycle: without this, what a thread
leaves behind would be found by the next collection of garbage, whenever that is.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class Borrower(Protocol):
    """What may have something to give back."""

    def return_at_end_of_thread(self) -> None: ...


class _Borrowers:
    """Those of one thread."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.all: WeakSet[Borrower] = WeakSet()

    def __del__(self) -> None:
        # A forked child has only the thread that forked. There this is called for the
        # others, whose connections are the parent's.
        if self.process != os.getpid() or sys.is_finalizing():
            return
        for borrower in list(self.all):
            with suppress(Exception):
                borrower.return_at_end_of_thread()


class _Local(threading.local):
    borrowers: _Borrowers | None = None


_local = _Local()


def note(borrower: Borrower) -> None:
    """Have a borrower give back what it has when the calling thread ends."""
    mine = _local.borrowers
    if mine is None:
        mine = _local.borrowers = _Borrowers()
    mine.all.add(borrower)
