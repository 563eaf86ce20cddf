"""A TCP proxy before PostgreSQL that counts, delays and swallows what passes.

Owns what a network can do to a pool and a server cannot: not to answer, to be slow, to
say something out of turn.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ._address import HOST, release_port, reserve_port
from ._wire import GSS_REQUEST, SSL_REQUEST, message

CHUNK: Final = 65536

# How long a client that is to be sent away may take to say who it is, in seconds.
PATIENCE: Final = 5.0


class _Link:
    """One client's connection and ours to the server, until either of them ends."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server: socket.socket | None = None
        self._sending = threading.Lock()
        # Not set: everything is swallowed.
        self.open = proxy.open
        # Ended by a reset, so without a farewell; or forgotten by the network.
        self.reset = self.lost = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.server = socket.create_connection(self.proxy.target)
        except OSError:
            self.client.close()
            return
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._from_server, daemon=True)
        back.start()
        self._from_client()
        back.join()
        self.client.close()
        self.server.close()

    def _from_client(self) -> None:
        server = self.server
        assert server is not None
        with suppress(OSError):
            while data := self.client.recv(CHUNK):
                meant = self.proxy.heard(self, data)
                self._pass_on(data)
                server.sendall(meant)
        # Also a hang-up is swallowed by a network that swallows.
        self._pass_on(b"")
        _shut(server)

    def _from_server(self) -> None:
        server = self.server
        assert server is not None
        with suppress(OSError):
            while data := server.recv(CHUNK):
                self._pass_on(data)
                self.say(data)
        self._pass_on(b"")
        if not self.reset:
            _shut(self.client)

    def _pass_on(self, data: bytes) -> None:
        if seconds := self.proxy.delay + len(data) / self.proxy.rate:
            time.sleep(seconds)
        self.open.wait()
        if self.lost:
            self.proxy.closing.wait()

    def say(self, data: bytes) -> None:
        with self._sending:
            self.client.sendall(data)

    def end(self) -> None:
        _shut(self.client)
        if self.server is not None:
            _shut(self.server)

    def end_by_reset(self) -> None:
        self.reset = True
        _reset_at_close(self.client)
        with suppress(OSError):
            # Only wakes who reads it: what is sent to the client is the reset.
            self.client.shutdown(socket.SHUT_RD)
        if self.server is not None:
            _shut(self.server)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _wait_for_resets(links: list[_Link]) -> None:
    for link in links:
        if link.reset and link.open.is_set() and not link.lost:
            link.thread.join(PATIENCE)


def _reset_at_close(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Proxy:
    """Passes everything on to one server, but for what a test asks of it.

    Attributes:
        moments: when a client has connected, on the monotonic clock.
        delay: how many seconds everything takes longer, in either direction.
        rate: how many bytes pass in a second, in either direction.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        known = conninfo_to_dict(conninfo)
        host = str(known.get("host") or "")
        if not host or host.startswith("/") or "," in host:
            raise ValueError(f"conninfo must name one host for TCP, not {host!r}")
        self.target = (host, int(known.get("port") or 5432))
        self.moments: list[float] = []
        self.delay = 0.0
        self.rate = float("inf")
        self.open = threading.Event()
        self.open.set()
        self.closing = threading.Event()
        self._resetting = False
        # What whoever connects is told, instead of being let through.
        self.rejection: tuple[bytes, bytes] | None = None
        self._links: list[_Link] = []
        self._linking = threading.Lock()
        # Ours, also while nobody listens on it.
        self.port: int = reserve_port()
        self.listen()

    def conninfo(self, **changes: str | int) -> str:
        """Give what connects to the server through the proxy."""
        changes = {"sslmode": "disable", **changes}
        return make_conninfo(self._conninfo, host=HOST, port=self.port, **changes)

    @property
    def connects(self) -> int:
        """How many clients have connected so far."""
        return len(self.moments)

    @property
    def links(self) -> int:
        """How many clients are connected."""
        return sum(link.thread.is_alive() for link in list(self._links))

    # What a network does

    def black_hole(self) -> None:
        """Deliver nothing any more, in neither direction; connections stay open."""
        self.open.clear()

    def lose(self) -> None:
        """Swallow for good what belongs to present connections; pass on that of new."""
        self.open.clear()
        self.open = threading.Event()
        self.open.set()

    def refuse(self) -> None:
        """Refuse whoever connects, as a system without a server, until `listen`."""
        _shut(self._listener)
        self._thread.join()
        self._listener.close()

    def listen(self) -> None:
        """Accept connections."""
        self._listener = socket.create_server((HOST, self.port), backlog=128)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def restore(self) -> None:
        """Deliver again, also what was held up."""
        self._resetting = False
        self.open.set()
        links = list(self._links)
        for link in links:
            link.open.set()
        _wait_for_resets(links)

    def forget(self) -> None:
        """Deliver again, but nothing ever of the connections that there are.

        What was swallowed is lost; the server sees the end of them, the client nothing.
        """
        for link in list(self._links):
            link.lost = True
            if link.server is not None:
                _shut(link.server)
        self.restore()

    def reset(self) -> None:
        """Reset every connection that there is, and each new one until `restore`."""
        self._resetting = True
        self.reset_present()

    def reset_present(self) -> None:
        """Reset every connection that there is, and wait until that has happened.

        Where nothing is delivered, it happens afterwards.
        """
        with self._linking:  # those that are there have begun
            present = list(self._links)
        for link in present:
            link.end_by_reset()
        _wait_for_resets(present)

    def cut(self) -> None:
        """End every connection that there is."""
        for link in list(self._links):
            link.end()

    def say(self, kind: bytes, body: bytes) -> None:
        """Say something to all clients, in the server's name."""
        for link in list(self._links):
            with suppress(OSError):
                link.say(message(kind, body))

    def close(self) -> None:
        """End everything and wait until it has ended."""
        self.closing.set()
        self.restore()
        self.delay, self.rate = 0.0, float("inf")
        self.refuse()
        release_port(self.port)
        self.cut()
        for link in self._links:
            link.thread.join()

    # For the links

    def heard(self, link: _Link, data: bytes) -> bytes:
        """Return what is passed on of what a client sends: all. For who listens in."""
        return data

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.moments.append(time.monotonic())
            if self._resetting:
                _reset_at_close(client)
                client.close()
                continue
            if self.rejection is not None:
                reject = threading.Thread(
                    target=_reject, args=(client, self.rejection), daemon=True
                )
                reject.start()
                continue
            link = _Link(self, client)
            with self._linking:
                self._links.append(link)
                link.thread.start()


def _reject(client: socket.socket, rejection: tuple[bytes, bytes]) -> None:
    """Tell a client that has just connected that it may not."""
    with client, suppress(OSError, struct.error):
        client.settimeout(PATIENCE)
        while True:
            length, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
            client.recv(length - 8, socket.MSG_WAITALL)
            if code not in (SSL_REQUEST, GSS_REQUEST):
                break
            client.sendall(b"N")
        client.sendall(message(*rejection))
