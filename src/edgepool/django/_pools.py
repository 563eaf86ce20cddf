"""The pools of this process: one for each alias, and for each of its settings.

There is no lock: nobody is there to release it in a forked child.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from .. import ConnectionPool
from ._settings import Settings, matter


class _Made(NamedTuple):
    alias: str
    settings: dict[str, Any]
    pool: ConnectionPool[Any]


_made: list[_Made] = []


def find(alias: str, settings: Settings) -> ConnectionPool[Any] | None:
    """Return the pool of an alias, if one was made from the same settings."""
    wanted = matter(settings)
    for made in _made:
        if made.alias == alias and made.settings == wanted:
            return made.pool
    return None


def has(alias: str) -> bool:
    """Tell whether there is any pool of an alias."""
    return any(made.alias == alias for made in _made)


def add(
    alias: str, settings: Settings, pool: ConnectionPool[Any]
) -> ConnectionPool[Any]:
    """Add a pool that was made; of several threads that do, the first wins.

    Returns:
        The pool to use.
    """
    _made.append(_Made(alias, matter(settings), pool))
    return find(alias, settings) or pool


def close(alias: str, settings: Settings) -> None:
    """Close the pool of an alias; the next borrow makes another one."""
    wanted = matter(settings)
    _close([m for m in _made if m.alias == alias and m.settings == wanted], 5.0)


def cut_off(settings: Settings) -> None:
    """Close all pools that lead to a database, and what is borrowed from them.

    For what has to be alone: a database cannot be dropped, or be the template of
    another one, while somebody is connected to it.
    """
    there = [made for made in _made if _place(made.settings) == _place(settings)]
    _close(there, 0.0)


def _place(settings: Settings) -> list[str]:
    # A port may be a number or a string.
    return [str(settings[name]) for name in ("HOST", "PORT", "NAME")]


def _close(these: list[_Made], timeout: float) -> None:
    for made in these:
        with suppress(ValueError):  # somebody was faster
            _made.remove(made)
        made.pool.close(timeout)
