"""SQL as far as it speaks of transactions: where a statement ends, and what it is.

No parser: quotes, comments and semicolons are understood, and the first words.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

# What a semicolon may be in without ending a statement. PostgreSQL nests comments.
_PIECES: Final = re.compile(
    r"""
      (?<!\w)[eE]'(?:[^'\\]|''|\\.)*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    | --[^\n]*
    | /\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*(?:[^*]|\*(?!/))*\*/)*\*/
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)

# A function's body in SQL itself has semicolons, and an END.
_ATOMIC: Final = re.compile(r"\bBEGIN\s+ATOMIC\b", re.IGNORECASE)

_AHEAD: Final = re.compile(
    r"(?:\s|--[^\n]*|/\*(?:[^*/]|\*(?!/)|/(?!\*)|/\*(?:[^*]|\*(?!/))*\*/)*\*/)*",
    re.DOTALL,
)


class Kind(Enum):
    """What a statement is to a transaction."""

    OTHER = auto()
    BEGIN = auto()
    COMMIT = auto()
    ROLLBACK = auto()
    PREPARE = auto()
    """The first half of a two-phase commit."""
    SAVEPOINT = auto()
    DEALLOCATE = auto()
    """Of one prepared statement, or of all."""


_KINDS: Final = {
    Kind.BEGIN: r"BEGIN\b|START\s+TRANSACTION\b",
    Kind.COMMIT: r"(?:COMMIT|END)\b(?!\s+PREPARED\b)",
    Kind.ROLLBACK: (
        r"(?:ROLLBACK|ABORT)\b(?!\s+PREPARED\b)(?!(?:\s+(?:WORK|TRANSACTION))?\s+TO\b)"
    ),
    Kind.PREPARE: r"PREPARE\s+TRANSACTION\b",
    Kind.SAVEPOINT: r"SAVEPOINT\b",
    Kind.DEALLOCATE: r"DEALLOCATE\b",
}
_FIRST_WORDS: Final = re.compile(
    "|".join(f"(?P<{kind.name}>{words})" for kind, words in _KINDS.items()),
    re.IGNORECASE,
)


class Statement(NamedTuple):
    """One statement, without the semicolon at its end."""

    text: str
    kind: Kind

    def says(self, words: str) -> bool:
        """Tell whether some words are in it, in upper or lower case."""
        pattern = r"\s+".join(words.split())
        return re.search(rf"\b{pattern}\b", self.text, re.IGNORECASE) is not None


def split(text: str) -> list[Statement]:
    """Split what was sent as one string; what is empty is left out."""
    if _ATOMIC.search(text):
        return [Statement(text, Kind.OTHER)]
    ends = [piece.start() for piece in _PIECES.finditer(text) if piece["end"]]
    starts = [0, *(end + 1 for end in ends)]
    parts = (text[a:b] for a, b in zip(starts, [*ends, len(text)], strict=True))
    return [Statement(part, kind_of(part)) for part in parts if _is_more(part)]


def kind_of(statement: str) -> Kind:
    """Tell what a statement is to a transaction."""
    ahead = _AHEAD.match(statement)
    found = _FIRST_WORDS.match(statement, ahead.end() if ahead else 0)
    return Kind[found.lastgroup] if found and found.lastgroup else Kind.OTHER


def _is_more(part: str) -> bool:
    return _AHEAD.fullmatch(part) is None
