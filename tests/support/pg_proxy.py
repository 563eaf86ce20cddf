"""A TCP proxy before PostgreSQL: the one of users' faults, and it listens in.

It tells what clients really sent. And what it can say to them in the server's name.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager

from edgepool.testing import _proxy
from edgepool.testing._wire import GSS_REQUEST, SSL_REQUEST, problem

__all__ = ["Proxy", "farewell", "notice", "parameter_status"]


class Proxy(_proxy.Proxy):
    """Also notes what clients send, and can be told to wait for something.

    Attributes:
        messages: what they have sent, in order: the protocol's letter, and the body.
        replace: what clients say that becomes something else, of the same length.
    """

    def __init__(self, conninfo):
        self.messages = []
        self.replace = b"", b""
        self._trap = None
        super().__init__(conninfo)

    @property
    def statements(self):
        """The SQL of each statement that was sent, whichever protocol carried it."""
        found = []
        for kind, body in list(self.messages):
            if kind == "Q":
                found.append(body.rstrip(b"\0").decode())
            elif kind == "P":
                found.append(body.split(b"\0")[1].decode())
        return found

    @contextmanager
    def recording(self):
        """Collect what clients send during the block; filled in when it ends."""
        start = len(self.messages)
        during = []
        yield during
        during += self.messages[start:]

    def black_hole_at(self, kind, text=b""):
        """Become a black hole when a client sends a message of a kind, with a text.

        That message is the first not to be delivered. A kind is the protocol's letter.
        """
        self._trap = kind, text

    def heard(self, link, data):
        for kind, body in vars(link).setdefault("reader", Reader()).feed(data):
            self.messages.append((kind, body))
            trap, text = self._trap or ("", b"")
            if kind == trap and text in body:
                self._trap = None
                self.black_hole()
        return data.replace(*self.replace)


class Reader:
    """Makes messages of the bytes that a client sends."""

    def __init__(self):
        self._rest = b""
        self._started = False

    def feed(self, data):
        """Yield letter and body of each message after the start-up."""
        self._rest += data
        while len(self._rest) >= 8 and not self._started:
            length, code = struct.unpack_from("!II", self._rest)
            if len(self._rest) < length:
                return
            self._rest = self._rest[length:]
            self._started = code not in (SSL_REQUEST, GSS_REQUEST)
        while len(self._rest) >= 5 and self._started:
            (length,) = struct.unpack_from("!I", self._rest, 1)
            if len(self._rest) < 1 + length:
                return
            yield chr(self._rest[0]), self._rest[5 : 1 + length]
            self._rest = self._rest[1 + length :]


def parameter_status(name, value):
    """Make the message that tells of a changed parameter."""
    return b"S", f"{name}\0{value}\0".encode()


def notice(text):
    """Make a message that a client may ignore."""
    _, body = problem("00000", text, severity="NOTICE")
    return b"N", body


# The message with which a server ends a session.
farewell = problem
