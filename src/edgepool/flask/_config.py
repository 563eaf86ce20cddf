"""What an application's configuration says of a pool.

Each key is one pool's: `EDGEPOOL_MAX_SIZE` the default one's, and
`EDGEPOOL_REPORTS_MAX_SIZE` that of the pool which is called `reports`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from inspect import signature
from typing import Any, Final

from .. import ConnectionPool
from ..psycopg._arguments import PREFIX, arguments_in, blamed, completed, dsn_of
from ..psycopg._dsn_parameters import did_you_mean

DEFAULT: Final = "default"

ARGUMENTS: Final = tuple(signature(ConnectionPool).parameters)

# Where most applications have these already.
USUAL: Final = {"DATABASE_URL": "conninfo", "DIRECT_URL": "direct_conninfo"}

WHERE: Final = "in app.config"


def keys_of(name: str) -> dict[str, str]:
    """Return the keys that a pool reads, each with the argument that it sets."""
    prefix = PREFIX if name == DEFAULT else f"{PREFIX}{name.upper()}_"
    keys = {f"{prefix}{argument.upper()}": argument for argument in ARGUMENTS}
    return {**USUAL, **keys} if name == DEFAULT else keys


def unclaimed(config: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return the keys that are meant for a pool, and that none of the known ones is."""
    return [key for key in config if key.startswith(PREFIX) and key not in known]


def refuse_unknown(config: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key that no pool can read, whichever will be added.

    Raises:
        ValueError: names the key, and one that is like it.
    """
    for key in unclaimed(config, known):
        if not key.endswith(tuple(f"_{argument.upper()}" for argument in ARGUMENTS)):
            raise unknown(key, known)


def unknown(key: str, known: Collection[str]) -> ValueError:
    """Return the error for a key that no pool reads."""
    hint = did_you_mean(key, known, PREFIX)
    return ValueError(f"{key} {WHERE} is not an argument of a pool{hint}")


def make_pool(
    pool_class: type[ConnectionPool[Any]],
    config: Mapping[str, Any],
    keys: Mapping[str, str],
    given: Mapping[str, Any],
    name: str,
) -> ConnectionPool[Any]:
    """Make a pool: what the call gave wins, then the configuration, then the DSN.

    Args:
        pool_class: the class.
        config: the application's configuration.
        keys: those of the pool, each with the argument that it sets.
        given: the arguments in the call.
        name: of the pool, if nothing else says it.

    Raises:
        ValueError, TypeError: an argument cannot be, or there is no conninfo; names the
            key.
    """
    found, origins = arguments_in(config, keys, WHERE)
    conninfo = {**found, **given}.get("conninfo")
    if conninfo is None:
        missing = " or ".join(k for k, a in keys.items() if a == "conninfo")
        raise ValueError(f"there is no address of a database: set {missing} {WHERE}")
    try:
        dsn = dsn_of(conninfo)
    except (TypeError, ValueError) as error:
        if "conninfo" in given:
            raise
        raise type(error)(f"{error} ({origins['conninfo']})") from None

    arguments = {"name": name, **dsn.arguments, **found}
    with blamed({**dsn.origins, **origins}, given):
        return pool_class(**completed(pool_class.__init__, arguments, given))
