"""Who does not use a framework does not import it, and who wants to is told how."""

from __future__ import annotations

import pytest

from support.programs import run_code

FRAMEWORKS = ("django", "fastapi", "flask", "sqlalchemy", "starlette")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_the_framework_its_module_says_what_to_install(framework):
    said = run_code(
        "import sys\n"
        f"sys.modules[{framework!r}] = None\n"
        f"try: import edgepool.{framework}\n"
        "except ImportError as error: print(error)"
    )

    assert said.lower().startswith(f"edgepool.{framework} needs {framework}: pip ")
    assert f"edgepool[{framework}]" in said


def test_edgepool_itself_imports_none():
    imported = run_code("import edgepool, sys; print(*sys.modules)").split()

    assert "edgepool" in imported
    assert set() == {*FRAMEWORKS, "click", "pytest"} & {*imported}
