"""PostgreSQL's protocol, as far as what stands between a client and a server needs it.

A message is a letter, a length and a body. Only the first that a client sends has no
letter.
"""

from __future__ import annotations

import socket
import struct
from asyncio import StreamWriter
from typing import Final

# The codes with which a first message is not yet the start of a session.
SSL_REQUEST: Final = 80877103
GSS_REQUEST: Final = 80877104
CANCEL_REQUEST: Final = 80877102

# The protocol's major version 3, minor version 0.
VERSION: Final = 3 << 16

# The SQLSTATE and the text with which a server refuses a session.
FULL: Final = "53300", "sorry, too many clients already"
STARTING: Final = "57P03", "the database system is starting up"


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Write a message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def problem(
    sqlstate: str, text: str, hint: str = "", severity: str = "FATAL"
) -> tuple[bytes, bytes]:
    """Make the message of an error; FATAL is the last one that a session says."""
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": text, "H": hint}
    body = "".join(f"{name}{value}\0" for name, value in fields.items() if value)
    return b"E", body.encode() + b"\0"


def fields_of(body: bytes) -> dict[str, str]:
    """Read the fields of an error's message."""
    parts = body.decode("utf-8", "replace").split("\0")
    return {part[0]: part[1:] for part in parts if part}


def without_delay(writer: StreamWriter) -> None:
    """Have what is written sent at once; asyncio does so for some sockets only."""
    end: socket.socket = writer.get_extra_info("socket")
    if end.family != socket.AF_UNIX:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
