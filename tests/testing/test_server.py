"""PostgresServer does to PostgreSQL what its methods say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from edgepool.testing import PostgresServer, PostgresServerError
from edgepool.testing._binaries import find_bin_dir
from support.parity import poll_until

Start = Callable[..., PostgresServer]


def ask(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def test_it_listens_where_it_says(server: PostgresServer) -> None:
    address = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"

    assert address == server.conninfo
    assert 1 == ask(server.conninfo, "SELECT 1")
    assert 1 == ask(server.url, "SELECT 1")
    assert 1 == ask(server.conninfo_for(host=str(server.directory)), "SELECT 1")


def test_conninfo_for_quotes_what_needs_it(server: PostgresServer) -> None:
    name = r"it's \ here"

    conninfo = server.conninfo_for(application_name=name)

    assert name == ask(conninfo, "SHOW application_name")


def test_settings_are_applied(own_server: Start) -> None:
    server = own_server(
        settings={"max_connections": 7, "search_path": "it's, fine", "fsync": "on"}
    )

    assert "7" == ask(server.conninfo, "SHOW max_connections")
    assert "it's, fine" == ask(server.conninfo, "SHOW search_path")
    assert "on" == ask(server.conninfo, "SHOW fsync")


def test_settings_may_change_while_it_is_stopped(own_server: Start) -> None:
    server = own_server()

    server.stop()
    server.settings["max_connections"] = 5
    server.start()

    assert "5" == ask(server.conninfo, "SHOW max_connections")


def test_port_is_not_a_setting() -> None:
    with pytest.raises(ValueError, match="chooses port itself"):
        PostgresServer(settings={"port": 5432})


def test_hba_decides_who_may_connect(own_server: Start) -> None:
    server = own_server(
        hba="host all alice 127.0.0.1/32 scram-sha-256\n"
        "host all postgres 127.0.0.1/32 trust"
    )
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE ROLE alice LOGIN PASSWORD 'right'")

    alice = server.conninfo_for(user="alice", password="right")
    mallory = server.conninfo_for(user="alice", password="wrong")

    assert "alice" == ask(alice, "SELECT current_user")
    with pytest.raises(psycopg.OperationalError, match="password authentication"):
        ask(mallory, "SELECT 1")


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_restart_keeps_port_and_data(own_server: Start, mode: str) -> None:
    server = own_server()
    conninfo, pid = server.conninfo, server.pid
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    server.stop(mode)  # type: ignore[arg-type]

    assert not server.is_running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(conninfo)

    server.start()

    assert conninfo == server.conninfo
    assert pid != server.pid
    assert 42 == ask(conninfo, "SELECT answer FROM kept")


def test_start_and_stop_twice_is_once(own_server: Start) -> None:
    server = own_server()
    pid = server.pid

    server.start()

    assert pid == server.pid

    server.stop()
    server.stop()

    with pytest.raises(RuntimeError, match="not running"):
        _ = server.pid


def test_a_smart_stop_waits_for_clients(own_server: Start) -> None:
    server = own_server()

    with psycopg.connect(server.conninfo) as connection:
        with pytest.raises(TimeoutError, match="smart"):
            server.stop("smart", timeout=0.2)

        connection.execute("SELECT 1")

    server.stop()


def test_an_unknown_mode_is_refused(own_server: Start) -> None:
    with pytest.raises(ValueError, match="smart"):
        own_server().stop("quick")  # type: ignore[arg-type]


def test_a_killed_server_ends_its_sessions_and_starts_again(own_server: Start) -> None:
    server = own_server()
    connection = psycopg.connect(server.conninfo, autocommit=True)
    connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    server.kill()

    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()

    for _ in range(3):
        server.start()
        server.kill()
    server.start()

    assert 42 == ask(server.conninfo, "SELECT answer FROM kept")


def test_a_kill_reaches_a_busy_session(own_server: Start) -> None:
    server = own_server()
    connection = psycopg.connect(server.conninfo)
    backend = connection.info.backend_pid
    connection.pgconn.send_query(b"SELECT pg_sleep(60)")

    server.kill()
    connection.close()

    assert not _is_running(backend)


def test_a_frozen_server_leaves_newcomers_hanging(own_server: Start) -> None:
    server = own_server()
    with psycopg.connect(server.conninfo) as session:
        server.freeze()

        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(server.conninfo, connect_timeout=2)
        session.execute("SELECT 1")

        server.thaw()

    assert 1 == ask(server.conninfo, "SELECT 1")


def test_a_frozen_server_can_be_stopped(own_server: Start) -> None:
    server = own_server()
    server.freeze()

    server.stop()

    assert not server.is_running


def test_terminate_ends_sessions_by_name(server: PostgresServer) -> None:
    name = "it's me"
    conninfo = server.conninfo_for(application_name=name)
    with psycopg.connect(conninfo) as mine, psycopg.connect(server.conninfo) as other:
        assert 1 == server.terminate(name)

        with pytest.raises(psycopg.errors.AdminShutdown):
            mine.execute("SELECT 1")
        other.execute("SELECT 1")

    assert 0 == server.terminate(name)


def test_two_servers_live_side_by_side(own_server: Start) -> None:
    one, two = own_server(), own_server()

    assert one.port != two.port
    assert one.directory != two.directory

    one.stop()

    assert 1 == ask(two.conninfo, "SELECT 1")


def test_a_server_that_cannot_start_says_why() -> None:
    server = PostgresServer(settings={"max_connections": "many"})

    with pytest.raises(PostgresServerError, match="max_connections"):
        server.start()

    with pytest.raises(RuntimeError, match="closed"):
        server.start()


def test_a_failed_restart_says_why_and_can_be_mended(own_server: Start) -> None:
    server = own_server()
    server.stop()
    server.settings["shared_buffers"] = "none"

    with pytest.raises(PostgresServerError, match="shared_buffers"):
        server.start()

    server.settings["shared_buffers"] = "1MB"
    server.start()
    assert 1 == ask(server.conninfo, "SELECT 1")


def test_a_directory_without_postgres_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="initdb"):
        PostgresServer(bin_dir=tmp_path)


def test_there_is_no_address_before_the_first_start() -> None:
    server = PostgresServer()

    with pytest.raises(RuntimeError, match=r"first start\(\)"):
        _ = server.conninfo


def test_close_leaves_nothing_behind() -> None:
    server = PostgresServer()
    server.start()
    directory, pid = server.directory, server.pid

    server.close()

    assert not directory.exists()
    assert not _is_running(pid)


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="needs Linux's list")
def test_not_even_a_killed_server_leaves_shared_memory() -> None:
    with PostgresServer() as server:
        lock_file = server.directory / "data" / "postmaster.pid"
        segment = lock_file.read_text().splitlines()[6].split()[-1]
        server.kill()

    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert segment not in [row.split()[1] for row in rows]


SCRIPT = """
from edgepool.testing import PostgresServer
server = PostgresServer()
server.start()
print(server.pid, server.directory, flush=True)
{ending}
"""


def test_it_ends_with_the_interpreter() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending="")],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    pid, directory = run.stdout.split()
    assert not _is_running(int(pid))
    assert not Path(directory).exists()


def test_it_survives_a_forked_child_that_exits() -> None:
    ending = """
