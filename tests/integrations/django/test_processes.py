"""Real processes of Django's: its test runner, its server that reloads, and uvicorn."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgepool.testing._address import HOST
from support.django_site import TABLE, Site, eventually_served
from support.parity import poll_until

NOWHERE = 1  # a port at which nobody listens

# Tests that use both of two databases.
BOTH = """
from django.db import connections
from django.test import TransactionTestCase

from .models import Note


class One(TransactionTestCase):
    databases = {"default", "past"}

    def test_both_are_one(self):
        Note.objects.create(text="hello")

        assert 1 == Note.objects.using("past").count()
        names = {connections[alias].settings_dict["NAME"] for alias in self.databases}
        assert 1 == len(names), names


class Two(One):
    pass
"""


def reloaded(ask, source, before):
    """Change a file until the process that serves is another one.

    A change before the reloader has seen the file for the first time is none to it.
    """
    touched = 0.0

    def has_reloaded():
        nonlocal touched
        if time.monotonic() > touched + 5:
            touched = time.monotonic()
            os.utime(source)
        return eventually_served(ask)["process"] != before

    poll_until(has_reloaded)


@pytest.fixture
def site(tmp_path, conninfo, admin):
    """A site whose table is there."""
    admin.execute(TABLE)
    return Site(tmp_path, conninfo)


def left_by(admin):
    """Give the names of the databases that tests have left."""
    left = "select datname from pg_database where datname like 'test_notes%'"
    return sorted(name for (name,) in admin.execute(left).fetchall())


def test_djangos_test_runner_works_in_parallel_and_past_a_pooler(
    tmp_path, conninfo, server, admin
):
    site = Site(tmp_path, conninfo, direct=server.conninfo)
    site.database["PORT"] = NOWHERE
    site.database["TEST"] = {"NAME": "test_notes"}

    assert "Ran 5 tests" in site.run(
        "manage.py", "test", "--parallel=2", "--verbosity=1"
    )
    assert [] == left_by(admin)


def test_the_database_that_is_the_direct_way_is_the_same_in_parallel_tests(
    tmp_path, conninfo, admin
):
    site = Site(tmp_path, conninfo, direct="past")
    past = {**site.database, "ENGINE": "django.db.backends.postgresql"}
    site.others["past"] = {**past, "OPTIONS": {"pool": True}}
    site.database["PORT"] = NOWHERE
    site.database["TEST"] = {"NAME": "test_notes"}
    Path(site.directory, "notes", "tests.py").write_text(BOTH)

    assert "Ran 2 tests" in site.run("manage.py", "test", "--parallel=2")
    assert [] == left_by(admin)


def test_runserver_reloads_and_leaves_no_session_behind(site, sessions):
    with site.served("manage.py", "runserver", f"{HOST}:{{port}}") as ask:
        ask("add")
        before = ask("status")["process"]
        reloaded(ask, Path(site.directory, "notes", "views.py"), before)
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(ask, ["add"] * 20 + ["threads"] * 2))
        said = ask("status")

        assert (0, 0, 0) == (said["in_use"], said["leaked"], said["errors"])
        assert said["size"] == sessions.count <= 3

    poll_until(lambda: sessions.count == 0)


def test_coroutines_under_uvicorn_leave_no_connection_behind(site, sessions):
    with site.served(
        *("-m", "uvicorn", "notes.asgi:application", "--lifespan=off"),
        *("--host", HOST, "--port={port}"),
    ) as ask:
        for _ in range(10):  # clients that go away
            with socket.create_connection((HOST, ask.port)) as client:
                client.sendall(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(ask, ["add", "count", "slow", "threads"] * 10))
        poll_until(lambda: ask("status")["in_use"] == 0)
        said = ask("status")

        assert (0, 0) == (said["leaked"], said["errors"])
        assert said["size"] == sessions.count <= 3
