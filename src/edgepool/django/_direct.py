"""Django's connection to a database, past the pool and past an external pooler."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.transaction import TransactionManagementError

if TYPE_CHECKING:
    from .. import ConnectionPool


@contextmanager
def direct(using: str = DEFAULT_DB_ALIAS) -> Generator[Any, None, None]:
    """Have this thread's connection to a database lead past all poolers, in a block.

    To `OPTIONS["direct"]`; without it, to where the pool leads. For what needs a
    session of its own: advisory locks, LISTEN, a long COPY. `migrate`, `dbshell` and
    `test` do so by themselves. A block in a block has the same connection.

    Args:
        using: the alias of the database.

    Returns:
        Django's connection. It is made at its first use, and closed with the outermost
            block.

    Raises:
        ImproperlyConfigured: the database has another backend, or its settings cannot
            be.
        TransactionManagementError: a transaction is under way.
    """
    from ._wrapper import PooledWrapper

    connection = connections[using]
    if not isinstance(connection, PooledWrapper):
        raise ImproperlyConfigured(
            f"the ENGINE of the database {using!r} is not edgepool.django"
        )
    if connection.is_in_transaction():
        raise TransactionManagementError(
            "a transaction stays on its connection: direct() cannot be used in an"
            " 'atomic' block, or before a commit"
        )
    with connection.past_poolers():
        yield connection


class Way:
    """Where a wrapper gets direct connections from; to Django, it is a pool."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool
        self._lease: Any = None

    def open(self) -> None:
        """Do nothing; Django opens its pools before it borrows."""

    def getconn(self) -> Any:
        """Connect."""
        self._lease = self._pool.direct()
        return self._lease.__enter__()

    def put(self, connection: Any) -> None:
        """Close the connection; what is open on it is rolled back."""
        lease, self._lease = self._lease, None
        connection.close()
        lease.__exit__(None, None, None)
