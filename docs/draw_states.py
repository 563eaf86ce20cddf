"""Draw the states of a connection from the table of legal transitions.

Owns the layout of the picture: where each state stands, how each arrow bends. What
there is to draw comes from `edgepool._core.transitions`; a state or a step without a
place is an error. The same table gives the same bytes on every machine.

    python docs/draw_states.py            write docs/explanation/states.svg
    python docs/draw_states.py --check    exit with 1 if that file is not current
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from xml.sax.saxutils import escape

from edgepool._core.entry import State
from edgepool._core.transitions import TRANSITIONS

PICTURE = Path(__file__).parent / "explanation" / "states.svg"

WIDTH = 960
BOX_WIDTH, BOX_HEIGHT, ROUND = 128, 44, 10
BADGE = 11
LEGEND_TOP, LINE_HEIGHT = 650, 26

# Where each state stands: the centre of its box.
PLACES = {
    State.CONNECTING: (500, 50),
    State.CHECKING: (94, 270),
    State.IDLE: (320, 270),
    State.IN_USE: (640, 270),
    State.RESETTING: (866, 270),
    State.CLOSING: (320, 480),
    State.ABORTED: (730, 480),
    State.GONE: (500, 590),
}

INK, LINE, FAINT, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
FILL = {
    State.CONNECTING: "#fff3c4",
    State.IDLE: "#c6f7e2",
    State.IN_USE: "#bae3ff",
    State.CHECKING: "#fff3c4",
    State.RESETTING: "#fff3c4",
    State.CLOSING: "#ffe3e3",
    State.ABORTED: "#ffe3e3",
    State.GONE: "#e4e7eb",
}


@dataclass(frozen=True)
class Course:
    """How an arrow runs from one box to another.

    Offsets are from the centres of the boxes. The arrow is a quadratic curve that
    `bend` pulls away from its chord, in pixels, to the left of its direction.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    bend: int = 0
    badge_at: float = 0.5


TOP, BOTTOM = -BOX_HEIGHT // 2, BOX_HEIGHT // 2
LEFT, RIGHT = -BOX_WIDTH // 2, BOX_WIDTH // 2

COURSES = {
    (State.CONNECTING, State.IDLE): Course((-44, BOTTOM), (20, TOP), 0, 0.4),
    (State.CONNECTING, State.IN_USE): Course((44, BOTTOM), (0, TOP), 0, 0.4),
    (State.CONNECTING, State.CLOSING): Course((-22, BOTTOM), (46, TOP), 50, 0.19),
    (State.CONNECTING, State.GONE): Course((0, BOTTOM), (0, TOP), 0, 0.72),
    (State.CONNECTING, State.ABORTED): Course((22, BOTTOM), (-48, TOP), -90, 0.18),
    (State.IDLE, State.IN_USE): Course((RIGHT, -10), (LEFT, -10), 0, 0.2),
    (State.IN_USE, State.IDLE): Course((LEFT, 10), (RIGHT, 10), 0, 0.2),
    (State.IDLE, State.CHECKING): Course((LEFT, -10), (RIGHT, -10), 0, 0.3),
    (State.CHECKING, State.IDLE): Course((RIGHT, 10), (LEFT, 10), 0, 0.3),
    (State.IN_USE, State.RESETTING): Course((RIGHT, -10), (LEFT, -10), 0, 0.3),
    (State.RESETTING, State.IN_USE): Course((LEFT, 10), (RIGHT, 10), 0, 0.3),
    (State.CHECKING, State.IN_USE): Course((10, TOP), (-48, TOP), 170, 0.2),
    (State.RESETTING, State.IDLE): Course((-10, TOP), (48, TOP), -170, 0.2),
    (State.IDLE, State.CLOSING): Course((-10, BOTTOM), (-10, TOP), 0, 0.3),
    (State.IN_USE, State.CLOSING): Course((-40, BOTTOM), (RIGHT, -14), 0, 0.25),
    (State.CHECKING, State.CLOSING): Course((20, BOTTOM), (-40, TOP), 0, 0.35),
    (State.RESETTING, State.CLOSING): Course((-46, BOTTOM), (RIGHT, 6), -60, 0.22),
    (State.IN_USE, State.ABORTED): Course((20, BOTTOM), (0, TOP), 0, 0.5),
    (State.CHECKING, State.ABORTED): Course((46, BOTTOM), (LEFT, 12), 40, 0.14),
    (State.RESETTING, State.ABORTED): Course((0, BOTTOM), (44, TOP), 0, 0.5),
    (State.CLOSING, State.GONE): Course((20, BOTTOM), (LEFT, 0), 0, 0.5),
    (State.ABORTED, State.GONE): Course((-20, BOTTOM), (RIGHT, 0), 0, 0.5),
}


