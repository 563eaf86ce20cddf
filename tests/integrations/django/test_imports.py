"""Who does not use Django does not import it."""

from __future__ import annotations

import subprocess
import sys


def run(program):
    """Run a program in a process of its own; give what it prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_edgepool_imports_no_django():
    assert "False" in run("import sys, edgepool; print('django' in sys.modules)")


def test_without_django_its_backend_says_what_to_install():
    said = run(
        "import sys\n"
        "sys.modules['django'] = None\n"
        "try: import edgepool.django\n"
        "except ImportError as error: print(error)"
    )

    assert "edgepool.django needs Django: pip install 'edgepool[django]'\n" == said


def test_it_can_be_imported_before_there_are_settings():
    assert "done" in run("import edgepool.django; print('done')")
