"""The pools of one application."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import Flask, current_app

from .. import ConnectionPool
from ._config import keys_of, refuse_unknown, unclaimed, unknown

EXTENSION: Final = "edgepool"


class Pools:
    """What is in `app.extensions["edgepool"]`: the pools by their names.

    Each belongs to the `EdgePool` that has made it.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._pools: dict[str, tuple[object, ConnectionPool[Any]]] = {}
        # The keys that are read, each with the name of the pool that reads it.
        self._keys: dict[str, str] = {}
        self._all_claimed = False

    @staticmethod
    def of(app: Flask) -> Pools | None:
        """Return the pools of an application, if it has any."""
        return app.extensions.get(EXTENSION)

    def __iter__(self) -> Iterator[tuple[str, ConnectionPool[Any]]]:
        """Give each name with its pool."""
        return ((name, pool) for name, (_, pool) in self._pools.items())

    def claim(self, name: str) -> dict[str, str]:
        """Return the keys of a pool that is to be added, with their arguments.

        Raises:
            RuntimeError: there is one of this name.
            ValueError: another pool reads the same key, or there is a key that no pool
                can read.
        """
        if name in self._pools:
            raise RuntimeError(
                f"this application has an EdgePool called {name!r} already: give the"
                " other one another name, as in EdgePool(name='reports')"
            )
        keys = keys_of(name)
        for key in keys:
            if key in self._keys:
                raise ValueError(
                    f"the pools {self._keys[key]!r} and {name!r} would both read {key}:"
                    " give one of them another name"
                )
        refuse_unknown(self._config, {**self._keys, **keys})
        return keys

    def add(
        self,
        name: str,
        owner: object,
        pool: ConnectionPool[Any],
        keys: Mapping[str, str],
    ) -> None:
        """Add a pool."""
        self._pools[name] = owner, pool
        self._keys.update(dict.fromkeys(keys, name))

    def get(self, name: str, owner: object) -> ConnectionPool[Any]:
        """Return a pool, once it is known that all keys are some pool's.

        Raises:
            RuntimeError: it has not been added by this owner.
            ValueError: no pool of the application reads one of the keys.
        """
        its, pool = self._pools.get(name, (None, None))
        if its is not owner or pool is None:
            raise not_set_up(name)
        if not self._all_claimed:
            for key in unclaimed(self._config, self._keys):
                raise unknown(key, self._keys)
            self._all_claimed = True
        return pool


def not_set_up(name: str) -> RuntimeError:
    """Return the error for an EdgePool that an application does not know."""
    return RuntimeError(
        f"this EdgePool, {name!r}, does not know the application"
        f" {current_app.name!r}: call its init_app(app) first"
    )
