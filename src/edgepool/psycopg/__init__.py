"""The pools for psycopg connections: psycopg_pool's face, edgepool's engine."""

from ._async_pool import AsyncConnectionPool
from ._credentials import Credential
from ._direct import AsyncDirectConnection, DirectConnection
from ._lazy import AsyncLazyLease, LazyLease
from ._leases import AsyncConnectionLease, ConnectionLease
from ._listen import AsyncListener, Listener
from ._listening import Gap
from ._null_pools import AsyncNullConnectionPool, NullConnectionPool
from ._pool import ConnectionPool
from ._returned import ConnectionReturned

__all__ = [
    "AsyncConnectionLease",
    "AsyncConnectionPool",
    "AsyncDirectConnection",
    "AsyncLazyLease",
    "AsyncListener",
    "AsyncNullConnectionPool",
    "ConnectionLease",
    "ConnectionPool",
    "ConnectionReturned",
    "Credential",
    "DirectConnection",
    "Gap",
    "LazyLease",
    "Listener",
    "NullConnectionPool",
]
