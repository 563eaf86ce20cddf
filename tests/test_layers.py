"""Imports point inward: each layer knows those below it, and no others.

The drawing is in `docs/explanation/design.md`. Only the source is read, nothing is run,
so an import inside a function or for a type checker counts too.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgepool

ROOT = Path(edgepool.__file__).parent

# Each layer of the package, and which of the others it may import; from the inside out.
LAYERS = {
    "_core": set(),
    "_adapter": set(),
    "_places": {"_core"},
    "_errors": {"_core", "_places"},
    "_flows": {"_adapter", "_core"},
    "_drivers": {"_adapter", "_core", "_errors", "_flows", "_places"},
    "_face": {"_core", "_errors"},
    "_sync": {"_adapter", "_core", "_drivers", "_face", "_flows"},
    "_async": {"_adapter", "_core", "_drivers", "_face", "_flows"},
    "psycopg": {
        *("_adapter", "_async", "_core", "_drivers", "_errors", "_face", "_flows"),
        *("_places", "_sync"),
    },
    "__init__": {"_adapter", "_async", "_core", "_errors", "_sync", "psycopg"},
    # Beside the pool, not in it.
    "testing": {"__init__", "_places", "psycopg"},
    # What a framework uses; each is imported by who uses that.
    "starlette": {"__init__"},
    "fastapi": {"__init__", "_core", "psycopg", "starlette"},
    "flask": {"__init__", "psycopg"},
    "django": {"__init__", "psycopg"},
    "sqlalchemy": {"__init__", "psycopg"},
}

EFFECTS = {
    "_thread",
    "asyncio",
    "logging",
    "os",
    "random",
    "select",
    "selectors",
    "socket",
    "threading",
    "time",
}

# What a layer may not import, though it is not ours.
FORBIDDEN = {
    "_core": EFFECTS,
    "_adapter": EFFECTS,
    "_errors": EFFECTS,
    # It logs what it does; that is all the effect it has by itself.
    "_flows": EFFECTS - {"logging"},
}

# These know what the resource is.
KNOW_PSYCOPG = {"_errors", "psycopg", "testing", "flask"}


def modules():
    return sorted(ROOT.rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def layer_of(path):
    return name_of(path).split("/")[0]


def imports_of(path):
    """Give the dotted names of all modules that a module imports, absolutely."""
    package = ["edgepool", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            # `from . import _flows` may name a module or what is in one.
            yield from (".".join([*base, alias.name]) for alias in node.names)


def own_layers(path):
    """Give the layers of edgepool that a module imports from.

    What is no layer is a public name, as in `from .. import ConnectionPool`.
    """
    names = [name.split(".") for name in imports_of(path)]
    own = {name[1] for name in names if name[0] == "edgepool"}
    return {name if name in LAYERS else "__init__" for name in own}


def packages(path):
    """Give the top-level packages that a module imports from."""
    return {name.split(".")[0] for name in imports_of(path)}


each_module = pytest.mark.parametrize("path", modules(), ids=name_of)


def test_imports_are_found_however_they_are_written(tmp_path, monkeypatch):
    module = tmp_path / "edgepool" / "_drivers" / "some.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        "import a.b, c\n"
        "from d import e\n"
        "from .f import g\n"
        "from .. import h\n"
        "from ..i import j\n"
        "def k():\n"
        "    if l:\n"
        "        import m\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path / "edgepool")

    assert {
        "a.b",
        "c",
        "d.e",
        "edgepool._drivers.f.g",
        "edgepool.h",
        "edgepool.i.j",
        "m",
    } == set(imports_of(module))


@each_module
def test_every_module_has_its_place(path):
    assert layer_of(path) in LAYERS


@each_module
def test_imports_point_inward(path):
    layer = layer_of(path)

    assert own_layers(path) <= LAYERS[layer] | {layer}


def test_no_layer_is_allowed_what_it_does_not_use():
    used = {layer: set() for layer in LAYERS}
    for path in modules():
        used[layer_of(path)] |= own_layers(path) - {layer_of(path)}

    assert used == LAYERS


@each_module
def test_only_effects_have_effects(path):
    assert not packages(path) & FORBIDDEN.get(layer_of(path), set())


@each_module
def test_only_the_adapter_knows_psycopg(path):
    if layer_of(path) not in KNOW_PSYCOPG:
        assert not packages(path) & {"psycopg", "psycopg_pool", "psycopg_c"}


@each_module
def test_the_threads_know_nothing_of_asyncio(path):
    if name_of(path) in (
        "_sync",
        "_drivers/events",
        "_drivers/threads",
        "_drivers/workers",
    ):
        assert "asyncio" not in packages(path)


def test_layers_are_listed_from_the_inside_out():
    seen = set()
    for layer, inner in LAYERS.items():
        assert inner <= seen

        seen.add(layer)
