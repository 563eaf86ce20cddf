"""Any DSN that an application has, as what libpq and the constructor of a pool take.

Pure functions. What is libpq's business passes through as it is, to the byte if it can;
only what libpq does not know is taken out, or said in libpq's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from ._dsn_parameters import Taken, did_you_mean, is_mapping, is_taken, translate

# Arguments of `connect` that psycopg keeps from libpq.
NOT_LIBPQ: Final = (
    "autocommit",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
)

SCHEME: Final = re.compile(r"([A-Za-z][\w+.-]*)://", re.ASCII)

# Names of PostgreSQL in URLs: libpq's two, and those of packages that read Django's
# database settings from a URL.
POSTGRESQL: Final = ("postgresql", "postgres", "pgsql", "psql", "postgis")

# src/interfaces/libpq/fe-connect.c, conninfo_uri_parse_options(): there is a user if
# there is an `@` before the first slash.
USERINFO: Final = re.compile("[^@/]*@")

# What `isspace` takes for one, in C; `str.strip` takes more.
BLANKS: Final = " \t\n\r\f\v"

# src/interfaces/libpq/fe-connect.c, conninfo_parse(): one `name = value`.
PAIR: Final = re.compile(
    r"\s*([^\s=]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.|\\\Z)+|\Z)",
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, repr=False)
class Dsn:
    """What a DSN says. It has no repr: there are passwords in it."""

    conninfo: str = ""
    """For libpq, and nothing that it does not know."""
    connect: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments of psycopg's `connect`."""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the pool's constructor."""
    origins: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of each argument, what set it, for an error."""
    pooler: str | None = None
    """The mode of the external pooler that it says is there."""


def parse(given: object) -> Dsn:
    """Read a DSN in any of its forms.

    Args:
        given: libpq's key/value string or URI, SQLAlchemy's URL, Prisma's or pgx's, or
            a dictionary: libpq's parameters, one of Django's databases, or all of them,
            of which the default is meant. None is the empty string.

    Raises:
        ValueError: it is not one of PostgreSQL, or what it says of the pool cannot be;
            no part of the error is a secret. What libpq may say is left to libpq.
        TypeError: it is something else.
    """
    if given is None:
        return Dsn()
    if isinstance(given, str):
        scheme = SCHEME.match(given)
        return _keywords(given) if scheme is None else _url(given, scheme)
    if not is_mapping(given):
        kind = type(given).__name__
        raise TypeError(f"conninfo must be a string, a dict or a function, not {kind}")
    if "default" in given or any(str(name).isupper() for name in given):
        # Imported when there is one.
        from ._dsn_django import from_django

        found = from_django(given)
        return _parameters(found.parameters, found.arguments, found.origins)
    return _parameters(given)


def parameters_of(dsn: Dsn) -> dict[str, Any]:
    """Return what a DSN says for libpq, by name.

    Raises:
        ValueError: libpq does not understand it.
    """
    try:
        return conninfo_to_dict(dsn.conninfo)
    except psycopg.Error:  # its text may show a part of a password
        raise ValueError("it is not a connection string") from None


def must_be_libpqs(parameters: Mapping[Any, Any]) -> None:
    """Refuse parameters that nobody knows, before libpq does so at the first connect.

    Raises:
        ValueError: there is one; says which, and which was meant.
    """
    known = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    for name, value in parameters.items():
        is_known = name in known or name in NOT_LIBPQ or is_taken(name)
        if not is_known and value is not None and not str(name).isupper():
            hint = did_you_mean(str(name), known)
            raise ValueError(f"libpq has no parameter {name!r}{hint}")


# --- URLs -----------------------------------------------------------------------------


def _url(url: str, scheme: re.Match[str]) -> Dsn:
    name, plus, driver = scheme[1].partition("+")
    if name.lower() not in POSTGRESQL:
        raise ValueError(_no_postgresql(name))
    if plus:
        # Imported when there is one.
        from ._dsn_sqlalchemy import from_sqlalchemy

        url = from_sqlalchemy(driver, url[scheme.end() :])
    elif name not in ("postgresql", "postgres"):
        url = f"postgresql://{url[scheme.end() :]}"

    start = url.index("://") + len("://")
    userinfo = USERINFO.match(url, start)
    split = url.find("?", start if userinfo is None else userinfo.end())
    if split < 0:
        return Dsn(url)
    head, query = url[:split], url[split + 1 :]

    # An `@` in here may be the end of a password that should have been escaped.
    taken = Taken("in the connection string", may_show="@" not in query)
    segments: list[tuple[str, str]] = []  # decoded name, text as it is
    libpq: dict[str, str] = {}
    for segment in query.split("&"):
        key, _, value = segment.partition("=")
        name = unquote(key)
        if is_taken(name):
            taken.add(name, unquote(value))
        else:
            segments.append((name, segment))
            libpq[name] = unquote(value)
    if not taken:
        return Dsn(url)

    found = translate(taken, libpq)
    texts = [text for name, text in segments if name not in found.changes]
    texts += [
        f"{name}={quote(value, safe='')}"
        for name, value in found.changes.items()
        if value is not None
    ]
    conninfo = f"{head}?{'&'.join(texts)}" if texts else head
    return Dsn(conninfo, found.connect, found.arguments, found.origins, found.pooler)


def _no_postgresql(scheme: str) -> str:
    if scheme.lower() == "prisma":
        return (
            "prisma:// is the address of Prisma Accelerate and not of a PostgreSQL"
            " server; give the database's own, which Prisma calls the direct URL"
        )
    return f"{scheme}:// is not the address of a PostgreSQL server: postgresql:// is"


# --- key/value strings and dictionaries -----------------------------------------------


def _keywords(text: str) -> Dsn:
    taken = Taken("in the connection string")
    libpq: dict[str, str] = {}
    at, end = 0, len(text.rstrip(BLANKS))
    while at < end:
        pair = PAIR.match(text, at)
        if pair is None:
            return Dsn(text)  # libpq says what is wrong with it
        at = pair.end()
        name, value = pair[1], _unquoted(pair[2])
        if is_taken(name):
            taken.add(name, value)
        else:
            libpq[name] = value
    if not taken:
        return Dsn(text)

    found = translate(taken, libpq)
    conninfo = _written({**libpq, **found.changes})
    return Dsn(conninfo, found.connect, found.arguments, found.origins, found.pooler)


def _parameters(
    parameters: Mapping[Any, Any],
    arguments: Mapping[str, Any] | None = None,
    origins: Mapping[str, str] | None = None,
) -> Dsn:
    taken = Taken("in the dictionary")
    connect: dict[str, Any] = {}
    libpq: dict[str, str] = {}
    for name, value in parameters.items():
        if not isinstance(name, str):
            kind = type(name).__name__
            raise TypeError(f"the names in a dictionary must be strings, not {kind}")
        if name in NOT_LIBPQ:
            connect[name] = value
        elif value is None:
            continue
        elif is_taken(name):
            taken.add(name, str(value))
        else:
            libpq[name] = str(value)

    found = translate(taken, libpq)
    return Dsn(
        _written({**libpq, **found.changes}),
        {**found.connect, **connect},
        {**found.arguments, **(arguments or {})},
        {**found.origins, **(origins or {})},
        found.pooler,
    )


def _unquoted(value: str) -> str:
    if value.startswith("'"):
        value = value[1:-1]
    return re.sub(r"\\(.|\Z)", r"\1", value, flags=re.DOTALL)


def _written(parameters: Mapping[str, str | None]) -> str:
    escape = str.maketrans({"\\": r"\\", "'": r"\'"})
    return " ".join(
        f"{name}='{value.translate(escape)}'"
        for name, value in parameters.items()
        if value is not None
    )
