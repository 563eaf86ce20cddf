"""The pages of the documentation, as tests see them: headings, links, blocks of code.

A test with an argument `page` runs for each page; the fixture `pages` gives them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the page it begins at."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    @property
    def name(self) -> str:
        """Where it is in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its fenced blocks, line for line."""
        return FENCE.sub(lambda block: "\n" * block[0].count("\n"), self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(found[2], found[3], self.text.count("\n", 0, found.start(3)) + 1)
            for found in FENCE.finditer(self.text)
        ]

    @cached_property
    def links(self) -> list[tuple[str, str]]:
        """Each link's text and target."""
        return LINK.findall(self.prose)

    @cached_property
    def code_spans(self) -> list[str]:
        return CODE_SPAN.findall(self.prose)

    @cached_property
    def sections(self) -> dict[str, str]:
        """Each heading, without markup, with the text below it up to the next."""
        parts = HEADING.split(self.prose)[1:]
        titles = [title.replace("`", "").strip() for title in parts[1::3]]
        return dict(zip(titles, parts[2::3], strict=True))

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors that GitHub and MyST give the headings."""
        anchors: set[str] = set()
        for _, title in HEADING.findall(self.prose):
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            repeated = sum(a == slug or a.startswith(f"{slug}-") for a in anchors)
            anchors.add(f"{slug}-{repeated}" if slug in anchors else slug)
        return anchors


PAGES = {
    page.name: page
    for page in map(
        Page, [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
    )
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with an argument `page` for each page."""
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES.values(), ids=PAGES)


@pytest.fixture
def pages() -> dict[str, Page]:
    """All pages, by where they are in the repository."""
    return PAGES


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT
