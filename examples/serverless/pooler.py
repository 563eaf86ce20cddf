"""A PgBouncer on this machine, in transaction mode, for the time of a block."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from typing_extensions import Self

HOST = "127.0.0.1"
SIZE = 4
"""How many sessions it opens at the database, for all its clients together."""

INI = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = {listen}
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
"""


class Pooler:
    """PgBouncer before a database.

    Args:
        direct: where the database is.

    Raises:
        SystemExit: there is no PgBouncer on this machine.
    """

    def __init__(self, direct: str) -> None:
        named = os.environ.get("EDGEPOOL_PGBOUNCER")
        path = f"{os.defpath}:/usr/sbin"
        self._program = named or shutil.which("pgbouncer", path=path)
        if self._program is None:
            raise SystemExit("This example needs PgBouncer: see `make pgbouncer`.")
        self._direct = conninfo_to_dict(direct)
        self._port = _free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="pooler-"))
        self._directory.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the pooler is: what is given to functions as `DATABASE_URL`."""
        user, database = self._direct["user"], self._direct["dbname"]
        return f"postgresql://{user}@{HOST}:{self._port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        ini = self._directory / "pgbouncer.ini"
        where = {name: self._direct[name] for name in ("host", "port", "user")}
        ini.write_text(INI.format(**where, listen=HOST, own_port=self._port, size=SIZE))
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # which it refuses
        self._process = subprocess.Popen(
            [str(self._program), "--quiet", str(ini)],
            user="nobody" if as_root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while self._process.poll() is None:
            try:
                socket.create_connection((HOST, self._port)).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise SystemExit("PgBouncer does not start.")

    def stop(self) -> None:
        """End it, with all its connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        port: int = found.getsockname()[1]
        return port
