"""One of Django's databases, as parameters of libpq and arguments of a pool."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ._dsn import NOT_LIBPQ, must_be_libpqs, parameters_of, parse
from ._dsn_parameters import ARGUMENTS, Taken, did_you_mean, is_mapping, with_options

# Backends of other databases. There are too many for PostgreSQL to know them by name.
OTHERS: Final = re.compile(
    "mysql|mariadb|oracle|sqlite|spatialite|mssql|sql_server|mongo|snowflake|dummy",
    re.IGNORECASE,
)

NAMES: Final = {
    "NAME": "dbname",
    "USER": "user",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
}

# All that Django knows of a database.
SETTINGS: Final = (
    *("ENGINE", *NAMES, "OPTIONS", "TIME_ZONE", "TEST", "AUTOCOMMIT"),
    *("ATOMIC_REQUESTS", "CONN_MAX_AGE", "CONN_HEALTH_CHECKS"),
    "DISABLE_SERVER_SIDE_CURSORS",
)

# In OPTIONS, what is made of a connection, wherever it leads.
USE: Final = ("isolation_level", "pool", "server_side_binding", *NOT_LIBPQ)

# psycopg.IsolationLevel
LEVELS: Final = {
    1: "read uncommitted",
    2: "read committed",
    3: "repeatable read",
    4: "serializable",
}

# Arguments of a pool that cannot be written down, but can be in a dictionary.
MORE_ARGUMENTS: Final = (
    *("check", "classify", "configure", "connection_class", "credentials"),
    "reconnect_failed",
)


class Found(NamedTuple):
    """What a database of Django's says."""

    parameters: dict[str, Any]
    arguments: dict[str, Any]
    origins: dict[str, str]


def from_django(given: Mapping[Any, Any]) -> Found:
    """Read one of Django's databases; of all of them, the default.

    Raises:
        ValueError: it is not one of PostgreSQL, or an entry cannot be.
    """
    databases: Mapping[Any, Any] = {}
    if is_mapping(default := given.get("default")):
        databases, given = given, default
    _must_be_postgresql(given)

    parameters: dict[str, Any] = {
        ours: given[theirs]
        for theirs, ours in NAMES.items()
        if given.get(theirs) not in (None, "")
    }
    if "NAME" in given and given["NAME"] is None:  # Django's way to say just this
        parameters["dbname"] = "postgres"
    options = _options(given)
    pool, direct = options.pop("pool", None), options.pop("direct", None)
    # psycopg's usual cursors bind on the server.
    options.pop("server_side_binding", None)
    settings = _settings(options, given.get("TIME_ZONE"))
    parameters = {**options, **parameters}
    if settings:
        parameters["options"] = with_options(options.get("options"), settings)
    arguments, origins = _arguments(pool)
    if direct is not None:
        named = database_named(direct, databases)
        arguments["direct_conninfo"] = (
            {**parameters, **_direct(direct)}
            if named is None
            else from_django(led_there(given, named)).parameters
        )
    return Found(parameters, arguments, origins)


def database_named(
    direct: object, databases: Mapping[Any, Any]
) -> Mapping[Any, Any] | None:
    """Return the database of which `OPTIONS["direct"]` is the alias; None: it is none.

    A connection string cannot be taken for an alias: it has a = or ://, or is empty.

    Args:
        direct: what the option says.
        databases: all of Django's databases; empty if there is only the one.

    Raises:
        ValueError: there is none of that alias, or it is not the end of the way.
    """
    if not isinstance(direct, str):
        return None
    if not is_mapping(named := databases.get(direct)):
        if not direct.strip() or "=" in direct or "://" in direct:
            return None
        # It is not shown: it may be an address with a password, badly written.
        raise ValueError(
            "OPTIONS['direct'] is neither a connection string nor the alias of another"
            " database"
            + (
                did_you_mean(direct, map(str, databases))
                if databases
                else "; for an alias, give all databases, as in settings.DATABASES"
            )
        )
    _must_be_postgresql(named, f"OPTIONS['direct'] is {direct!r}: ")
    theirs = _options(named).get("direct")
    if theirs == direct:
        raise ValueError(f"OPTIONS['direct'] of {direct!r} is {direct!r} itself")
    if theirs is not None:
        raise ValueError(
            f"OPTIONS['direct'] is {direct!r}, and that has an OPTIONS['direct'], too:"
            " name the database that leads to the server itself"
        )
    return named


def led_there(given: Mapping[Any, Any], named: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the settings of a database, to connect where, and as whom, another does.

    What is made of a connection stays as it is.
    """
    ours, theirs = _options(given), _options(named)
    options = {name: value for name, value in ours.items() if name in USE}
    options |= {name: value for name, value in theirs.items() if name not in USE}
    address = {name: named[name] for name in NAMES if name in named}
    elsewhere = {name: given[name] for name in given if name not in NAMES}
    return {**elsewhere, **address, "OPTIONS": options}


def _options(given: Mapping[Any, Any]) -> dict[str, Any]:
    return dict(given.get("OPTIONS") or {})


def _must_be_postgresql(given: Mapping[Any, Any], where: str = "") -> None:
    engine = str(given.get("ENGINE", ""))
    if OTHERS.search(engine):
        raise ValueError(f"{where}ENGINE is not a backend of PostgreSQL: {engine!r}")


def _direct(given: object) -> dict[str, Any]:
    """Read the way past an external pooler: a DSN in any form, as far as it differs."""
    try:
        if is_mapping(given):
            _must_be_known(given)
            must_be_libpqs(given)
        return parameters_of(parse(given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"OPTIONS['direct']: {error}") from None


def _must_be_known(given: Mapping[Any, Any]) -> None:
    """Refuse what neither Django nor libpq knows: nobody else would look at it."""
    for name in given:
        if str(name).isupper() and name not in SETTINGS:
            raise ValueError(f"no setting {name!r}{did_you_mean(name, SETTINGS)}")


def _settings(options: dict[str, Any], time_zone: object) -> dict[str, str]:
    """Take out of the options what Django would set once it is connected."""
    settings: dict[str, str] = {}
    if (level := options.pop("isolation_level", None)) is not None:
        if level not in LEVELS:
            raise ValueError(
                "isolation_level must be one of psycopg.IsolationLevel, 1 to 4,"
                f" not {level!r}"
            )
        settings["default_transaction_isolation"] = LEVELS[level]
    if role := options.pop("assume_role", None):
        settings["role"] = str(role)
    if time_zone:
        settings["TimeZone"] = str(time_zone)
    return settings


def _arguments(pool: object) -> tuple[dict[str, Any], dict[str, str]]:
    if not is_mapping(pool):  # True, which says no more than to have one
        return {}, {}
    known = {**ARGUMENTS, **dict.fromkeys(MORE_ARGUMENTS)}
    taken = Taken("in OPTIONS['pool']")
    arguments: dict[str, Any] = {}
    for name, value in pool.items():
        if name not in known:
            hint = did_you_mean(str(name), known)
            raise ValueError(f"OPTIONS['pool'] has no argument {name!r}{hint}")
        arguments[name] = taken.argument(name, name, value)
    return arguments, {name: taken.origin(name) for name in arguments}
