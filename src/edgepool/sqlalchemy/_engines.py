"""The short way: an engine that has edgepool's pool."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import sqlalchemy
from sqlalchemy import URL, Engine
from sqlalchemy.ext import asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from .. import AsyncConnectionPool, ConnectionPool
from ..psycopg._dsn import parameters_of, parse
from ..psycopg._dsn_parameters import is_mapping
from ._arguments import without
from ._pools import AsyncEdgePool, EdgePool

SCHEME = "postgresql+psycopg"

# What the constructors of a pool take; the same for both.
ARGUMENTS = frozenset(signature(ConnectionPool).parameters)


def create_engine(
    url: str | URL | Mapping[str, Any],
    *,
    edge: ConnectionPool[Any] | Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Engine:
    """Create an engine with a pool of edgepool's.

    Args:
        url: SQLAlchemy's URL, or another DSN that edgepool understands, which may hold
            arguments of the pool (docs/reference/dsn.md).
        edge: a pool that others use too; or a mapping of arguments.
        arguments: those of `sqlalchemy.create_engine`, and those of
            `edgepool.ConnectionPool`.

    Raises:
        TypeError: an argument is unknown.
        ValueError: an argument is out of range, or contradicts another; or the URL is
            not one of PostgreSQL. There is no secret in it.
    """
    create = sqlalchemy.create_engine
    engine: Engine = _created(create, EdgePool, url, edge, arguments)
    return engine


def create_async_engine(
    url: str | URL | Mapping[str, Any],
    *,
    edge: AsyncConnectionPool[Any] | Mapping[str, Any] | None = None,
    **arguments: Any,
) -> AsyncEngine:
    """Create an engine for asyncio, with a pool of edgepool's; see `create_engine`.

    Args:
        url: SQLAlchemy's URL, or another DSN that edgepool understands.
        edge: a pool that others use too; or a mapping of arguments.
        arguments: those of `sqlalchemy.ext.asyncio.create_async_engine`, and those of
            `edgepool.AsyncConnectionPool`.

    Raises:
        TypeError, ValueError: as `create_engine`.
    """
    create = asyncio.create_async_engine
    engine: AsyncEngine = _created(create, AsyncEdgePool, url, edge, arguments)
    return engine


def _created(
    create: Callable[..., Any],
    poolclass: type[EdgePool | AsyncEdgePool],
    url: str | URL | Mapping[str, Any],
    edge: Any,
    arguments: dict[str, Any],
) -> Any:
    is_shared = isinstance(edge, poolclass._edge_class)
    own = {name: arguments.pop(name) for name in ARGUMENTS & arguments.keys()}
    if is_shared and own:
        names = ", ".join(sorted(own))
        raise ValueError(f"{names}: the business of the pool that was given as edge")
    if not isinstance(url, URL):
        url, connect_args, said = _url(url)
        arguments["connect_args"] = {
            **connect_args,
            **arguments.get("connect_args", {}),
        }
        if not is_shared:
            own = {**without(said, arguments), **own}
    if edge is None or is_mapping(edge):
        edge = {**(edge or {}), **own}
    return create(url, poolclass=poolclass, edge=edge, **arguments)


def _url(dsn: str | Mapping[str, Any]) -> tuple[URL, dict[str, Any], dict[str, Any]]:
    """Make a URL of SQLAlchemy's, arguments of a connect, and arguments of the pool."""
    found = parse(dsn)
    rest = parameters_of(found)
    host, port = str(rest.get("host", "")), str(rest.get("port", ""))
    plain = {"user": "username", "password": "password", "dbname": "database"}
    if "," not in host + port and not host.startswith("/"):
        plain.update(host="host", port="port")
    fields: dict[str, Any] = {plain[k]: rest.pop(k) for k in plain.keys() & rest.keys()}
    if "port" in fields:
        fields["port"] = int(fields["port"])
    said = dict(found.arguments)
    if found.pooler is not None:
        said.setdefault("pooler", found.pooler)
    return URL.create(SCHEME, **fields, query=rest), dict(found.connect), said
