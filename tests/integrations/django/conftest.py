"""Databases of Django's in the process that runs the tests."""

from __future__ import annotations

import itertools
from contextlib import suppress

import django
import pytest
from django.conf import settings
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

NAMES = {"dbname": "NAME", "user": "USER", "host": "HOST", "port": "PORT"}

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def set_up():
    """Have Django in this process, as an application would."""
    settings.configure(INSTALLED_APPS=["edgepool.django"], USE_TZ=True)
    django.setup()


def settings_for(conninfo, **options):
    """Give the settings of a database; `options` are Django's OPTIONS."""
    parameters = conninfo_to_dict(conninfo)
    address = {ours: parameters.pop(theirs) for theirs, ours in NAMES.items()}
    options = {**parameters, **options}
    return {"ENGINE": "edgepool.django", **address, "OPTIONS": options}


@pytest.fixture
def database(conninfo):
    """Add a database to Django's, for a test: `database(pool={...}, TIME_ZONE=...)`.

    Gives its alias. Names in capitals are entries, the others are in OPTIONS.
    """
    added = []

    def add(conninfo=conninfo, **given):
        alias = f"database-{next(_numbers)}"
        options = {name: v for name, v in given.items() if not name.isupper()}
        entries = {name: v for name, v in given.items() if name.isupper()}
        connections.settings[alias] = {**settings_for(conninfo, **options), **entries}
        connections.configure_settings(connections.settings)
        added.append(alias)
        return alias

    yield add

    for alias in added:
        connection = connections[alias]
        with suppress(AttributeError):
            connection.close_pool()
        connection.close()
        del connections[alias]
        del connections.settings[alias]
