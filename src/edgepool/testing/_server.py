"""A real PostgreSQL on the loopback interface, to test against and to maltreat.

Owns one server: its directory, its port, its processes. Runs `initdb` and `postgres`
itself rather than through `pg_ctl` or the wheel's own helper, because tests want to
stop, kill, freeze and restart a server at an exact moment and on the same port.
Depends on no driver: what is under test must not be what tells us that it works.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from edgepool.testing._address import HOST, conninfo, release_port, reserve_port
from edgepool.testing._binaries import find_bin_dir
from edgepool.testing._cluster import Cluster
from edgepool.testing._processes import (
    GLANCE,
    living_children,
    plain_environment,
    wait_until_suspended,
)
from edgepool.testing._template import SUPERUSER, PostgresServerError, template_for

# Chosen by us: a test that changed them would lose its own server.
RESERVED: Final = ("listen_addresses", "port", "unix_socket_directories")

STOP_SIGNALS: Final[Mapping[str, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class PostgresServer:
    """A PostgreSQL server of one's own, for tests, demos and benchmarks.

    Listens on 127.0.0.1 and on a Unix socket, and trusts everybody who can connect:
    no place for data that matters. Everything lies in one temporary directory, which
    is removed by `close()`, at the end of the `with` block, when the interpreter
    exits, or soon after it was killed.

    Runs as any user; PostgreSQL refuses to run as root, so root's server runs as
    `nobody`. Linux and macOS. Not safe for use by several threads at once.

    Example:
        ```python
        with PostgresServer(settings={"max_connections": "50"}) as server:
            psycopg.connect(server.conninfo)
            server.stop()
            server.start()  # same port, same data
        ```
    """

    host: Final = HOST
    user: Final = SUPERUSER
    dbname: Final = "postgres"

    def __init__(
        self,
        *,
        settings: Mapping[str, str | int | float] | None = None,
        hba: str | None = None,
        bin_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Say what the server will be like; nothing is started yet.

        Args:
            settings: Of `postgresql.conf`. The attribute of the same name may be
                changed while the server is stopped.
            hba: The text of `pg_hba.conf`, by default: trust everybody.
            bin_dir: Where `postgres` and `initdb` are, by default: in the wheel.

        Raises:
            ImportError: The wheel is not installed and there is no `bin_dir`.
            FileNotFoundError: No server in `bin_dir`.
            ValueError: A setting is one of those that the server chooses itself.
            NotImplementedError: On Windows.
        """
        if sys.platform == "win32":
            raise NotImplementedError(
                "edgepool.testing.PostgresServer works on signals and Unix sockets: "
                "it runs on Linux and macOS, not on Windows (it does in WSL)"
            )
        self.settings: dict[str, str | int | float] = dict(settings or {})
        self._refuse_reserved_settings()
        self._hba = hba
        self._bin_dir = find_bin_dir(bin_dir)
        self._owner = os.getpid()
        self._cluster: Cluster | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def __enter__(self) -> PostgresServer:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the server and remove its directory."""
        self.close()

    def __repr__(self) -> str:
        """Tell address and state."""
        if self._process is not None and self._process.returncode is None:
            state = f"running as pid {self._process.pid}"
        else:
            state = "closed" if self._closed else "stopped"
        return f"<PostgresServer {self.host}:{self._port or '?'} {state}>"

    # Where it is

    @property
    def port(self) -> int:
        """The TCP port, chosen at the first start and kept."""
        if self._port is None:
            raise RuntimeError("the server has no port before its first start()")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running postmaster."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster exists; it may be frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def directory(self) -> Path:
        """The directory of this server: `data/`, `log` and the Unix socket."""
        return self._made_cluster().directory

    @property
    def conninfo(self) -> str:
        """What a superuser connects with, as libpq's `keyword=value` pairs."""
        return self.conninfo_for()

    @property
    def url(self) -> str:
        """The same as a URL, for drivers and tools that want one."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.dbname}"

    def conninfo_for(self, **parameters: str | int) -> str:
        """Return `conninfo` with parameters added or replaced.

        Args:
            **parameters: Of libpq: `dbname`, `user`, `password`, `application_name`,
                `host=server.directory` for the Unix socket, ...
        """
        standard: dict[str, str | int] = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "dbname": self.dbname,
        }
        merged = {**standard, **parameters}
        return conninfo({name: str(value) for name, value in merged.items()})

    # Starting and stopping

    def start(self, timeout: float = 30.0) -> None:
        """Start the server and wait until it accepts connections.

        Does nothing if it runs. Each later start is on the same port and data.

        Args:
            timeout: In seconds; a server that is late is stopped.

        Raises:
            PostgresServerError: It did not start; the message has the end of its log.
            RuntimeError: It was closed.
        """
        if self._closed:
            raise RuntimeError(f"{self!r}: its data is gone; make another")
        if self.is_running:
            return
        if self._port is not None:
            self._launch(self._made_cluster(), self._port, timeout)
            return

        # First: what is registered first is cleaned up last.
        template = template_for(self._bin_dir)
        atexit.register(self.close)
        try:
            self._cluster = Cluster(template)
            self._cluster.fill(self._hba)
            self._launch_somewhere(self._cluster, timeout)
        except BaseException:
            self.close()
            raise

    def stop(
        self,
        mode: Literal["smart", "fast", "immediate"] = "fast",
        timeout: float = 30.0,
    ) -> None:
        """Stop the server and wait until it is down. The data stays.

        Does nothing if it is down. A frozen server is thawed.

        Args:
            mode: PostgreSQL's words: `smart` waits for clients to leave, `fast` sends
                them away and rolls back, `immediate` leaves without a checkpoint.
            timeout: In seconds.

        Raises:
            TimeoutError: The server still runs, e.g. because a smart stop has clients
                to wait for.
        """
        if mode not in STOP_SIGNALS:
            raise ValueError(f"mode must be one of {[*STOP_SIGNALS]}, not {mode!r}")
        process = self._process
        if process is None:
            return
        process.send_signal(STOP_SIGNALS[mode])
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{self!r} still runs {timeout:g} s after stop({mode!r})\n"
                f"{self.log_tail()}"
            ) from None

    def kill(self) -> None:
        """End all processes of the server at once, without a farewell to anybody.

        What a crash or the kernel's out-of-memory killer does. Returns when the last
        one is gone, so that `start()` can follow. Does nothing if the server is down.
        """
        if not self.is_running:
            return
        # Stopped, the postmaster neither starts another child nor reaps a dead one:
        # no number in the list can come to mean somebody else.
        self.freeze()
        pid = self.pid
        while children := living_children(pid):
            for child in children:
                os.kill(child, signal.SIGKILL)
            time.sleep(GLANCE)
        process = self._running()
        process.kill()
        process.wait()

    def freeze(self) -> None:
        """Suspend the postmaster: whoever connects now gets no answer until `thaw()`.

        The kernel still accepts the TCP connection. Existing sessions go on.
        """
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        wait_until_suspended(process.pid)

    def thaw(self) -> None:
        """Undo `freeze()`: connections made in between are answered now."""
        self._running().send_signal(signal.SIGCONT)

    def terminate(self, application_name: str) -> int:
        """End all sessions of that name, as an administrator would.

        Returns:
            How many there were. They are gone when this returns.
        """
        # Quoted by psql, as :'name'. It runs as ourselves: a client needs no account.
        query = (
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 5000))"
            " FROM pg_stat_activity WHERE application_name = :'name'"
        )
        psql = subprocess.run(
            [
                str(self._bin_dir / "psql"),
                *("--no-psqlrc", "--no-password", "--quiet", "--tuples-only"),
                f"--variable=name={application_name}",
                f"--dbname={self.conninfo}",
            ],
            input=query,
            env=plain_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if psql.returncode:
            raise PostgresServerError(f"psql: {psql.stderr.strip()}")
        return int(psql.stdout)

    def close(self) -> None:
        """Stop the server for good and remove its directory.

        Does nothing the second time, nor in a child process that was forked off and
        inherited the object: the server belongs to the process that made it.
        """
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        try:
            self.stop("immediate")
        except TimeoutError:
            self.kill()
        if self._cluster is not None:
            self._cluster.remove()
        if self._port is not None:
            release_port(self._port)
        atexit.unregister(self.close)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the server's log since its last start."""
        return "" if self._cluster is None else self._cluster.log_tail(lines)

    def _made_cluster(self) -> Cluster:
        if self._cluster is None:
            raise RuntimeError("the server has no directory before its first start()")
        return self._cluster

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self!r}: not running")
        return self._process

    def _refuse_reserved_settings(self) -> None:
        for name in RESERVED:
            if name in self.settings:
                raise ValueError(f"PostgresServer chooses {name} itself")

    def _launch_somewhere(self, cluster: Cluster, timeout: float) -> None:
        for attempts_left in (4, 3, 2, 1, 0):
            port = reserve_port()
            try:
                self._launch(cluster, port, timeout)
            except BaseException as error:
                release_port(port)
                # Somebody else took it since we looked, but nobody was told of it yet:
                # another one will do.
                if attempts_left and "Address already in use" in str(error):
                    continue
                raise
            self._port = port
            return

    def _launch(self, cluster: Cluster, port: int, timeout: float) -> None:
        self._refuse_reserved_settings()
        process = self._process = cluster.launch(
            {
                **self.settings,
                "listen_addresses": self.host,
                "port": port,
                "unix_socket_directories": str(cluster.directory),
            }
        )
        deadline = time.monotonic() + timeout
        while not cluster.is_ready(process.pid):
            if process.poll() is not None:
                raise PostgresServerError(
                    f"PostgreSQL did not start: exit status {process.returncode}\n"
                    f"{cluster.log_tail()}"
                )
            if time.monotonic() >= deadline:
                self.stop("immediate")
                raise PostgresServerError(
                    f"PostgreSQL was not ready after {timeout:g} s\n"
                    f"{cluster.log_tail()}"
                )
            time.sleep(GLANCE)
