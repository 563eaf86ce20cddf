"""How what stands in libpq's connection's place has psycopg's C code load values.

psycopg finds out how to load a type when it first meets it: for a further result, or a
value within another one, when it is fetched. If it does so in C, then it takes what its
connection object has for libpq's connection only if that is of its own class.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import pq

from ._states import BAD

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

T = TypeVar("T")

# What is asked for when a value is loaded, with the answer when the session has ended:
# what psycopg's C code takes for granted then.
LOADING: Final[dict[str, Any]] = {
    "_encoding": "utf-8",
    "parameter_status": {b"IntervalStyle": b"postgres"}.get,
}


def _is_safe() -> bool:
    """Tell whether psycopg's C code bears an object of its class without a connection.

    It then has a null pointer. Before 3.3.7 it reads text from there, and crashes; so
    it is to have another class, which it refuses.
    """
    if pq.__impl__ == "python":
        return False
    version: str = import_module(f"psycopg_{pq.__impl__}").__version__
    return [int(number) for number in re.findall(r"\d+", version)[:3]] >= [3, 3, 7]


IS_SAFE: Final = _is_safe()


def loading(cls: type[T], own: tuple[str, ...] = ()) -> type[T]:
    """Make a class whose objects psycopg's C code takes for libpq's connections.

    Without a class of psycopg's that allows for it, that is `cls` itself.

    Args:
        cls: says by `__getattr__` what there is for whatever it has not itself.
        own: attributes of its objects that libpq's connections have as well; but for
            `finish`, which each object is to have of its own, in its `__dict__`.
    """
    if not IS_SAFE:
        return cls
    names: dict[str, Any] = {
        name: property(methodcaller("__getattr__", name))
        for name in vars(pq.PGconn)
        if not (name.startswith("__") or name in own or hasattr(cls, name))
    }
    # psycopg calls it of an object that goes, after the `__dict__` has. Nothing may be
    # raised there, not even by a signal: a traceback would refer to what is no more.
    # So it is nothing of Python's.
    names["finish"] = int
    bases: Any = (cls, pq.PGconn)
    made: Any = type(cls.__name__, bases, {"__slots__": own, **names})
    return made  # type: ignore[no-any-return]


def may_load(find: Callable[[], PGconn | None]) -> bool:
    """Tell whether values of a session may be loaded in C when it is not there.

    By its null pointer the C code can only take all text for UTF-8.
    """
    pgconn = find()
    try:
        return pgconn is None or pgconn._encoding == "utf-8"
    except psycopg.Error:  # there is no session yet, and no value
        return False


def told(pgconn: PGconn | None, name: str) -> Any:
    """Give what is asked for of a session when a value is loaded."""
    if pgconn is None or pgconn.status == BAD:
        return LOADING[name]
    return getattr(pgconn, name)
