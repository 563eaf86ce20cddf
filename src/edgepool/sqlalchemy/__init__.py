"""edgepool's pools in SQLAlchemy's engines, in the place of QueuePool."""

try:
    import sqlalchemy as _sqlalchemy
except ImportError as error:
    raise ImportError(
        "edgepool.sqlalchemy needs SQLAlchemy: pip install 'edgepool[sqlalchemy]'"
    ) from error

from ._engines import create_async_engine, create_engine
from ._pools import AsyncEdgePool, EdgePool

__all__ = ["AsyncEdgePool", "EdgePool", "create_async_engine", "create_engine"]

del _sqlalchemy
