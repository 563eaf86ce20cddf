"""What is different from Django's wrapper of a connection: where that comes from.

A wrapper belongs to a thread and an alias. It borrows a connection when it is first
used, and gives it back when Django closes it, at the end of a request or a task.
"""

# A backend is made of what Django's backends keep private:
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base

from .. import ConnectionPool
from ..psycopg._dsn import NOT_LIBPQ, must_be_libpqs
from . import _pools, _threads
from ._checks import DatabaseValidation
from ._client import DatabaseClient
from ._creation import DatabaseCreation
from ._direct import Way
from ._settings import must_not_persist, past_pooler, pool_arguments, wants_pool

# Poolers, as the pool has found them, that may give each transaction another session.
SHARING = ("transaction", "undetermined")


class PooledWrapper(base.DatabaseWrapper):
    """A wrapper whose connections come from a pool of edgepool's."""

    client_class = DatabaseClient
    creation_class = DatabaseCreation
    validation_class = DatabaseValidation

    # The way to a connection past the pool, while there is to be one.
    _way: Way | None = None
    # Whether it is kept when the connection is closed.
    _is_held = False
    # The pool, while it is asked for a connection: Django asks for it each time anew.
    _connecting_from: Any = None
    # Whether the connection was borrowed, and in which process.
    _is_borrowed = False
    _process = 0

    @property
    def pool(self) -> Any:
        """The pool that this connection comes from; None if there is none.

        Made when first asked for; it connects when somebody borrows.

        Raises:
            ImproperlyConfigured: the settings cannot be; says which, and why.
        """
        if self._way is not None:
            return self._way
        if self._connecting_from is not None:
            return self._connecting_from
        if self.alias == NO_DB_ALIAS or not wants_pool(self.settings_dict):
            return None
        found = _pools.find(self.alias, self.settings_dict)
        if found is None:
            # As Django does: who sets an age later, as its own tests do, may.
            if not _pools.has(self.alias):
                must_not_persist(self.settings_dict)
            pool = self.make_pool()
            found = _pools.add(self.alias, self.settings_dict, pool)
        return found

    def make_pool(self, *, past_poolers: bool = False) -> ConnectionPool[Any]:
        """Make a pool from the settings; it is not opened.

        Args:
            past_poolers: whether its own connections lead to `OPTIONS["direct"]`.

        Raises:
            ImproperlyConfigured: the settings cannot be; says which, and why.
        """
        try:
            direct = None
            settings = dict(self.settings_dict)
            if settings["OPTIONS"].get("direct") is not None:
                past = past_pooler(settings)
                direct = type(self)(past, self.alias)._split_parameters()[0]
                settings = past if past_poolers else settings
            return self._make_pool(settings, direct)
        except (ImproperlyConfigured, TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"DATABASES[{self.alias!r}]: {error}") from error

    def _make_pool(
        self, settings: dict[str, Any], direct: dict[str, Any] | None
    ) -> ConnectionPool[Any]:
        # None of a thread's own things: the pool lives on.
        cls, alias = type(self), self.alias
        parameters, kwargs = cls(settings, alias)._split_parameters()
        arguments = pool_arguments(settings)
        if settings["CONN_HEALTH_CHECKS"]:
            arguments.setdefault("check", ConnectionPool.check_connection)
        users: Callable[[Any], object] | None = arguments.pop("configure", None)
        if users is not None and not callable(users):
            raise TypeError(f"configure must be a function, not {users!r}")
        unpooled = {**settings, "OPTIONS": {**settings["OPTIONS"], "pool": False}}

        def configure(connection: Any) -> None:
            # Django asks the wrapper for a cursor to quote the name of a role.
            wrapper: Any = cls(unpooled, alias)
            wrapper.connection = connection
            wrapper._configure_connection(connection)
            wrapper.connection = None  # it is in a cycle, and would live on with it
            if users is not None:
                users(connection)

        # As one of Django's databases, for the errors about what it says of the pool.
        options = {**parameters, "pool": {"name": alias, **arguments}}
        return ConnectionPool(
            {"ENGINE": "edgepool.django", "OPTIONS": options},
            kwargs={**kwargs, "autocommit": True},
            configure=configure,
            direct_conninfo=direct,
        )

    def _split_parameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the parameters of the connection string, and what psycopg takes."""
        parameters = self.get_connection_params()
        given = parameters.keys() & NOT_LIBPQ
        kwargs = {name: parameters.pop(name) for name in given}
        must_be_libpqs(parameters)
        return parameters, kwargs

    def close_pool(self) -> None:
        """Close the pool, if there is one; the next borrow makes another.

        Waits up to 5 seconds for what is borrowed; this thread's goes back first.
        """
        if not self.in_atomic_block:
            self.close()
        _pools.close(self.alias, self.settings_dict)

    def get_connection_params(self) -> dict[str, Any]:
        """See Django."""
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.pop("direct", None)
        return parameters

    def connect(self) -> None:
        """See Django."""
        try:
            self._connecting_from = self.pool
            super().connect()
        finally:
            self._connecting_from = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Borrow a connection; or open one, if there is no pool.

        Raises:
            PoolTimeout: none became available in time.
            ConnectFailed: connecting fails, and waiting would not help.
        """
        connection = super().get_new_connection(conn_params)
        self._is_borrowed = _lender(connection) is not None
        if self._is_borrowed:
            self._process = os.getpid()
            _threads.note(self)
        return connection

    def init_connection_state(self) -> None:
        """See Django. What is set for a session, `configure` has set."""
        super().init_connection_state()
        # Unless somebody has set another time zone, or Django's setting has changed.
        changed = self._is_borrowed and self.ensure_timezone()
        if changed and not self.get_autocommit():
            self.connection.commit()

    def ensure_timezone(self) -> bool:
        """See Django. The pool stays: each borrow sees to the time zone."""
        if self.connection is None:
            return False
        mine: Any = self
        changed: bool = mine._configure_timezone(self.connection)
        return changed

    def close_if_health_check_failed(self) -> None:
        """See Django. What was borrowed has been looked at by the pool."""
        if self.connection is None:
            return
        if not self._is_borrowed:
            super().close_if_health_check_failed()
        elif self._process != os.getpid() and not self.in_atomic_block:
            # The parent's, in a forked child.
            self.connection, self._is_borrowed = None, False

    def _close(self) -> None:
        if not self._is_borrowed:
            if self.connection is not None:
                with self.wrap_database_errors:
                    self.connection.close()
            return
        with self.wrap_database_errors:
            self._give_back()

    def _give_back(self) -> None:
        connection, self.connection = self.connection, None
        self._is_borrowed = False
        if self._way is not None:
            self._way.put(connection)
        # None: it was returned by other means, or is a forking parent's.
        elif (lender := _lender(connection)) is not None:
            lender.putconn(connection)

    def return_at_end_of_thread(self) -> None:
        """Give back what is borrowed, unless other threads may use it, too."""
        if self._is_borrowed and not self.allow_thread_sharing:
            self._give_back()

    def prepare_database(self) -> None:
        """See Django, whose `migrate` calls it: from now on past an external pooler."""
        if self.settings_dict["OPTIONS"].get("direct") is not None:
            self.go_direct()
        super().prepare_database()

    def go_direct(self) -> None:
        """Connect past the pool, and past an external pooler, until `close`.

        In a transaction it has no effect.
        """
        if not self.in_atomic_block and self._way is None:
            self.close()
            self._way = Way(self.make_pool(past_poolers=True))

    @contextmanager
    def past_poolers(self) -> Generator[None, None, None]:
        """Do so in a block, however often the connection is closed in it.

        A block in a block is a part of it: the outer one goes on to hold what it holds.
        """
        if self._is_held:
            yield
            return
        self._is_held = True
        try:
            self.go_direct()
            yield
        finally:
            self._is_held = False
            self.close()

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open, be it without an `atomic` block."""
        if self.in_atomic_block or self.connection is None or self.connection.closed:
            return bool(self.in_atomic_block)
        status = self.connection.info.transaction_status
        return status.name in ("INTRANS", "INERROR")

    def close(self) -> None:
        """Give the connection back; see Django."""
        super().close()
        if self.connection is None and not self._is_held:
            self._way = None

    def chunked_cursor(self) -> Any:
        """See Django. Where a pooler shares its sessions, a cursor cannot outlive one.

        There it is only on the server within a transaction.
        """
        self.ensure_connection()
        if self.connection.autocommit and self._shares_sessions():
            return self.cursor()
        return super().chunked_cursor()

    def _shares_sessions(self) -> bool:
        pool = self.pool
        if not isinstance(pool, ConnectionPool):
            return False
        return pool.statistics().pooler in SHARING


def _lender(connection: Any) -> Any:
    """Return the pool that has lent a connection, if one has; psycopg's contract."""
    return getattr(connection, "_pool", None)
