"""What becomes of an inherited connection in a forked child: harmless, and says so.

The child has copies of its parent's sockets and of the states that libpq and OpenSSL
keep for them. One byte from the child, be it the farewell of a close, would end or
garble the parent's session, and what the server answers the parent, the child would
read. So nothing of libpq is called here; another thread of the parent may have been in
the midst of it.
"""

# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false

from __future__ import annotations

import asyncio
import os
import socket
from inspect import iscoroutinefunction
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg

from .._errors import BorrowedBeforeFork
from ._handles import pgconn_behind

if TYPE_CHECKING:
    from psycopg._connection_base import BaseConnection

# Whose a disowned connection is: what its use is answered with.
PARENTS = "_edgepool_parents"


def disown(conn: BaseConnection[Any], pool: str) -> None:
    """Cut a child's copy of a connection off from its session; have any use raise."""
    inside = vars(conn)
    pgconn = pgconn_behind(conn)
    try:
        fd = None if pgconn is None else pgconn.socket
    except psycopg.Error:  # it was closed, or lost
        fd = None
    if fd is not None:
        _replace(fd)
    # A thread that does not exist here may hold it.
    asynchronous = isinstance(conn, psycopg.AsyncConnection)
    inside["lock"] = asyncio.Lock() if asynchronous else Lock()
    inside.pop("close", None)  # of `close_returns`
    inside["_pool"] = inside["_edgepool"] = None
    # Not noted yet in mid-`configure`; an inherited one may be from further back.
    opened_by = inside.get("_edgepool_opened_by", os.getppid())
    inside[PARENTS] = (
        f"the pool {pool!r} opened this connection in process {opened_by},"
        f" before it forked process {os.getpid()}: borrow another one here"
    )
    conn.__class__ = _forked(type(conn))


def is_forked(conn: object) -> bool:
    """Tell whether a connection was disowned."""
    return hasattr(conn, PARENTS)


def _replace(fd: int) -> None:
    """Put a socket without a peer where an inherited one was.

    Closing alone would leave the number to the next file that is opened, and libpq
    would write to that. It comes first, though: there may be no other number free.
    """
    os.close(fd)
    with socket.socket() as harmless:
        if harmless.fileno() == fd:
            harmless.detach()
        else:
            os.dup2(harmless.fileno(), fd, inheritable=False)


# What a disowned connection overrides: everything else asks for its inside.


def _pgconn(conn: BaseConnection[Any]) -> NoReturn:
    raise BorrowedBeforeFork(vars(conn)[PARENTS])


def _repr(conn: BaseConnection[Any]) -> str:
    cls = type(conn)
    return f"<{cls.__module__}.{cls.__qualname__} [INHERITED] at 0x{id(conn):x}>"


def _nothing(conn: BaseConnection[Any]) -> None:
    pass


async def _nothing_async(conn: BaseConnection[Any]) -> None:
    pass


_classes: dict[type, type] = {}


def _forked(cls: type) -> type:
    """Make the class of the disowned connections that were of this class.

    psycopg's own methods take a closed connection for one that needs nothing more: no
    commit at the end of a block, no cancellation of what the parent runs.
    """
    if cls not in _classes:
        waits = iscoroutinefunction(getattr(cls, "close", None))
        overrides = {
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__repr__": _repr,
            "__del__": _nothing,  # psycopg's looks inside
            "pgconn": property(_pgconn),
            "closed": True,
            "broken": False,
            "close": _nothing_async if waits else _nothing,
        }
        # No other base: an object can change to a class with the same layout only.
        _classes[cls] = type(cls.__name__, (cls,), overrides)
    return _classes[cls]
