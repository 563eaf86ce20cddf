"""System checks: what in the settings cannot be, and what is probably not meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.validation import BaseDatabaseValidation
from django.db.backends.postgresql.base import DatabaseWrapper as Stock

from ._settings import NAMES, must_not_persist, past_pooler, pool_arguments, wants_pool


def check_databases(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the settings of all databases."""
    found: list[CheckMessage] = []
    for alias in connections:
        connection = connections[alias]
        if isinstance(connection.validation, DatabaseValidation):
            found += _problems(connection)
        elif isinstance(connection, Stock):
            found += _not_ours(connection)
    return found


class DatabaseValidation(BaseDatabaseValidation):
    """What is checked with `--database`, as by `migrate`, also without the app."""

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Check the settings of one database."""
        if apps.is_installed("edgepool.django"):
            return []  # the app's check does it
        return list(_problems(self.connection))


def _problems(connection: Any) -> Iterator[CheckMessage]:
    settings = connection.settings_dict
    where = f"DATABASES[{connection.alias!r}]"
    try:
        if wants_pool(settings):
            must_not_persist(settings)
    except ImproperlyConfigured as error:
        yield Error(
            f"{where}: {error}.",
            hint="For persistent connections without a pool, set OPTIONS['pool'] to"
            " False.",
            id="edgepool.E001",
        )
    try:
        connection.make_pool()
    except ImproperlyConfigured as error:
        hint = HINTS["direct" if "OPTIONS['direct']" in str(error) else "pool"]
        end = "" if str(error).endswith("?") else "."
        yield Error(f"{error}{end}", hint=hint, id="edgepool.E002")
        return

    options = settings["OPTIONS"]
    shares = pool_arguments(settings).get("pooler") == "transaction"
    if options.get("direct") is None:
        if shares:
            yield Warning(
                f"{where}: there is a pooler in front of the database, and no way past"
                " it: migrate, dbshell and test go through it.",
                hint="Set OPTIONS['direct'] to the address of the database itself.",
                id="edgepool.W001",
            )
    elif _address(past_pooler(settings), shares) == _address(settings, shares):
        yield Warning(
            f"{where}: OPTIONS['direct'] is the address that the database has anyhow.",
            hint="Set it to the address of the database itself, past the pooler, or to"
            " the alias of one that leads there; without a pooler, leave it out.",
            id="edgepool.W002",
        )
    if shares and options.get("assume_role"):
        yield Warning(
            f"{where}: OPTIONS['assume_role'] sets the role of a session, and behind"
            " this pooler the next transaction has another one.",
            hint="Connect as that role, or take a pooler in session mode.",
            id="edgepool.W003",
        )


HINTS = {
    "pool": "OPTIONS['pool'] takes the arguments of edgepool.ConnectionPool, and the"
    " rest of OPTIONS libpq's parameters.",
    "direct": "OPTIONS['direct'] takes a connection string, a dictionary, or the alias"
    " of another of DATABASES.",
}


def _address(settings: Mapping[str, Any], by_pooler: bool) -> list[str]:
    # A pooler that shares sessions is not past itself, whoever comes.
    names = ("NAME", "HOST", "PORT") if by_pooler else NAMES.values()
    found = [settings.get(name) for name in names]
    found += [settings["OPTIONS"].get(name) for name in ("service", "hostaddr")]
    return [str(value or "") for value in found]


def _not_ours(connection: Any) -> Iterator[CheckMessage]:
    if "direct" in connection.settings_dict["OPTIONS"]:
        yield Error(
            f"DATABASES[{connection.alias!r}]: OPTIONS['direct'] is known to edgepool"
            f" only, and ENGINE is {connection.settings_dict['ENGINE']!r}.",
            hint="Set ENGINE to 'edgepool.django' or 'edgepool.django.postgis'.",
            id="edgepool.E003",
        )
