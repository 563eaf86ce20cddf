"""The reference has everything that there is, with the defaults that it really has."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import psycopg_pool
import pytest

import edgepool
import edgepool.fastapi
import edgepool.flask
import edgepool.sqlalchemy
import edgepool.testing
from edgepool._face import Face
from edgepool.psycopg._dsn_django import NAMES
from edgepool.psycopg._dsn_parameters import PARAMETERS, TRANSLATED, WITHOUT_EFFECT

POOL, ADAPTER = "docs/reference/pool.md", "docs/reference/adapter.md"
STATISTICS, ERRORS = "docs/reference/statistics.md", "docs/reference/errors.md"
TESTING = "docs/reference/testing.md"
LOGGING, DSN = "docs/reference/logging.md", "docs/reference/dsn.md"
MOVING = "docs/how-to/from-psycopg-pool.md"

PSYCOPG_POOLS = (
    edgepool.ConnectionPool,
    edgepool.AsyncConnectionPool,
    edgepool.NullConnectionPool,
    edgepool.AsyncNullConnectionPool,
)
POOLS = (*PSYCOPG_POOLS, edgepool.Pool, edgepool.AsyncPool)

# psycopg_pool's engine has these; edgepool says that it has not.
NOT_OURS = {"run_task", "schedule_task", "worker"}

EXCEPTIONS = [
    name
    for name in edgepool.__all__
    if isinstance(cls := getattr(edgepool, name), type) and issubclass(cls, Exception)
]

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

DEFAULT = re.compile(r"^Default: (.+)\.$", re.MULTILINE)


def arguments(function: Any) -> dict[str, Any]:
    """Give the arguments of a constructor that have a default, with it."""
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }


def shown(default: object) -> str:
    """Write a default as the reference does."""
    if isinstance(default, type):
        return f"`{default.__module__}.{default.__qualname__}`"
    return f"`{default!r}`".replace("'", '"')


def documented_default(section: str, cls: type) -> str | None:
    """Read a default: `4`; null pools: `0`; asyncio: `psycopg.AsyncConnection`."""
    found = DEFAULT.search(section)
    if found is None:
        return None
    usual, *others = found[1].split("; ")
    for other in others:
        kind, _, value = other.partition(": ")
        if kind.removesuffix(" pools") in cls.__name__.lower().replace(
            "async", "asyncio"
        ):
            usual = value
    return usual


@pytest.mark.parametrize("cls", PSYCOPG_POOLS, ids=lambda cls: cls.__name__)
def test_each_argument_is_there_with_its_default(
    cls: Any, pages: dict[str, Any]
) -> None:
    sections = pages[POOL].sections
    real = {name: shown(value) for name, value in arguments(cls).items()}
    documented = {
        name: documented_default(sections.get(name, ""), cls) for name in real
    }

    assert real == documented


def test_each_argument_of_the_generic_pools_is_there_with_its_default(
    pages: dict[str, Any],
) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (`[^|]*`) \|", pages[ADAPTER].prose, re.MULTILINE
    )
    real = {name: shown(value) for name, value in arguments(Face.__init__).items()}

    assert real == {name: default for name, default in rows if name in real}


@pytest.mark.parametrize("name", edgepool.__all__)
def test_each_public_name_is_in_the_reference(name: str, pages: dict[str, Any]) -> None:
    spans = {
        span
        for page in pages.values()
        if "/reference/" in page.name
        for span in page.code_spans
    }

    assert {name, f"edgepool.{name}"} & spans


@pytest.mark.parametrize("name", edgepool.testing.__all__)
def test_each_name_for_tests_is_in_the_reference(
    name: str, pages: dict[str, Any]
) -> None:
    assert name in names_in(pages[TESTING])


@pytest.mark.parametrize("name", ["FakeServer", "Faults", "PostgresServer"])
def test_what_servers_for_tests_can_do_is_in_the_reference(
    name: str, pages: dict[str, Any]
) -> None:
    cls = getattr(edgepool.testing, name)
    public = {name for name in dir(cls) if not name.startswith("_")}

    assert set() == public - names_in(pages[TESTING])


def test_each_fixture_is_in_the_reference(pages: dict[str, Any]) -> None:
    from edgepool.testing import plugin

    fixtures = {name for name in vars(plugin) if name.startswith("edgepool_")}

    assert fixtures == {n for n in first_cells(pages[TESTING]) if n in fixtures}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("fastapi", name) for name in edgepool.fastapi.__all__),
        *(("flask", name) for name in edgepool.flask.__all__),
        *(("sqlalchemy", name) for name in edgepool.sqlalchemy.__all__),
    ],
)
def test_each_argument_of_an_integration_is_in_the_reference(
    module: str, name: str, pages: dict[str, Any]
) -> None:
    public = getattr(importlib.import_module(f"edgepool.{module}"), name)
    parameters = set(inspect.signature(public).parameters)

    assert set() == {name, *parameters} - names_in(pages[f"docs/reference/{module}.md"])


def names_in(page: Any) -> set[str]:
    return set(re.findall(r"\w+", " ".join(page.code_spans)))


@pytest.mark.parametrize("cls", POOLS, ids=lambda cls: cls.__name__)
def test_each_method_and_property_is_in_the_reference(
    cls: Any, pages: dict[str, Any]
) -> None:
    spans = " ".join(pages[POOL].code_spans + pages[ADAPTER].code_spans)
    words = set(re.findall(r"\w+", spans))
    public = {name for name in dir(cls) if not name.startswith("_")} - NOT_OURS

    assert set() == public - words


def first_cells(page: Any) -> set[str]:
    """Give what the tables of a page have in their first column, as code."""
    cells = re.findall(r"^\| (`[^|]*`) \|", page.prose, re.MULTILINE)
    return {span for cell in cells for span in re.findall(r"`([^`]+)`", cell)}


def test_each_number_is_explained(pages: dict[str, Any]) -> None:
    explained = first_cells(pages[STATISTICS])

    assert set() == set(edgepool.PoolStatistics._fields) - explained


def test_each_number_of_psycopg_pool_is_explained(pages: dict[str, Any]) -> None:
    from edgepool.psycopg._face import _counters

    pool = edgepool.ConnectionPool(open=False)
    keys = {*pool.get_stats(), *_counters(pool.statistics())}

    assert set() == keys - first_cells(pages[STATISTICS])


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_error_has_an_anchor(name: str, pages: dict[str, Any]) -> None:
    assert name.lower() in pages[ERRORS].anchors


def test_each_attribute_of_a_timeout_is_explained(pages: dict[str, Any]) -> None:
    source = inspect.getsource(edgepool.PoolTimeout.__init__)
    names = re.findall(r"self\.(\w+) = ", source)

    assert names
    assert set() == set(names) - set(pages[ERRORS].code_spans)


# what psycopg_pool does not have


@pytest.mark.parametrize("cls", PSYCOPG_POOLS, ids=lambda cls: cls.__name__)
def test_who_moves_is_told_of_each_new_argument_and_method(
    cls: Any, pages: dict[str, Any]
) -> None:
    theirs = getattr(psycopg_pool, cls.__name__)
    new = set(arguments(cls)) - set(arguments(theirs))
    new |= methods(cls) - methods(theirs)

    assert set() == new - set(pages[MOVING].code_spans)


def methods(cls: type) -> set[str]:
    return {
        name
        for name in dir(cls)
        if not name.startswith("_") and callable(getattr(cls, name))
    }


# DSNs


def test_each_parameter_of_a_dsn_is_explained(pages: dict[str, Any]) -> None:
    known = {*PARAMETERS, *TRANSLATED, *WITHOUT_EFFECT}

    assert set() == known - first_cells(pages[DSN])


def test_each_entry_of_djangos_is_explained(pages: dict[str, Any]) -> None:
    assert set() == {*NAMES, "ENGINE", "TIME_ZONE"} - first_cells(pages[DSN])


# logging


def log_calls(root: Path) -> set[tuple[str, str]]:
    """Give each line that the library logs: the logger's name, the format."""
    calls: set[tuple[str, str]] = set()
    for file in sorted((root / "src" / "edgepool").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        loggers = {
            target.id: node.value.args[0].value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "logging.getLogger"
            and isinstance(node.value.args[0], ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in loggers
                and node.func.attr in LOG_METHODS
            ):
                text = next(
                    a.value
                    for a in node.args
                    if isinstance(a, ast.Constant) and isinstance(a.value, str)
                )
                calls.add((loggers[node.func.value.id], text))
    return calls


def test_each_line_of_the_log_is_explained(pages: dict[str, Any], root: Path) -> None:
    sections = pages[LOGGING].sections
    missing = [
        (logger, text)
        for logger, text in sorted(log_calls(root))
        if f"`{text}`" not in sections.get(logger, "")
    ]

    assert [] == missing


def test_no_line_of_the_log_is_made_up(pages: dict[str, Any], root: Path) -> None:
    real = {text for _, text in log_calls(root)}
    rows = re.findall(r"^\| `([^`]+)` \| [A-Z]", pages[LOGGING].prose, re.MULTILINE)

    assert rows
    assert set() == set(rows) - real


# what an error means


def test_the_table_of_errors_is_the_one_in_the_code(pages: dict[str, Any]) -> None:
    from edgepool.psycopg._error_classes import CLASSES

    section = pages[ERRORS].sections["What an error means"]
    rows = re.findall(
        r"^\| (`\w{5}`[^|]*) \|[^|]*\| `(\w+)` \|$", section, re.MULTILINE
    )
    shown = {s: kind for cell, kind in rows for s in re.findall(r"`(\w+)`", cell)}

    assert {s: kind.name for s, kind in CLASSES.items()} == shown


def test_each_class_of_errors_is_explained(pages: dict[str, Any]) -> None:
    section = pages[ERRORS].sections["What an error means"]
    rows = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)

    assert [kind.name for kind in edgepool.ErrorClass] == rows
