"""Links lead somewhere, and names that are shown as code are names of something."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

# A name in code that begins with the package: `edgepool.Pool.borrow`.
QUALIFIED = re.compile(r"edgepool(?:\.\w+)+")

# Loggers are named like modules, and are none.
LOGGERS = re.compile(
    r"edgepool\.(pool|pooler|connect|direct|retire|reset|housekeeper|leak)"
)


def internal(page: Any) -> list[tuple[str, str]]:
    return [(t, to) for t, to in page.links if not to.startswith(("http:", "https:"))]


def test_a_link_leads_to_something(page: Any, pages: dict[str, Any]) -> None:
    known = {other.path: other for other in pages.values()}
    broken = []
    for _, target in internal(page):
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        found = file.exists()
        if found and anchor:
            found = file in known and anchor in known[file].anchors
        if not found:
            broken.append(target)

    assert [] == broken


def test_a_name_that_links_to_a_module_is_defined_there(page: Any, root: Path) -> None:
    missing = []
    for text, target in internal(page):
        file = (page.path.parent / target).resolve()
        if file.suffix != ".py" or not text.startswith("`"):
            continue
        if file.is_relative_to(root / "src"):
            name = text.strip("`")
            if name != file.name and name not in definitions(file):
                missing.append((name, target))

    assert [] == missing


def definitions(file: Path) -> set[str]:
    """Give the names of what a module defines, as `function` or `Class.method`."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    names = defined_by(module.body)
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            members = defined_by(node.body) | attributes_of_self(node)
            names |= {f"{node.name}.{member}" for member in members}
    return names


def defined_by(body: list[ast.stmt]) -> set[str]:
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def attributes_of_self(cls: ast.ClassDef) -> set[str]:
    return {
        node.attr
        for node in ast.walk(cls)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_a_qualified_name_exists(page: Any) -> None:
    missing = [
        span
        for span in map(bare, page.code_spans)
        if QUALIFIED.fullmatch(span)
        and not LOGGERS.fullmatch(span)
        and not exists(span)
    ]

    assert [] == missing


def bare(span: str) -> str:
    """Leave away what a name is called with."""
    return span.split("(", 1)[0]


def exists(name: str) -> bool:
    module, *rest = name.split(".")
    found: Any = importlib.import_module(module)
    for part in rest:
        module = f"{module}.{part}"
        if not hasattr(found, part):
            try:
                found = importlib.import_module(module)
            except ImportError:
                return False
        else:
            found = getattr(found, part)
    return True


def test_every_page_can_be_reached_from_the_readme(pages: dict[str, Any]) -> None:
    known = {page.path: page for page in pages.values()}
    reached, todo = set(), [pages["README.md"]]
    while todo:
        page = todo.pop()
        if page.path in reached:
            continue
        reached.add(page.path)
        for _, target in internal(page):
            file = (page.path.parent / target.partition("#")[0]).resolve()
            if file in known:
                todo.append(known[file])

    assert sorted(known) == sorted(reached)


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_a_front_page_links_to_every_part(path: str, pages: dict[str, Any]) -> None:
    page = pages[path]
    linked = {
        (page.path.parent / target.partition("#")[0]).resolve()
        for _, target in internal(page)
    }
    parts = {
        other.path
        for name, other in pages.items()
        if name in ("docs/tutorial.md", "docs/glossary.md", "docs/contributing.md")
        or "/how-to/" in name
        or "/reference/" in name
        or "/explanation/" in name
    }

    assert set() == parts - linked - {page.path}
