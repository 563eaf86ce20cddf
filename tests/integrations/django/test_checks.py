"""Django's system checks explain what cannot be, and what is probably not meant."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks
from django.db import connections


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
