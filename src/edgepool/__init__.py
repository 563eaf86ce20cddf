"""The in-process PostgreSQL connection pool for long-running Python servers."""

from ._adapter import Adapter, AsyncAdapter, PermanentError, Watchful
from ._async import AsyncLease, AsyncPool
from ._core import ErrorClass, PoolStatistics
from ._errors import (
    BorrowedBeforeFork,
    ConnectFailed,
    CredentialsError,
    NestedBorrow,
    PoolClosed,
    PoolOverloaded,
    PoolTimeout,
    TooManyRequests,
)
from ._sync import Lease, Pool
from .psycopg import (
    AsyncConnectionPool,
    AsyncListener,
    AsyncNullConnectionPool,
    ConnectionPool,
    ConnectionReturned,
    Credential,
    Gap,
    Listener,
    NullConnectionPool,
)

__all__ = [
    "Adapter",
    "AsyncAdapter",
    "AsyncConnectionPool",
    "AsyncLease",
    "AsyncListener",
    "AsyncNullConnectionPool",
    "AsyncPool",
    "BorrowedBeforeFork",
    "ConnectFailed",
    "ConnectionPool",
    "ConnectionReturned",
    "Credential",
    "CredentialsError",
    "ErrorClass",
    "Gap",
    "Lease",
    "Listener",
    "NestedBorrow",
    "NullConnectionPool",
    "PermanentError",
    "Pool",
    "PoolClosed",
    "PoolOverloaded",
    "PoolStatistics",
    "PoolTimeout",
    "TooManyRequests",
    "Watchful",
]
