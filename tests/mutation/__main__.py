"""Break the core in many small ways, and see whether its tests notice.

    python -m tests.mutation [--sample N] [--seed S] [--thorough]

Each mutant is one change of one expression in `src/edgepool/_core`: a comparison
turned, a sum made a difference, a condition negated, a constant moved, a call left out.
It lives in a copy of the sources. The plain examples of `tests/core` run against it;
with --thorough also the state machine and the interleavings, which take a minute for
each mutant that lives. Ends with how many were killed, and what survived.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = [
    *("core", "planner", "ledger", "queue"),
    *("outage", "overload", "backoff", "settings"),
]
SLOW = ["test_machine.py", "test_interleavings.py", "test_stress.py"]
PATIENCE = 300  # seconds for one run of the tests

TURNED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Give what a node can be replaced by, with a word for each."""
    copy = deepcopy(node)
    if isinstance(copy, ast.Compare) and type(copy.ops[0]) in TURNED:
        copy.ops[0] = TURNED[type(copy.ops[0])]()
        yield "comparison turned", copy
    elif isinstance(copy, ast.BinOp | ast.AugAssign | ast.BoolOp):
        if type(copy.op) in TURNED:
            copy.op = TURNED[type(copy.op)]()
            yield "operator turned", copy
    elif isinstance(copy, ast.UnaryOp) and isinstance(copy.op, ast.Not):
        yield "not left out", copy.operand
    elif isinstance(copy, ast.If | ast.While):
        copy.test = ast.UnaryOp(ast.Not(), copy.test)
        yield "condition negated", copy
    elif isinstance(copy, ast.Constant):
        if isinstance(copy.value, bool):
            yield "constant negated", ast.Constant(not copy.value)
        elif isinstance(copy.value, int | float):
            yield "constant moved", ast.Constant(copy.value + 1)
    elif isinstance(copy, ast.Expr) and isinstance(copy.value, ast.Call):
        yield "call left out", ast.Pass()


class Replace(ast.NodeTransformer):
    """Put another node in the place of the n-th."""

    def __init__(self, number: int, other: ast.AST) -> None:
        self._left = number
        self._other = other

    def visit(self, node: ast.AST) -> ast.AST:
        """Count the nodes in the order of `walk`."""
        self._left -= 1
        if self._left == -1:
            return self._other
        return self.generic_visit(node)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Give all nodes, parents first, in the order of `Replace`."""
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk(child)


def mutants() -> Iterator[tuple[Path, int, str, str]]:
    """Give each mutant: its file, line, kind and source."""
    for module in MODULES:
        path = Path("src/edgepool/_core") / f"{module}.py"
        tree = ast.parse((ROOT / path).read_text())
        for number, node in enumerate(walk(tree)):
            for kind, other in variants(node):
                changed = Replace(number, other).visit(deepcopy(tree))
                source = ast.unparse(ast.fix_missing_locations(changed))
                yield path, node.lineno, kind, source  # type: ignore[attr-defined]


def survives(place: Path, path: Path, source: str, thorough: bool) -> bool:
    """Run the tests against a mutant."""
    target = place / path
    original = target.read_text()
    target.write_text(source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests/core")]
    if not thorough:
        command += [f"--ignore={ROOT / 'tests/core' / name}" for name in SLOW]
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(place / "src")},
            capture_output=True,
            timeout=PATIENCE,
        )
        return run.returncode == 0
    except subprocess.TimeoutExpired:
        return False  # it hangs: that is noticed too
    finally:
        target.write_text(original)


def main() -> None:
    """Run the mutants, or a sample of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--sample", type=int, help="how many; default: all")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--thorough", action="store_true", help="with the slow tests")
    options = parser.parse_args()
    chosen = list(mutants())
    total = len(chosen)
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    survivors = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        shutil.copytree(ROOT / "src", place / "src")
        for path, line, kind, source in chosen:
            if survives(place, path, source, options.thorough):
                survivors += 1
                print(f"survived: {path}:{line}: {kind}", flush=True)
    killed = len(chosen) - survivors
    print(f"killed {killed} of {len(chosen)} mutants, of {total} there are")


if __name__ == "__main__":
    main()
