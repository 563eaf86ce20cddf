"""What an application context has borrowed, from the first use to its end."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, ExitStack
from threading import Lock
from types import TracebackType
from typing import Any, cast

import click
from click.exceptions import Exit
from psycopg_pool.abc import CT

from .. import ConnectionPool
from ..psycopg._leases import borrowed_by_caller


class Borrowed:
    """The connections of one context, at most one of each pool."""

    def __init__(self) -> None:
        # An async view may use threads, and they share its context.
        self._lock = Lock()
        self._loans: dict[str, tuple[AbstractContextManager[Any], Any]] = {}
        self._handled = _passing()

    def connection(self, name: str, pool: ConnectionPool[CT]) -> CT:
        """Return the context's connection of a pool; borrow it the first time."""
        with self._lock:
            if name not in self._loans:
                self._loans[name] = _borrow(pool)
            return cast("CT", self._loans[name][1])

    def give_back(self, name: str) -> None:
        """Return the connection of one pool, if there is one; commit."""
        with self._lock:
            loan = self._loans.pop(name, None)
        if loan is not None:
            loan[0].__exit__(None, None, None)

    def end(self, error: BaseException | None) -> None:
        """Return all: commit, or roll back on an error.

        If one cannot be committed, those that are left are rolled back.
        """
        with self._lock:
            loans, self._loans = self._loans, {}
        ending = ExitStack()
        for block, _ in reversed(loans.values()):
            ending.push(block)
        ending.__exit__(type(error) if error else None, error, None)

    def failure(self, error: BaseException | None) -> BaseException | None:
        """Tell what has failed when a context that is no request's ends by an error."""
        if error is None and click.get_current_context(silent=True) is not None:
            # Older releases of click end the context of a command without telling it
            # the exception: that is on its way now, and was not when this began.
            passing = _passing()
            error = None if passing == self._handled else passing[0]
        return None if _is_success(error) else error


def _passing() -> tuple[BaseException | None, TracebackType | None]:
    """Return the exception that is handled or on its way, and how far it has come."""
    error = sys.exc_info()[1]
    return error, None if error is None else error.__traceback__


def _is_success(error: BaseException | None) -> bool:
    """Tell whether this is how a command ends that has exit status 0."""
    if isinstance(error, SystemExit):
        return error.code in (None, 0)
    return isinstance(error, Exit) and error.exit_code == 0


def _borrow(pool: ConnectionPool[CT]) -> tuple[AbstractContextManager[Any], CT]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        lease = pool.connection()
        conn = lease.__enter__()
        borrowed_by_caller(conn)
        return lease, conn
    # An async view. Its thread ends with it, before this is returned, and the next one
    # may get the same number: then the pool must not think that the two are one.
    returning = ExitStack()
    conn = pool.getconn()
    borrowed_by_caller(conn)
    returning.callback(pool.putconn, conn)
    returning.enter_context(conn)  # commits, or rolls back; closes nothing of a pool's
    return returning, conn
