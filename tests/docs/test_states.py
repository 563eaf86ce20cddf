"""The picture of the states is what the table of transitions says."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from edgepool._core.entry import State
from edgepool._core.transitions import TRANSITIONS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/explanation/states.md"


def test_the_picture_is_what_the_script_draws(root: Path) -> None:
    script = root / "docs" / "draw_states.py"
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, ""), (
        f"{ran.stdout}{ran.stderr}Draw it again: python docs/draw_states.py"
    )


def test_every_state_is_explained(pages: dict[str, Any]) -> None:
    page = pages[PAGE]

    assert [] == [s.value for s in State if s.value not in page.sections]


def test_every_transition_is_in_the_picture(root: Path) -> None:
    picture = (root / "docs" / "explanation" / "states.svg").read_text(encoding="utf-8")

    assert picture.count("<path d=") - 2 == len(TRANSITIONS)  # two are arrow heads
    assert [] == [text for text in TRANSITIONS.values() if f">{text}<" not in picture]
