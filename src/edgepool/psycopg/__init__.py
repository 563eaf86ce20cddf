"""The pools for psycopg connections: psycopg_pool's face, edgepool's engine."""

from ._async_pool import AsyncConnectionPool, AsyncNullConnectionPool
from ._handles import ConnectionReturned
from ._leases import AsyncConnectionLease, ConnectionLease
from ._pool import ConnectionPool, NullConnectionPool

__all__ = [
    "AsyncConnectionLease",
    "AsyncConnectionPool",
    "AsyncNullConnectionPool",
    "ConnectionLease",
    "ConnectionPool",
    "ConnectionReturned",
    "NullConnectionPool",
]
