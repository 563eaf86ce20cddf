"""Places in the user's program: noted cheaply, told as file and line.

A code object and an offset are a tenth of the price of a line number.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from sys import _getframe
from types import FrameType

from ._core import Note

PACKAGE = __name__.rpartition(".")[0]

# What a borrower may call that borrows: its frames are not his, either.
NOT_HIS = (PACKAGE, "psycopg")


def place(note: Note) -> str:
    """Tell the file and line of a note."""
    code, offset = note.code, note.offset
    if code is None:
        return "an unknown place"
    lines = (line for start, end, line in code.co_lines() if start <= offset < end)
    return f"{code.co_filename}:{next(lines, None) or code.co_firstlineno}"


def place_of_caller() -> str:
    """Tell where the thread or task that runs now has asked for a connection."""
    note = Note()
    note_caller(note)
    return place(note)


def note_caller(note: Note) -> None:
    """Note that place, for which the frames are searched: not for each borrow."""
    frame: FrameType | None = _getframe(1)
    while frame is not None and not is_his(frame):
        frame = frame.f_back
    if frame is not None:
        note.code, note.offset = frame.f_code, frame.f_lasti


def is_his(frame: FrameType) -> bool:
    """Tell whether a frame is of the user's program, or of his framework."""
    module: str = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] not in NOT_HIS
