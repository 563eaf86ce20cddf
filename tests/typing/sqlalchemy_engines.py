"""What users of SQLAlchemy write, as type checkers see it; never run."""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as stock_async_engine
from typing_extensions import assert_type

from edgepool import AsyncConnectionPool, ConnectionPool
from edgepool.sqlalchemy import (
    AsyncEdgePool,
    EdgePool,
    create_async_engine,
    create_engine,
)


def engines(
    pool: ConnectionPool[psycopg.Connection[Any]],
    async_pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]],
) -> None:
    assert_type(create_engine("postgresql://", max_size=4, echo=True), Engine)
    assert_type(create_engine({"host": "db1"}, edge={"max_size": 4}), Engine)
    assert_type(create_engine("postgresql://", edge=pool), Engine)
    assert_type(create_async_engine("postgresql://", edge=async_pool), AsyncEngine)
    create_engine("postgresql://", edge=async_pool)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    url = "postgresql+psycopg://"
    sqlalchemy.create_engine(url, poolclass=EdgePool, edge={"max_size": 4})
    sqlalchemy.create_engine(url, pool=EdgePool(edge=pool))
    stock_async_engine(url, poolclass=AsyncEdgePool)
    assert_type(EdgePool(edge=pool).edge, ConnectionPool[Any])
    assert_type(AsyncEdgePool(edge=async_pool).edge.name, str)
