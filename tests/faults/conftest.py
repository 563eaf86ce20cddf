"""What tests of one colour and then the other ask for; see `support.pg_fixtures`.

And servers over TLS as well, and programs beside the test.
"""

import subprocess
import sys

import pytest

from support import tls
from support.interrupt import own_background
from support.pg import application_name
from support.pg_fixtures import *  # noqa: F403, pytest finds them by their names
from support.programs import IN_TIME, environment

__all__ = ["own_background"]


class Way:
    """How the pool gets to its server: the server, and a conninfo for it."""

    def __init__(self, server, conninfo):
        self.server = server
        self.conninfo = conninfo
        self.name = application_name(conninfo)


@pytest.fixture(params=["tcp", "tls"])
def way(request, conninfo):
    """Over plain TCP, and over TLS."""
    if request.param == "tcp":
        return Way(request.getfixturevalue("server"), conninfo)
    server = request.getfixturevalue("tls_server")
    name = application_name(conninfo)
    return Way(server, tls.conninfo(server, application_name=name))


@pytest.fixture
def start(tmp_path):
    """Start programs that run beside the test, and end them after it."""
    running = []

    def start(*command, **variables):
        log = (tmp_path / f"log-{len(running)}").open("w+")
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment(**variables),
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        running.append((process, log))
        return process

    yield start
    for process, log in running:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(IN_TIME)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.seek(0)
        print(log.read())
        log.close()
