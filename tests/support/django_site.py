"""The site of `tests/integrations/django/site`, run by commands and servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from edgepool.testing._address import HOST, release_port, reserve_port
from support.parity import PATIENCE, poll_until

SITE = Path(__file__).parents[1] / "integrations" / "django" / "site"

# As `migrate` would make it, in less time.
TABLE = "create table if not exists notes_note (id bigserial primary key, text text)"


class Site:
    """The site in a directory of its own, with a database of its own."""

    def __init__(self, directory, conninfo, **options):
        self.directory = directory / "site"
        shutil.copytree(SITE, self.directory)
        parameters = conninfo_to_dict(conninfo)
        self.others = {}
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
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "notes.settings",
            "SITE_DATABASES": json.dumps({"default": self.database, **self.others}),
        }

    def run(self, *command):
        """Run `python ...`, until it ends; give what it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", *command],
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
    def running(self, *command):
        """Run `python ...` during the block."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise

    @contextmanager
    def served(self, *command):
        """Run a server, given by its command with a `{port}`; give what asks it."""
        port = reserve_port()

        def ask(path):
            with urllib.request.urlopen(f"http://{HOST}:{port}/{path}") as answer:
                return json.load(answer)

        ask.port = port
        with self.running(*(word.format(port=port) for word in command)):
            eventually_served(ask)
            yield ask
        release_port(port)


def eventually_served(ask):
    """Give the status of a server that may have to start first."""

    def status():
        with suppress(OSError, ValueError):  # ends in the midst of an answer
            return ask("status")

    return poll_until(status)
