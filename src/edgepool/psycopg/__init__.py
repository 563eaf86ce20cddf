"""The pools for psycopg connections: psycopg_pool's face, edgepool's engine."""

from ._async_pool import (
    AsyncConnectionLease,
    AsyncConnectionPool,
    AsyncNullConnectionPool,
)
from ._handles import ConnectionReturned
from ._pool import ConnectionLease, ConnectionPool, NullConnectionPool

__all__ = [
    "AsyncConnectionLease",
    "AsyncConnectionPool",
    "AsyncNullConnectionPool",
    "ConnectionLease",
    "ConnectionPool",
    "ConnectionReturned",
    "NullConnectionPool",
]
