"""What all servers of a process start from: programs that run, and fresh data.

Owns the result of one `initdb`, which costs more than all the rest of starting a
server. Each server copies it; a template itself never runs.
"""

from __future__ import annotations

import atexit
import os
import shutil
from pathlib import Path
from typing import Final

from edgepool.testing._binaries import find_account, make_directory, reachable
from edgepool.testing._processes import Watchdog, spawn

SUPERUSER: Final = "postgres"

# By process as well: a forked child cannot rely on what its parent may remove.
_templates: dict[tuple[int, Path], Template] = {}


class PostgresServerError(RuntimeError):
    """PostgreSQL did not do as told; the message ends with the end of its log."""


class Template:
    """Programs that the account can run, and a data directory that nobody uses."""

    def __init__(self, bin_dir: Path) -> None:
        """Make both, in a directory that does not outlive this process."""
        self.account = find_account()
        self._owner = os.getpid()
        self._directory = make_directory(self.account)
        self._watchdog = Watchdog(self._directory)
        atexit.register(self.remove)
        self.programs = reachable(bin_dir, self.account, self._directory)
        self.data = self._directory / "data"
        log = self._directory / "log"
        initdb = spawn(
            [
                str(self.programs / "initdb"),
                *("--no-sync", "--auth=trust", "--locale=C", "--encoding=UTF8"),
                f"--username={SUPERUSER}",
                f"--pgdata={self.data}",
                "--wal-segsize=1",  # MB; the default 16 are half of all data, empty
            ],
            log,
            self.account,
        )
        if initdb.wait() != 0:
            raise PostgresServerError(f"initdb failed\n{tail(log)}")

    def remove(self) -> None:
        """Remove the directory, in the process that made it."""
        if os.getpid() == self._owner:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._watchdog.dismiss()


def template_for(bin_dir: Path) -> Template:
    """Return the template for the PostgreSQL in this directory.

    Raises:
        PostgresServerError: `initdb` failed.
    """
    key = (os.getpid(), bin_dir)
    if key not in _templates:
        _templates[key] = Template(bin_dir)
    return _templates[key]


def tail(log: Path, start: int = 0, lines: int = 20) -> str:
    """Return the last lines of a log, of those that begin after `start` bytes."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
