"""A cluster, which is PostgreSQL's word for a data directory: made, written, removed.

Owns everything of one test server that is a file: the directory, its configuration,
its log, the lock file in which PostgreSQL says how it is. Whether it runs is not its
affair.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

from edgepool.testing._binaries import make_directory
from edgepool.testing._processes import Watchdog, spawn
from edgepool.testing._template import PostgresServerError, Template, tail

# Nothing here outlives the machine, so nothing waits for a disk. synchronous_commit
# stays on: without fsync it costs one write(), and off, a kill() loses what was
# committed in the second before.
DEFAULTS: Final[Mapping[str, str]] = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "1GB",  # the default, but for small segments
    # In the data directory: a killed server leaves nothing in /dev/shm, and a container
    # with a small /dev/shm will do.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %a ",
}


class Cluster:
    """A data directory with its log and socket, in a temporary directory of its own."""

    def __init__(self, template: Template) -> None:
        """Make the directory, and see to it that it does not outlive this process."""
        self._template = template
        self.directory = make_directory(template.account)
        self._data = self.directory / "data"
        self._log = self.directory / "log"
        self._log.touch()
        self._log_start = 0
        self._watchdog = Watchdog(self.directory)

    def fill(self, hba: str | None) -> None:
        """Make the data directory.

        Args:
            hba: The text of `pg_hba.conf`, by default: trust everybody.
        """
        # By a program, because it must be the account's: it makes the owner right.
        copy = ["cp", "-R", str(self._template.data), str(self._data)]
        if spawn(copy, self._log, self._template.account).wait() != 0:
            raise PostgresServerError(f"{' '.join(copy)} failed\n{self.log_tail()}")

        if hba is not None:
            (self._data / "pg_hba.conf").write_text(hba + "\n")
        # Included, not given as arguments: those would overrule ALTER SYSTEM.
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'edgepool.conf'\n")

    def launch(
        self, settings: Mapping[str, str | int | float]
    ) -> subprocess.Popen[bytes]:
        """Write the configuration and start `postgres`; it is not ready yet."""
        conf = self._data / "edgepool.conf"
        every = {**DEFAULTS, **settings}
        conf.write_text("".join(f"{k} = {_quoted(str(v))}\n" for k, v in every.items()))
        conf.chmod(0o644)  # whatever our umask was, the account reads it

        self._log_start = self._log.stat().st_size
        command = [str(self._template.programs / "postgres"), "-D", str(self._data)]
        return spawn(command, self._log, self._template.account)

    def is_ready(self, pid: int) -> bool:
        """Say whether the server with this process id accepts connections.

        As `pg_ctl` does it: no connection to be counted, logged or refused.
        """
        # The file may still be that of a predecessor that was killed.
        lines = self._lock_file()
        return (
            len(lines) >= 8
            and lines[0].strip() == str(pid)
            and lines[7].strip() == "ready"
        )

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the log since the last launch."""
        return tail(self._log, self._log_start, lines)

    def remove(self) -> None:
        """Remove the directory. The server must be down."""
        self._remove_shared_memory()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._watchdog.dismiss()

    def _remove_shared_memory(self) -> None:
        # A server that was killed leaves its lock file, and a little System V segment
        # (named at the end of the seventh line) that only its successor would remove.
        lines = self._lock_file()
        if len(lines) >= 7 and lines[6].split():
            segment = int(lines[6].split()[-1])
            ctypes.CDLL(None).shmctl(segment, 0, None)  # 0 is IPC_RMID

    def _lock_file(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return (self._data / "postmaster.pid").read_text().splitlines()
        return []


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