def draw() -> str:
    """Return the picture as SVG."""
    height = LEGEND_TOP + LINE_HEIGHT * ((len(TRANSITIONS) + 1) // 2) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img"'
        ' font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="14">',
        "<title>The states of a connection, and what leads from one to another</title>",
        _arrow_head("head", LINE),
        _arrow_head("faint", FAINT),
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
    ]
    numbered = list(enumerate(TRANSITIONS, 1))
    parts += [_line(*edge) for _, edge in numbered]
    parts += [_box(state) for state in State]
    parts += [_badge(number, *edge) for number, edge in numbered]
    parts += [_legend(number, *edge) for number, edge in numbered]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _arrow_head(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
        ' markerHeight="7" orient="auto-start-reverse">'
        f'<path d="M0 0 10 5 0 10z" fill="{colour}"/></marker>'
    )


def _curve(source: State, target: State) -> tuple[tuple[float, float], ...]:
    """Return start, control point and end of an arrow."""
    course = COURSES[source, target]
    (x0, y0), (x1, y1) = PLACES[source], PLACES[target]
    x0, y0 = x0 + course.start[0], y0 + course.start[1]
    x1, y1 = x1 + course.end[0], y1 + course.end[1]
    length = hypot(x1 - x0, y1 - y0)
    across = ((y1 - y0) / length, (x0 - x1) / length)
    control = (
        (x0 + x1) / 2 + across[0] * course.bend,
        (y0 + y1) / 2 + across[1] * course.bend,
    )
    return (x0, y0), control, (x1, y1)


def _line(source: State, target: State) -> str:
    (x0, y0), (cx, cy), (x1, y1) = _curve(source, target)
    rare = State.ABORTED in (source, target)
    colour, head = (FAINT, "faint") if rare else (LINE, "head")
    dashes = ' stroke-dasharray="5 4"' if rare else ""
    return (
        f'<path d="M{x0:.0f} {y0:.0f} Q{cx:.0f} {cy:.0f} {x1:.0f} {y1:.0f}" fill="none"'
        f' stroke="{colour}" stroke-width="1.5"{dashes} marker-end="url(#{head})"/>'
    )


def _box(state: State) -> str:
    x, y = PLACES[state]
    return (
        f'<rect x="{x + LEFT}" y="{y + TOP}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
        f' rx="{ROUND}" fill="{FILL[state]}" stroke="{INK}" stroke-width="1.5"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-weight="bold"'
        f' fill="{INK}">{escape(state.value)}</text>'
    )


def _badge(number: int, source: State, target: State) -> str:
    (x0, y0), (cx, cy), (x1, y1) = _curve(source, target)
    t = COURSES[source, target].badge_at
    x = (1 - t) ** 2 * x0 + 2 * t * (1 - t) * cx + t**2 * x1
    y = (1 - t) ** 2 * y0 + 2 * t * (1 - t) * cy + t**2 * y1
    return _number(number, x, y)


def _number(number: int, x: float, y: float) -> str:
    return (
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{BADGE}" fill="{PAPER}"'
        f' stroke="{LINE}"/><text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle"'
        f' font-size="12" fill="{INK}">{number}</text>'
    )


def _legend(number: int, source: State, target: State) -> str:
    rows = (len(TRANSITIONS) + 1) // 2
    column, row = divmod(number - 1, rows)
    x, y = 30 + column * (WIDTH // 2), LEGEND_TOP + row * LINE_HEIGHT
    label = escape(TRANSITIONS[source, target])
    return _number(number, x, y) + (
        f'<text x="{x + 20}" y="{y + 4}" font-size="13" fill="{INK}">{label}</text>'
    )


def main() -> int:
    """Write the picture, or check the one that is there."""
    picture = draw()
    if "--check" in sys.argv[1:]:
        current = PICTURE.read_text(encoding="utf-8") == picture
        print(f"{PICTURE.name} is {'current' if current else 'out of date'}")
        return 0 if current else 1
    PICTURE.write_text(picture, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
