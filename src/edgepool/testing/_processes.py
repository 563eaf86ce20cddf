"""Processes: how ours are started, watched over and counted.

Owns the operating system's side of a test server: the account, the environment and
the session its programs run in, who cleans up if we are killed, and which processes
are whose children. Knows nothing of PostgreSQL but the file with its process id.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# How often the state of a process is looked at while waiting for it, in seconds.
GLANCE: Final = 0.005

# Cleans up when we could not: its `read` ends when the pipe from us closes. The number
# in postmaster.pid may be somebody else's by then, so it counts only if that process
# works in our directory. Without /proc the server notices within a minute that its
# directory is gone, and ends by itself.
WATCHDOG: Final = """
read -r word && exit 0
pid=$(head -n 1 "$1/data/postmaster.pid")
ours() { [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$1/data" ]; }
ours "$1" && kill -QUIT "$pid" && kill -CONT "$pid"
for tick in 1 2 3 4 5 6 7 8 9 10; do ours "$1" || break; sleep 1; done
rm -rf "$1"
"""


@dataclass(frozen=True)
class Account:
    """A user of the system to run PostgreSQL as."""

    name: str
    uid: int
    gid: int


def plain_environment() -> dict[str, str]:
    """Return our environment without what the user's own PostgreSQL is set up by."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    # English messages, and no locale that might be missing.
    return {**kept, "LC_ALL": "C"}


def spawn(
    command: list[str], log: Path, account: Account | None
) -> subprocess.Popen[bytes]:
    """Start a program of PostgreSQL as the account, its words going to the log.

    In a session of its own, so that Ctrl-C at the terminal stops the tests and leaves
    stopping the server to them.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",  # ours may be closed to the account
            env=plain_environment(),
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )


class Watchdog:
    """Stops the server and removes its directory if this process dies without doing so.

    A small shell at the other end of a pipe, because that works for SIGKILL too, and
    whichever thread started the server (Linux's PR_SET_PDEATHSIG means the thread).
    """

    def __init__(self, directory: Path) -> None:
        """Watch over a server in this directory."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, "edgepool-watchdog", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the watch: everything is cleaned up."""
        # A word, not just the end of the pipe: a child of ours may hold the pipe open.
        self._shell.communicate(b"done\n")


def wait_until_suspended(pid: int) -> None:
    """Wait until a SIGSTOP has arrived, or the process is gone."""
    while _processes().get(pid, (0, "T"))[1] not in "TZ":
        time.sleep(GLANCE)


def living_children(pid: int) -> list[int]:
    """List the children of a process, without those that are only to be reaped."""
    return [
        child
        for child, (parent, state) in _processes().items()
        if parent == pid and state != "Z"
    ]


def _processes() -> dict[int, tuple[int, str]]:
    """Map every process id to its parent's and the first letter of its state."""
    found: dict[int, tuple[int, str]] = {}
    if not os.path.exists("/proc/self/stat"):
        columns = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "state="]
        for line in subprocess.check_output(columns, text=True).splitlines():
            number, parent, state = line.split()
            found[int(number)] = int(parent), state[0]
        return found

    for number in filter(str.isdecimal, os.listdir("/proc")):
        # It may end while we read.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = Path("/proc", number, "stat").read_text(errors="replace")
            # The name comes first, in parentheses, and may itself contain some.
            state, parent = text.rpartition(")")[2].split()[:2]
            found[int(number)] = int(parent), state
    return found
