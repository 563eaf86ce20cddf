"""Django's system checks explain what cannot be, and what is probably not meant."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.checks import run_checks
from django.db import connections

from edgepool.django import _checks


def ids(alias):
    """Give the ids of what is said about a database."""
    where = f"DATABASES[{alias!r}]"
    return [m.id for m in run_checks() if m.msg.startswith(where) and m.hint]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"pool": {"max_size": 7, "nested": "wait"}, "direct": "port=1"}, []),
        ({"pool": False, "CONN_MAX_AGE": 60}, []),
        ({"CONN_MAX_AGE": 60}, ["edgepool.E001"]),
        ({"pool": {"max_sise": 7}}, ["edgepool.E002"]),
        ({"pool": {"min_size": 5, "max_size": 4}}, ["edgepool.E002"]),
        ({"pool": {"open": True, "min_size": 1}}, ["edgepool.E002"]),
        ({"pool": {"configure": 3}}, ["edgepool.E002"]),
        ({"direct": "mysql://there/db"}, ["edgepool.E002"]),
        (
            {"direct": "port=1", "ENGINE": "django.db.backends.postgresql"},
            ["edgepool.E003"],
        ),
        ({"pool": {"pooler": "transaction"}}, ["edgepool.W001"]),
        ({"pool": {"pooler": "transaction"}, "direct": "port=1"}, []),
        ({"direct": {}}, ["edgepool.W002"]),
        (
            {"pool": {"pooler": "transaction"}, "direct": "port=1", "assume_role": "x"},
            ["edgepool.W003"],
        ),
    ],
)
def test_settings_are_checked_without_a_connection(database, sessions, given, expected):
    assert expected == ids(database(**given))
    assert 0 == sessions.count


def test_a_check_of_one_database_says_nothing_twice(database):
    alias = database(CONN_MAX_AGE=60)
    said = [m.id for m in run_checks(databases=[alias])]

    assert 1 == said.count("edgepool.E001")


def test_without_the_application_a_check_of_one_database_says_it(database, monkeypatch):
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: False)
    alias = database(CONN_MAX_AGE=60)

    assert ["edgepool.E001"] == [m.id for m in connections[alias].validation.check()]


DOCS = Path(__file__).parents[3] / "docs"


def test_the_settings_of_the_how_to_can_be(database):
    page = Path(DOCS, "how-to", "django.md").read_text(encoding="utf-8")
    shown = {}
    exec(re.search(r"```python\n(.+?)```", page, re.DOTALL)[1], shown)
    settings = shown["DATABASES"]["default"]
    options = settings.pop("OPTIONS")
    alias = database(**settings, **options)

    assert [] == ids(alias)
    assert 10 == connections[alias].pool.max_size


def test_each_check_is_in_the_reference():
    source = Path(_checks.__file__).read_text(encoding="utf-8")
    page = Path(DOCS, "reference", "django.md").read_text(encoding="utf-8")
    there = set(re.findall(r'"edgepool\.([EW]\d{3})"', source))

    assert there == set(re.findall(r"^\| `([EW]\d{3})` \|", page, re.MULTILINE))
