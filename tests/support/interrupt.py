"""An exception out of nowhere, at a chosen line of edgepool's own code.

What Ctrl-C, the handler of another signal or `PyThreadState_SetAsyncExc` may do between
two bytecodes, a tracer does here between two lines: for every line in turn.
"""

from __future__ import annotations

import gc
import linecache
import sys
import threading
from _thread import start_new_thread
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import edgepool
from edgepool._drivers import events, threads
from edgepool._drivers.housekeeper import Housekeeper
from edgepool._drivers.workers import Workers
from support.parity import poll_until

PACKAGE = str(Path(edgepool.__file__).parent)
REACHED = (PACKAGE, str(Path(psycopg.__file__).parent))
TESTING = str(Path(PACKAGE, "testing"))
SOURCES = str(Path(PACKAGE).parent)


# What the garbage collector calls: weak references in `edgepool._core.planner` and
# `edgepool.psycopg._handles`, and psycopg's finaliser.
COLLECTED = ("_drop", "_end_with_entry", "__del__")


class Interruption(BaseException):
    """As KeyboardInterrupt, SystemExit or gevent's Timeout: not an `Exception`."""


def interrupt():
    raise Interruption


class AtLine:
    """Acts at the nth line of edgepool's that is run, once.

    Attributes:
        act: what it does: it interrupts.
        at: where that was; None if there were not so many lines.
    """

    def __init__(self, nth):
        self._left = nth
        self.act = interrupt
        self._handled = None
        self.at = None

    @contextmanager
    def here(self):
        """Interrupt this thread, in this block."""
        self._handled = sys.exc_info()[1]
        sys.settrace(self._call)
        try:
            yield self
        finally:
            sys.settrace(None)

    @contextmanager
    def in_threads(self, name):
        """Interrupt a thread of this name, if it starts in this block.

        But not before its first `try`: there is nothing that could be done about it.
        """
        self._left += 1

        def call(frame, event, argument):
            if threading.current_thread().name == name:
                return self._call(frame, event, argument)
            return None

        threading.settrace(call)
        try:
            yield self
        finally:
            threading.settrace(None)
            self._left = 0

    def _call(self, frame, event, argument):
        path = frame.f_code.co_filename
        if frame.f_code.co_name in COLLECTED:
            # The garbage collector's callback: whatever it raises, nobody gets.
            return None
        if path.startswith(PACKAGE) and not path.startswith(TESTING):
            return self._line
        return None

    def _line(self, frame, event, argument):
        if event == "line" and self._left > 0 and not self._is_out_of_reach(frame):
            self._left -= 1
            if self._left == 0:
                file = Path(frame.f_code.co_filename).relative_to(PACKAGE)
                self.at = f"{file}:{frame.f_lineno} {frame.f_code.co_name}"
                self.act()
        return self._line

    def _is_out_of_reach(self, frame):
        """Tell whether an exception at a line would not be the caller's."""
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename.startswith(REACHED):
            if caller.f_code.co_name in COLLECTED:
                return True
            caller = caller.f_back
        return self._is_handler(frame)

    def _is_handler(self, frame):
        """Tell whether a line belongs to an `except` that is being entered or left.

        The interpreter looks for no signal there; and CPython 3.11 keeps an exception
        alive, or counts it as handled, for ever if a tracer raises there.
        """
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        handled = sys.exc_info()[1]
        return line.lstrip().startswith("except") or (
            handled is not self._handled
            and isinstance(handled, (LookupError, StopIteration))
        )


def at_every_line(scenario, step=1):
    """Run a scenario with an interruption at its first line, at its second, and so on.

    Args:
        scenario: a function that is given an `AtLine`; it ends when there are no more.
        step: how many lines to go on each time.

    Returns:
        About how many lines there are.
    """
    nth = 1
    while True:
        interruption = AtLine(nth)
        try:
            scenario(interruption)
        except BaseException as error:
            if hasattr(error, "add_note"):
                error.add_note(f"interrupted at line {nth}, {interruption.at}")
            raise
        if interruption.at is None:
            return nth - 1
        nth += step


@pytest.fixture
def own_background(monkeypatch):
    """Let no thread of another test be in the way; and none complain of its end."""
    monkeypatch.setattr(events, "housekeeper", Housekeeper())
    monkeypatch.setattr(events, "workers", Workers())
    usual = threading.excepthook

    def hook(arguments):
        if arguments.exc_type is not Interruption:
            usual(arguments)

    monkeypatch.setattr(threading, "excepthook", hook)
    telling = []

    def start_to_tell(function, arguments):
        def tell():
            try:
                function(*arguments)
            finally:
                telling.remove(tell)

        telling.append(tell)
        start_new_thread(tell, ())

    monkeypatch.setattr(threads, "start_new_thread", start_to_tell)
    # What there is already is not looked at again, a thousand times.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    # What was dropped here is not told of in another test.
    gc.collect()
    poll_until(lambda: not telling)
