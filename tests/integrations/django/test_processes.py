"""Real processes of Django's: its test runner, its server that reloads, and uvicorn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from edgepool.testing._address import HOST, release_port, reserve_port
from support.parity import PATIENCE

SITE = Path(__file__).parent / "site"
TABLE = "create table if not exists notes_note (id bigserial primary key, text text)"
NOWHERE = 1  # a port at which nobody listens


class Site:
    """The site in a directory of its own, with a database of its own."""

    def __init__(self, directory, conninfo, **options):
        self.directory = directory / "site"
        shutil.copytree(SITE, self.directory)
        parameters = conninfo_to_dict(conninfo)
        self.database = {
            "ENGINE": "edgepool.django",
            "NAME": parameters["dbname"],
            "USER": parameters["user"],
            "HOST": parameters["host"],
            "PORT": parameters["port"],
            "OPTIONS": {
                "application_name": parameters["application_name"],
                "pool": {"max_size": 3, "timeout": 10},
                **options,
            },
        }

    @property
    def environment(self):
        return {**os.environ, "SITE_DATABASE": json.dumps(self.database)}

    def run(self, *command):
        """Run `python manage.py ...` as users do; give what it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", "manage.py", *command],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )

        assert done.returncode == 0, done.stderr

        return done.stdout + done.stderr

    @contextmanager
    def served(self, *command):
        """Run a server, given by its command with a `{port}`; give what asks it."""
        port = reserve_port()
        command = [word.format(port=port) for word in command]
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def ask(path):
            with urllib.request.urlopen(f"http://{HOST}:{port}/{path}") as answer:
                return json.load(answer)

        ask.port = port
        try:
            eventually_served(ask)
            yield ask
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # a reloader has a child
            process.wait(PATIENCE)
            release_port(port)


def eventually_served(ask):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask("status")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def eventually(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def site(tmp_path, conninfo, admin):
    """A site whose table is there, as `migrate` would make it, in less time."""
    admin.execute(TABLE)
    return Site(tmp_path, conninfo)


def test_djangos_test_runner_works_in_parallel_and_past_a_pooler(
    tmp_path, conninfo, server, admin
):
    site = Site(tmp_path, conninfo, direct=server.conninfo)
    site.database["PORT"] = NOWHERE
    site.database["TEST"] = {"NAME": "test_notes"}

    assert "Ran 5 tests" in site.run("test", "--parallel=2", "--verbosity=1")

    left = "select datname from pg_database where datname like 'test_notes%'"

    assert [] == admin.execute(left).fetchall()


def test_runserver_reloads_and_leaves_no_session_behind(site, sessions):
    with site.served("manage.py", "runserver", f"{HOST}:{{port}}") as ask:
        ask("add")
        before = ask("status")["process"]
        with Path(site.directory, "notes", "views.py").open("a") as source:
            source.write("\n# changed\n")
        eventually(lambda: eventually_served(ask)["process"] != before)
        with ThreadPoolExecutor(8) as executor:
            list(executor.map(ask, ["add"] * 20 + ["threads"] * 2))
        said = ask("status")

        assert (0, 0, 0) == (said["in_use"], said["leaked"], said["errors"])
        assert said["size"] == sessions.count <= 3

    eventually(lambda: sessions.count == 0)


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
        eventually(lambda: ask("status")["in_use"] == 0)
        said = ask("status")

        assert (0, 0) == (said["leaked"], said["errors"])
        assert said["size"] == sessions.count <= 3
