"""EdgePool, the Flask extension."""

from __future__ import annotations

import re
import sys
from typing import Any, Final, Generic, TypeVar, cast

from flask import Flask, Response, current_app, g
from psycopg_pool.abc import CT

from .. import ConnectionPool
from ._borrowed import Borrowed
from ._commands import commands
from ._config import DEFAULT, make_pool
from ._pools import EXTENSION, Pools, not_set_up

R = TypeVar("R", bound=Response)

# In g.
BORROWED: Final = "_edgepool"

# A response with such a status, or a higher one, tells of an error.
ERROR: Final = 400


class EdgePool(Generic[CT]):
    """A pool of connections in a Flask application, and one of them in each request.

    It can be made at the top of a module, and serve several applications: what it knows
    of each is in `app.extensions["edgepool"]`. Each process has a pool of its own,
    which connects at the first use.

    Args:
        app: the application; or call `init_app` later.
        name: of the pool in the application, if that has several. That of the first is
            "default", and its configuration `EDGEPOOL_MAX_SIZE` and so on. A pool
            called "reports" reads `EDGEPOOL_REPORTS_MAX_SIZE`.
        pool_class: `ConnectionPool`, `NullConnectionPool`, or a subclass.
        connection_class: the class of the connections. Default: `psycopg.Connection`.
        arguments: as for the pool. They win over the application's configuration.

    Raises:
        ValueError: `name` is not one of letters, digits and underscores.
        TypeError: `pool_class` is no class of pools for threads.
        (others): as `init_app`, if there is an `app`.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        name: str = DEFAULT,
        pool_class: type[ConnectionPool[Any]] = ConnectionPool,
        connection_class: type[CT] | None = None,
        **arguments: Any,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", str(name)):
            raise ValueError(
                "name must be a letter, and then letters, digits or underscores,"
                f" not {name!r}"
            )
        is_class: bool = isinstance(pool_class, type)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not (is_class and issubclass(pool_class, ConnectionPool)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                "pool_class must be edgepool.ConnectionPool or a class that derives"
                f" from it, not {pool_class!r}"
            )
        if connection_class is not None:
            arguments["connection_class"] = connection_class
        self.name = name
        self._pool_class = pool_class
        self._arguments = arguments
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Make the application's pool, as `app.config` has it; connect to nothing.

        Raises:
            ValueError: a key that begins with `EDGEPOOL_` is no argument, or cannot be
                one; or no key says where the database is.
            TypeError: an argument is of another kind.
            RuntimeError: the application has an `EdgePool` of this name.
        """
        pools = Pools.of(app) or Pools(app.config)
        keys = pools.claim(self.name)
        name = app.name if self.name == DEFAULT else f"{app.name}-{self.name}"
        pool = make_pool(self._pool_class, app.config, keys, self._arguments, name)
        if EXTENSION not in app.extensions:
            app.after_request(_after_request)
            app.teardown_request(_teardown_request)
            app.teardown_appcontext(_teardown_appcontext)
            app.cli.add_command(commands)
            app.extensions[EXTENSION] = pools
        pools.add(self.name, self, pool, keys)

    @property
    def pool(self) -> ConnectionPool[CT]:
        """The pool of the current application: all that a pool can do.

        What is borrowed from it, as by `with db.pool.connection()`, is the borrower's
        to return.

        Raises:
            RuntimeError: no application is active, or `init_app` was not called on it.
            ValueError: a key that begins with `EDGEPOOL_` belongs to no pool of the
                application.
        """
        pools = Pools.of(current_app)
        if pools is None:
            raise not_set_up(self.name)
        return cast("ConnectionPool[CT]", pools.get(self.name, self))

    @property
    def connection(self) -> CT:
        """The connection of the current application context.

        It is borrowed at the first use, and is the same one until it is returned: when
        the response has been made, before it is sent, or at the end of the context. The
        next use in the same context borrows anew.

        An open transaction is committed at the return. It is rolled back if the context
        ends in an exception, or if the response has a status of 400 or above.

        Raises:
            PoolTimeout, PoolClosed: as `ConnectionPool.connection`.
            RuntimeError, ValueError: as `pool`.
        """
        pool = self.pool
        borrowed: Borrowed = g.get(BORROWED) or g.setdefault(BORROWED, Borrowed())
        return borrowed.connection(self.name, pool)

    def give_back(self) -> None:
        """Commit, and return the context's connection now, if it has one.

        Before something that takes long and needs no database. The next use of
        `connection` borrows anew.

        Raises:
            psycopg.Error: it could not be committed; it is returned all the same.
        """
        borrowed: Borrowed | None = g.get(BORROWED)
        if borrowed is not None:
            borrowed.give_back(self.name)


class ErrorResponse(Exception):
    """Why a request is rolled back: its response tells of an error."""


def _after_request(response: R) -> R:
    borrowed: Borrowed | None = g.pop(BORROWED, None)
    if borrowed is not None:
        error: BaseException | None = None
        if response.status_code >= ERROR:
            # Unless it was handled, the exception that led to the response is known.
            error = sys.exc_info()[1] or ErrorResponse(response.status)
        borrowed.end(error)
    return response


def _teardown_request(error: BaseException | None) -> None:
    # Also at a SystemExit(0): a server that stops at once has its worker raise that in
    # the midst of a request.
    borrowed: Borrowed | None = g.pop(BORROWED, None)
    if borrowed is not None:
        borrowed.end(error)


def _teardown_appcontext(error: BaseException | None) -> None:
    borrowed: Borrowed | None = g.pop(BORROWED, None)
    if borrowed is not None:
        borrowed.end(borrowed.failure(error))
