"""A URL of SQLAlchemy's, as libpq's URI: the server is the same for any driver."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

# Other than in libpq, a password may hold slashes, and a user an `@`.
USERINFO: Final = re.compile(r"([^:/]*)(?::([^@]*))?@")

# A host with a port, in the query. Not a path, not an IPv6 address.
HOST_AND_PORT: Final = re.compile(r"([A-Za-z0-9.-]*):([0-9]*)")

# What asyncpg calls sslmode has these values too.
SSL: Final = {"true": "require", "false": "disable"}


def from_sqlalchemy(driver: str, rest: str) -> str:
    """Return libpq's URI for what follows `postgresql+driver://`."""
    user = ""
    if userinfo := USERINFO.match(rest):
        rest = rest[userinfo.end() :]
        parts = [quote(unquote(p), safe="") for p in userinfo.groups() if p is not None]
        user = ":".join(parts) + "@"
    place, _, query = rest.partition("?")
    # Here a plus is a space, and a value may hold an equals sign.
    pairs = parse_qsl(query, keep_blank_values=True)
    if driver == "asyncpg":
        pairs = [_from_asyncpg(name, value) for name, value in pairs]
    texts = [f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in _one_host(pairs)]
    return f"postgresql://{user}{place}" + (f"?{'&'.join(texts)}" if texts else "")


def _from_asyncpg(name: str, value: str) -> tuple[str, str]:
    if name == "ssl":
        return "sslmode", SSL.get(value.lower(), value)
    if name == "prepared_statement_cache_size":
        return "statement_cache_size", value
    return name, value


def _one_host(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Make of `host=a:1&host=b:2` what libpq understands: a host and a port, listed."""
    hosts = [value for name, value in pairs if name == "host"]
    split = [HOST_AND_PORT.fullmatch(host) for host in hosts]
    if len(hosts) < 2 and not any(split):
        return pairs
    names = [m[1] if m else host for m, host in zip(split, hosts, strict=True)]
    ports = [m[2] if m else "" for m in split]
    others = [(name, value) for name, value in pairs if name != "host"]
    found = [("host", ",".join(names))]
    if any(ports):
        found.append(("port", ",".join(ports)))
    return [*others, *found]
