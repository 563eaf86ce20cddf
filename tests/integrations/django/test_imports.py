"""Django's modules of edgepool's can be imported before Django is set up."""

from __future__ import annotations

from support.programs import run_code


def test_it_can_be_imported_before_there_are_settings():
    assert "done" in run_code("import edgepool.django; print('done')")
