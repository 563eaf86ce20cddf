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
        ({"direct": "an-alias-of-nothing"}, ["edgepool.E002"]),
        ({"direct": ""}, ["edgepool.W002"]),
        ({"direct": "service=past"}, []),
        ({"sslmod": "disable"}, ["edgepool.E002"]),
        ({"sslmod": "disable", "pool": False}, ["edgepool.E002"]),
        ({"direct": {"sslmod": "disable", "port": 1}}, ["edgepool.E002"]),
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


@pytest.mark.parametrize("engine", ["edgepool.django", "django.db.backends.postgresql"])
@pytest.mark.parametrize(
    ("given", "theirs", "expected"),
    [
        ({}, {"PORT": 1}, []),
        ({}, {}, ["edgepool.W002"]),
        ({}, {"USER": "owner"}, []),
        (
            {"pool": {"pooler": "transaction"}},
            {"USER": "owner"},
            ["edgepool.W002"],
        ),
    ],
)
def test_a_direct_alias_must_lead_elsewhere(database, engine, given, theirs, expected):
    past = database(ENGINE=engine, **theirs)

    assert expected == ids(database(direct=past, **given))
    assert [] == ids(past)


def explained(alias):
    """Give what is said about a database, and how it could be mended."""
    where = f"DATABASES[{alias!r}]: "
    (found,) = (m for m in run_checks() if m.msg.startswith(where))
    return found.msg.removeprefix(where), found.hint


def test_a_direct_alias_that_cannot_be_is_explained(database):
    chained = database(direct=database(PORT=1))
    itself = database(direct="x")
    connections.settings[itself]["OPTIONS"]["direct"] = itself
    lite = database(ENGINE="django.db.backends.sqlite3")
    misspelt = lite[:-1] + "x"
    said = {
        chained: f"OPTIONS['direct'] is {chained!r}, and that has an OPTIONS['direct']",
        itself: f"OPTIONS['direct'] of {itself!r} is {itself!r} itself",
        lite: f"OPTIONS['direct'] is {lite!r}: ENGINE is not a backend of PostgreSQL",
        misspelt: "OPTIONS['direct'] is neither a connection string nor the alias of"
        " another database; did you mean database-",
    }
    for direct, beginning in said.items():
        alias = itself if direct == itself else database(direct=direct)
        message, hint = explained(alias)

        assert message.startswith(beginning)
        assert "alias of another of DATABASES" in hint


def test_what_libpq_does_not_know_is_explained(database):
    said, hint = explained(database(sslmod="disable"))

    assert "libpq has no parameter 'sslmod'; did you mean sslmode?" == said
    assert "libpq's parameters" in hint


def test_a_check_of_one_database_says_nothing_twice(database):
    alias = database(CONN_MAX_AGE=60)
    said = [m.id for m in run_checks(databases=[alias])]

    assert 1 == said.count("edgepool.E001")


def test_without_the_application_a_check_of_one_database_says_it(database, monkeypatch):
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: False)
    alias = database(CONN_MAX_AGE=60)

    assert ["edgepool.E001"] == [m.id for m in connections[alias].validation.check()]


DOCS = Path(__file__).parents[3] / "docs"


def databases_of_the_how_to():
    """Give each of the page's DATABASES."""
    page = Path(DOCS, "how-to", "django.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(DATABASES = .+?)```", page, re.DOTALL):
        shown = {}
        exec(code, shown)
        yield shown["DATABASES"]


def test_the_settings_of_the_how_to_can_be(database):
    (first, second) = databases_of_the_how_to()
    options = first["default"].pop("OPTIONS")
    alias = database(**first["default"], **options)

    assert [] == ids(alias)
    assert 10 == connections[alias].pool.max_size

    past = database(**second["owner"])
    second["default"].pop("OPTIONS")

    assert [] == ids(database(**second["default"], direct=past))


def test_each_check_is_in_the_reference():
    source = Path(_checks.__file__).read_text(encoding="utf-8")
    page = Path(DOCS, "reference", "django.md").read_text(encoding="utf-8")
    there = set(re.findall(r'"edgepool\.([EW]\d{3})"', source))

    assert there == set(re.findall(r"^\| `([EW]\d{3})` \|", page, re.MULTILINE))
