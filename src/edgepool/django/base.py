"""What Django looks for in a backend: `DatabaseWrapper`."""

from ._wrapper import PooledWrapper


class DatabaseWrapper(PooledWrapper):
    """Django's PostgreSQL backend, with edgepool's pool."""
