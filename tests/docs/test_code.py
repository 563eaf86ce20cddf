"""What the documentation shows, works: each block of Python runs, in the page's order.

The blocks of a page share a namespace. A block of `output` shows what was printed since
the last one; `...` in it stands for anything. A block that begins with a file's name
in a comment is that file, and is not run here: whoever tests the page does.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from edgepool.testing import PostgresServer

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

FILE = re.compile(r"# \w+\.py\n")

# What else a page may show.
LANGUAGES = {"python", "output", "console", "text", "toml", ""}


def test_the_code_of_a_page_runs(
    page: Any, server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", server.url)
    # Those of the tests are no arguments of a pool.
    for name in [name for name in os.environ if name.startswith("EDGEPOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()

    for block in page.blocks:
        if FILE.match(block.text):
            continue
        if block.language == "python":
            # As many lines in front as the page has: tracebacks name the page's line.
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, str(page.path), "exec", dont_inherit=True)
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        elif block.language == "output":
            said = printed.getvalue()
            printed.seek(0)
            printed.truncate()
            where = f"{page.name}:{block.line}"

            assert doctest.OutputChecker().check_output(block.text, said, FLAGS), (
                f"{where} shows\n{block.text}\nbut the code above it printed\n{said}"
            )
    # A framework may keep the page's functions, and so the page: not what they used,
    # or pools and cursors would last until the interpreter takes itself apart.
    namespace.clear()


def test_a_block_says_what_it_is(page: Any) -> None:
    languages = {block.language for block in page.blocks}

    assert languages <= LANGUAGES


def test_the_readme_shows_the_quickstart(pages: dict[str, Any], root: Path) -> None:
    example = (root / "examples" / "quickstart.py").read_text(encoding="utf-8")
    shown = next(b for b in pages["README.md"].blocks if b.language == "python")

    assert example.split('"""\n\n', 1)[1] == shown.text
