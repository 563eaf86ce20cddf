"""What callers catch. Each is psycopg_pool's exception of the same name, or psycopg's.

That identity is why this module, and no other outside `edgepool.psycopg`, imports
them: code that catches `psycopg_pool.PoolTimeout` catches ours.
"""

from __future__ import annotations

from typing import Any

import psycopg
import psycopg_pool

from ._core import PoolStatistics, Refusal, Waiter
from ._places import place, place_of_caller


class PoolClosed(psycopg_pool.PoolClosed):
    """The pool is not open yet, is closed, or was closed while the caller waited."""

    __module__ = "edgepool"


class TooManyRequests(psycopg_pool.TooManyRequests):
    """Already `max_waiting` callers wait for a connection."""

    __module__ = "edgepool"


class PoolTimeout(psycopg_pool.PoolTimeout):
    """No connection became available in time.

    The attributes are the pool's state at that moment. They tell a pool that is too
    small (`in_use` is the maximum) from a server that does not answer (`opening` is not
    0, and `__cause__` is the latest error of a connect).

    Attributes:
        size: connections that hold a place, in whatever state.
        in_use: connections that are lent.
        idle: connections that are ready.
        opening: connections that are being opened.
        waiting: how many others wait for a connection.
        waited: how long this caller has waited, in seconds.
    """

    __module__ = "edgepool"

    def __init__(self, message: str, statistics: PoolStatistics, waited: float) -> None:
        self.size = statistics.size
        self.in_use = statistics.in_use
        self.idle = statistics.idle
        self.opening = statistics.opening
        self.waiting = statistics.waiting
        self.waited = waited
        super().__init__(
            f"{message} (size {self.size} of {statistics.max_size}:"
            f" {self.in_use} in use, {self.idle} idle, {self.opening} opening;"
            f" {self.waiting} waiting; waited {waited:.2f} s)"
        )


class ConnectFailed(PoolTimeout):
    """The pool cannot connect, and waiting would not help; `__cause__` says why.

    A wrong password, an unknown database, invalid connection parameters, a bug in a
    callable. It is a `PoolTimeout` because that is what psycopg_pool raises here, after
    the whole timeout: what handles that keeps working.
    """

    __module__ = "edgepool"


class NestedBorrow(PoolTimeout):
    """The caller would have waited for itself.

    All connections are held by threads or tasks that wait for one, the caller among
    them; so nobody could be served before somebody gives up. Says where the caller has
    borrowed what it holds, and where it has asked for another.
    """

    __module__ = "edgepool"


class BorrowedBeforeFork(psycopg.InterfaceError):
    """The connection is one of the parent process, and this is a forked child.

    What the child has is a copy that leads nowhere. It can be returned, which does
    nothing; the pool lends connections of the child's own.
    """

    __module__ = "edgepool"


class CredentialsError(psycopg.OperationalError):
    """A provider of credentials gave none; the `__cause__` of what a borrower gets.

    Says what the provider has raised, and where, but not its text, which may quote a
    secret.
    """

    __module__ = "edgepool"


class PoolOverloaded(PoolTimeout):
    """More come than can be served, and this caller had waited for long enough.

    Only with `shed_target`. It is a `PoolTimeout` because that is what would have come
    of waiting on: what handles that keeps working. Whoever can should tell his own
    caller to come again later (HTTP 503), and not try again at once.
    """

    __module__ = "edgepool"


def refused(
    waiter: Waiter[Any], name: str, statistics: PoolStatistics, waited: float
) -> PoolClosed | TooManyRequests | PoolTimeout:
    """Make the exception for a waiter who did not get a connection."""
    error: PoolClosed | TooManyRequests | PoolTimeout
    if waiter.refusal is Refusal.CLOSED:
        error = PoolClosed(f"the pool {name!r} is closed")
    elif waiter.refusal is Refusal.FULL:
        error = TooManyRequests(
            f"the pool {name!r} has already {statistics.waiting} requests waiting"
        )
    elif waiter.held is not None:
        held = place(waiter.held.note)
        error = NestedBorrow(
            f"all connections of the pool {name!r} are held by those who wait for one;"
            f" this borrower holds what was borrowed at {held},"
            f" and asks for another at {place_of_caller()}",
            statistics,
            waited,
        )
    elif waiter.refusal is Refusal.FAILED:
        error = ConnectFailed(
            f"the pool {name!r} cannot connect: {waiter.cause}", statistics, waited
        )
    elif waiter.refusal is Refusal.SHED:
        error = PoolOverloaded(
            f"the pool {name!r} is overloaded, given up after {waited:.2f} sec",
            statistics,
            waited,
        )
    else:
        error = PoolTimeout(
            f"couldn't get a connection after {waited:.2f} sec from the pool {name!r}",
            statistics,
            waited,
        )
    error.__cause__ = waiter.cause
    return error
