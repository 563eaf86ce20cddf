"""Connects that are refused: a server that refuses, and what the pool makes of it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg
import pytest

from edgepool._core import PERMANENT
from edgepool.psycopg._connect_errors import ConnectErrors
from edgepool.psycopg._sqlstate_probe import ask, deciding, wait, wait_async
from edgepool.testing._wire import GSS_REQUEST, SSL_REQUEST, message

WRONG_PASSWORD = ("28P01", "Passwort-Authentifizierung für Benutzer »app« schlug fehl")
NO_DATABASE = ("3D000", "Datenbank »shop« existiert nicht")
NO_ROLE = ("28000", "Rolle »app« existiert nicht")
TOO_MANY = ("53300", "Verbindungslimit erreicht: tut mir leid, schon zu viele Clients")
STARTING_UP = ("57P03", "das Datenbanksystem startet")

# Elsewhere libpq traces nothing, so there is no second source to ask.
traces_refusals = pytest.mark.skipif(
    sys.platform != "linux", reason="libpq traces refusals on Linux only"
)


class ScriptedServer:
    """Says to each attempt to connect what it was told to say, in any language."""

    def __init__(self) -> None:
        self.attempts = 0
        self.passwords: list[str] = []
        self.asks_for_password = False
        self.was_left = threading.Event()
        self._says: list[bytes | None] = [None]
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def conninfo(self) -> str:
        """What to connect with."""
        return f"host=127.0.0.1 port={self.port} user=app dbname=shop password=Zebra-7"

    def says(self, *refusals: tuple[str, str], severity: str = "FATAL") -> None:
        """Refuse with SQLSTATE and text: the first, the second, ... the last ones."""
        self._says = [
            message(
                b"E",
                f"S{severity}\0VFATAL\0C{sqlstate}\0M{text}\0Fauth.c\0L1\0Rx\0\0".encode(),
            )
            for sqlstate, text in refusals
        ]

    def says_raw(self, fields: str) -> None:
        """Refuse with an ErrorResponse of these fields."""
        self._says = [message(b"E", fields.encode())]

    def says_nothing(self) -> None:
        """Take what comes and leave it unanswered, as at first."""
        self._says = [None]

    def hangs_up(self) -> None:
        """Take what comes and close the connection."""
        self._says = [b""]

    def close(self) -> None:
        """Cut everybody off."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as incoming, suppress(OSError):
            self._answer(client, incoming.read)

    def _answer(self, client: socket.socket, read: Callable[[int], bytes]) -> None:
        while header := read(4):
            body = read(int.from_bytes(header, "big") - 4)
            if int.from_bytes(body[:4], "big") not in (SSL_REQUEST, GSS_REQUEST):
                break
            client.sendall(b"N")
        else:
            return

        self.attempts += 1
        answer = self._says[0]
        if len(self._says) > 1:
            self._says.pop(0)
        if answer is None:
            read(1)
            self.was_left.set()
            return
        if self.asks_for_password:
            client.sendall(message(b"R", b"\0\0\0\3"))
            header = read(5)
            self.passwords.append(read(int.from_bytes(header[1:], "big") - 4).decode())
        client.sendall(answer)


@pytest.fixture
def start_fake() -> Iterator[Callable[[], ScriptedServer]]:
    with ExitStack() as servers:
        yield lambda: servers.enter_context(closing(ScriptedServer()))


@pytest.fixture
def fake(start_fake: Callable[[], ScriptedServer]) -> ScriptedServer:
    return start_fake()


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody listens, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def failure(conninfo: str) -> psycopg.Error:
    """Fail to connect."""
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(conninfo).close()
    return caught.value


def hopeless(errors: ConnectErrors, *attempt: Any) -> bool:
    """Tell whether waiting is useless after a failure."""
    return errors.class_of(*attempt) in PERMANENT


async def hopeless_async(errors: ConnectErrors, *attempt: Any) -> bool:
    return await errors.class_of_async(*attempt) in PERMANENT


def is_permanent(error: BaseException) -> bool | None:
    """Judge by what is known from the start."""
    return ConnectErrors().is_permanent(error)


def sqlstate_of(error: BaseException) -> str | None:
    """Give what is known from the start."""
    return ConnectErrors().sqlstate_of(error)


def probe(conninfo: str, timeout: float) -> str | None:
    """Make one more attempt, and give the SQLSTATE that it has seen."""
    return deciding(wait(ask(conninfo, timeout), {}).values())


async def probe_async(conninfo: str, timeout: float) -> str | None:
    """Make one more attempt; see `probe`."""
    return deciding((await wait_async(ask(conninfo, timeout), {})).values())
