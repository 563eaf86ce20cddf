"""What the settings of a database mean to a pool.

Pure functions, but for the look at another of `DATABASES`, if one is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from .. import ConnectionPool
from ..psycopg._dsn_django import database_named, led_there

Settings = Mapping[str, Any]

# psycopg_pool's default, and so that of Django's pool.
MAX_SIZE: Final = 4

NAMES: Final = {
    "dbname": "NAME",
    "user": "USER",
    "password": "PASSWORD",
    "host": "HOST",
    "port": "PORT",
}

# What a pool is made from.
MATTERS: Final = (*NAMES.values(), "TIME_ZONE", "CONN_HEALTH_CHECKS")


def wants_pool(settings: Settings) -> bool:
    """Tell whether there is to be a pool: unless it is switched off."""
    return settings["OPTIONS"].get("pool", True) not in (None, False)


def matter(settings: Settings) -> dict[str, Any]:
    """Return what a pool is made from, to be compared with what is there later."""
    options = dict(settings["OPTIONS"])
    pool: Any = options.get("pool")
    if isinstance(pool, Mapping):
        options["pool"] = {**pool}
    return {"OPTIONS": options, **{name: settings.get(name) for name in MATTERS}}


def must_not_persist(settings: Settings) -> None:
    """Refuse connections that Django would keep: it is the pool that keeps them."""
    age = settings.get("CONN_MAX_AGE", 0)
    if age != 0:
        raise ImproperlyConfigured(
            "Pooling doesn't support persistent connections. CONN_MAX_AGE must be 0,"
            f" not {age!r}: then a connection goes back to the pool at the end of each"
            " request, and is kept there"
        )


def pool_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments that the settings give, and the defaults for Django."""
    given = settings["OPTIONS"].get("pool", True)
    if given is None or isinstance(given, bool):
        given = {}
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(
            "OPTIONS['pool'] must be True, False or a dictionary of the pool's"
            f" arguments, not {given!r}"
        )
    if "open" in given:
        raise ImproperlyConfigured(
            "OPTIONS['pool'] has no argument 'open': the first query opens the pool"
        )
    arguments: dict[str, Any] = {"min_size": 0, **given}
    if arguments.get("max_size") is None:
        least = arguments["min_size"]
        # A number may be a string, as one from the environment is.
        arguments["max_size"] = MAX_SIZE if str(least) == "0" else least
    return arguments


def direct_alias(settings: Settings) -> str | None:
    """Return the alias of which `OPTIONS["direct"]` is the name; None: it is none.

    Raises:
        ImproperlyConfigured: there is no such database, or it leads nowhere.
    """
    direct = settings["OPTIONS"].get("direct")
    try:
        named = database_named(direct, connections.settings)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None
    return None if named is None else direct


def past_pooler(settings: Settings) -> dict[str, Any]:
    """Return the settings with `OPTIONS["direct"]` in the place of the address.

    An address that is written down may be a part of one; that of another database is
    all of it, with who connects there.

    Raises:
        ImproperlyConfigured: it is no address.
    """
    options = dict(settings["OPTIONS"])
    direct = options.pop("direct", None)
    if direct is None:
        return dict(settings)
    if (alias := direct_alias(settings)) is not None:
        return led_there(settings, connections.settings[alias])
    try:
        pool = ConnectionPool({"ENGINE": "", "OPTIONS": {"direct": direct}})
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None
    address: dict[str, Any] = {}
    for name, value in pool.direct_conninfo.items():
        if name in NAMES:
            address[NAMES[name]] = value
        else:
            options[name] = value
    return {**settings, **address, "OPTIONS": options}