import os, sys
child = os.fork()
if not child:
    sys.exit()
os.waitpid(child, 0)
print(server.is_running and server.directory.exists())
"""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(ending=ending)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert run.stdout.endswith("True\n")


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="takes a minute there")
def test_it_ends_soon_after_a_killed_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(ending="server.freeze(); input()")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert _is_running(int(pid))

        parent.send_signal(signal.SIGKILL)

        poll_until(lambda: not Path(directory).exists())
        assert not _is_running(int(pid))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_root_can_use_binaries_that_only_root_can_reach(tmp_path: Path) -> None:
    prefix = find_bin_dir(None).parent
    package = prefix.parent
    private = tmp_path / "private" / "site-packages"
    shutil.copytree(prefix, private / package.name / prefix.name, symlinks=True)
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, private / libraries.name)
    (tmp_path / "private").chmod(0o700)

    bin_dir = private / package.name / prefix.name / "bin"
    with PostgresServer(bin_dir=bin_dir) as server:
        assert 1 == ask(server.conninfo, "SELECT 1")
        assert 0 == server.terminate("nobody")

    assert 0o700 == (tmp_path / "private").stat().st_mode & 0o777


def _is_running(pid: int) -> bool:
    # A zombie that nobody reaps, as in a container without an init, is not running.
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return (
            not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except (ProcessLookupError, FileNotFoundError):
        return False
