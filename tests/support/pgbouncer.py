"""A real PgBouncer before a test's server, in session or transaction mode.

Debian's, or another one that EDGEPOOL_PGBOUNCER names; `make pgbouncer` installs it on
Debian. Like PostgreSQL it does not run as root.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from edgepool.testing._address import HOST, release_port, reserve_port
from edgepool.testing._binaries import find_account, make_directory
from edgepool.testing._processes import spawn, wait_until_suspended
from support.parity import poll_until

WHERE = "EDGEPOOL_PGBOUNCER"

# The database that is none, but where one speaks to the pooler itself.
CONSOLE = "pgbouncer"

# Ends it, and removes its directory, if the tests are killed: then the pipe is closed.
WATCHDOG = """
read -r word && exit 0
grep -qa "$2" "/proc/$1/cmdline" && kill -KILL "$1"
rm -rf "$2"
"""


def program():
    """Give the path of PgBouncer."""
    said = os.environ.get(WHERE)
    found = said or shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin:/sbin")
    if not found:
        raise FileNotFoundError(
            "tests behind a pooler need PgBouncer: `make pgbouncer` installs Debian's;"
            f" or say where one is with {WHERE}"
        )
    return found


def version():
    """Give its version, as a tuple of numbers."""
    said = subprocess.check_output([program(), "--version"], text=True)
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


class PgBouncer:
    """A pooler before a server, on a port of its own. Trusts everybody.

    Args:
        server: a `PostgresServer`.
        mode: session, transaction or statement.
        prepares: whether it keeps track of prepared statements; false in all versions
            before 1.21.
        settings: others of pgbouncer.ini.
    """

    def __init__(self, server, mode, *, prepares=False, **settings):
        self.server = server
        self.mode = mode
        self._account = find_account()
        self.directory = make_directory(self._account)
        self.port = reserve_port()
        self._process = self._watchdog = None
        self._settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": server.user,
            "pool_mode": mode,
            "max_client_conn": 500,
            "default_pool_size": 20,
            "server_login_retry": 0.1,
            "ignore_startup_parameters": "extra_float_digits",
            **({"max_prepared_statements": 200 * prepares} if can_prepare() else {}),
            **settings,
        }
        assert can_prepare() or not prepares
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def start(self):
        """Start it, and wait until it accepts connections. On the same port again."""
        ini = self.directory / "pgbouncer.ini"
        settings = "".join(f"{k} = {v}\n" for k, v in self._settings.items())
        target = f"host={HOST} port={self.server.port} user={self.server.user}"
        # `auth_type = any` takes nobody's word for who he is.
        ini.write_text(f"[databases]\n* = {target}\n[pgbouncer]\n{settings}")
        ini.chmod(0o644)
        self._process = spawn([program(), str(ini)], self._log, self._account)
        command = ["/bin/sh", "-c", WATCHDOG, "watchdog", str(self.pid)]
        self._watchdog = subprocess.Popen(
            [*command, str(self.directory)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        poll_until(
            lambda: self._process.poll() is not None or self._answers(),
            otherwise=lambda: f"PgBouncer is not ready:\n{self._log.read_text()}",
        )
        assert self._process.poll() is None, (
            f"PgBouncer did not start:\n{self._log.read_text()}"
        )

    @property
    def pid(self):
        return self._process.pid

    @property
    def _log(self):
        return Path(self.directory / "log")

    def _answers(self):
        try:
            socket.create_connection((HOST, self.port)).close()
        except OSError:
            return False
        return True

    def conninfo_for(self, **parameters):
        """Connect through it; takes what `PostgresServer.conninfo_for` does."""
        return self.server.conninfo_for(host=HOST, port=self.port, **parameters)

    def admin(self, command):
        """Say something on its console, and give the rows of the answer."""
        where = self.conninfo_for(dbname=CONSOLE)
        with psycopg.connect(where, autocommit=True) as console:
            cursor = psycopg.ClientCursor(console, row_factory=dict_row)
            cursor.execute(command)
            return cursor.fetchall() if cursor.description else []

    @property
    def servers(self):
        """How many sessions it has at the server, as far as it knows."""
        return len(self.admin("show servers"))

    @property
    def clients(self):
        """How many connections it has from whoever wants a database."""
        databases = [client["database"] for client in self.admin("show clients")]
        return len(databases) - databases.count(CONSOLE)

    def stop(self):
        """End it, and all connections of its clients, at once."""
        self._process.send_signal(signal.SIGKILL)
        self._ended()

    def _ended(self):
        self._process.wait()
        self._watchdog.communicate(b"done\n")

    def freeze(self):
        """Suspend it: it keeps its connections and says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        wait_until_suspended(self.pid)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def close(self):
        """End it for good."""
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        release_port(self.port)


def can_prepare():
    """Tell whether this version can keep track of prepared statements."""
    return version() >= (1, 21)
