"""Prints to a terminal: a line that is replaced, a bar, a little colour."""

from __future__ import annotations

import os
import shutil
import sys

BOLD, DIM, RED, GREEN = 1, 2, 31, 32
CLEAR_LINE = "\r\033[K"
BAR_WIDTH = 16

IS_TERMINAL = sys.stdout.isatty()
HAS_COLOUR = IS_TERMINAL and "NO_COLOR" not in os.environ
HAS_BLOCKS = "utf" in (sys.stdout.encoding or "").lower()


def say(text: str = "", colour: int | None = None) -> None:
    """Print a line."""
    print(paint(text, colour), flush=True)


def say_for_now(text: str) -> None:
    """Replace the last line of a terminal; without a terminal, say nothing."""
    if IS_TERMINAL:
        width = shutil.get_terminal_size().columns - 1  # a wrapped line would stay
        print(CLEAR_LINE + text[:width], end="", flush=True)


def paint(text: str, colour: int | None) -> str:
    """Colour a text, where that shows."""
    if colour is None or not HAS_COLOUR:
        return text
    return f"\033[{colour}m{text}\033[0m"


def bar(part: int, whole: int) -> str:
    """Draw how much is done."""
    full, empty = ("█", "░") if HAS_BLOCKS else ("#", ".")
    length = BAR_WIDTH * part // whole
    return full * length + empty * (BAR_WIDTH - length)


def milliseconds(seconds: float | None) -> str:
    """Write a wait, which may be none at all."""
    return "-" if seconds is None else f"{seconds * 1000:,.0f} ms"
