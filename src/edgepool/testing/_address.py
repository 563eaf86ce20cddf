"""Addresses: a port that stays ours, and how to write down where the server is.

Owns the choice of the port; a server that is stopped must find it free again.
"""

from __future__ import annotations

import random
import socket
from typing import Final

HOST: Final = "127.0.0.1"

# Below the ports that systems hand out for outgoing connections (Linux from 32768,
# others from 49152). In that range a client could take the port while the server is
# stopped, or, on loopback, even connect to itself.
PORTS: Final = range(20_000, 32_000)

# Of servers that exist in this process, running or not.
_taken: set[int] = set()


def reserve_port() -> int:
    """Choose a free port; no other server of this process gets it before `release`."""
    # Not the shared generator: Hypothesis and others seed it, and then two processes
    # would try the same ports in the same order.
    for port in random.SystemRandom().sample(PORTS, 100):
        if port not in _taken and _is_free(port):
            _taken.add(port)
            return port
    raise OSError(f"no free port between {PORTS[0]} and {PORTS[-1]} on {HOST}")


def release_port(port: int) -> None:
    """Give a reserved port back."""
    _taken.discard(port)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def conninfo(parameters: dict[str, str]) -> str:
    """Write parameters as libpq's `keyword=value` pairs."""
    return " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())


def _quoted(value: str) -> str:
    if value and not any(c.isspace() or c in "'\\" for c in value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
