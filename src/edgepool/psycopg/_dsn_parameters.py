"""The parameters of a DSN that are not libpq's: what each of them means.

Three kinds: a pool's own arguments, named `pool_...`; those of pgx, in Go, and those of
Prisma, as far as they mean something here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple, TypeGuard

# --- values ---------------------------------------------------------------------------

# Reads a value. Raises ValueError with what the value must be.
Reader = Callable[[str], Any]

YES: Final = ("true", "1", "yes", "on")
NO: Final = ("false", "0", "no", "off")

UNITS: Final = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "ns": 1e-9,
    # Go takes three letters for micro: Latin, the sign, Greek.
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
}
_SPAN: Final = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"


def whole(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError("a whole number")
    return int(text)


def seconds(text: str) -> float:
    """Read seconds; `inf` is without end."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number of seconds") from None


def patience(text: str) -> float:
    """Read Prisma's `socket_timeout`; the limit is that of `statement_timeout`."""
    number = seconds(text)
    if not 0 <= number <= 2_147_483:
        raise ValueError("a number of seconds from 0 to 2147483")
    return number


def limit(text: str) -> float:
    """Read seconds as Prisma does: 0 is no limit."""
    return seconds(text) or inf


def duration(text: str) -> float:
    """Read a duration as Go writes it."""
    if text in ("0", "+0", "-0"):
        return 0.0
    if not re.fullmatch(f"[+-]?(?:{_SPAN})+", text):
        raise ValueError("a duration such as 1h30m or 10s")
    total = sum(float(n) * UNITS[unit] for n, unit in re.findall(_SPAN, text))
    return -total if text.startswith("-") else total


def flag(text: str) -> bool:
    """Read true or false."""
    if text.lower() in YES:
        return True
    if text.lower() in NO:
        return False
    raise ValueError("true or false")


def or_none(reader: Reader) -> Reader:
    """Read what another reader reads, or `none`."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else reader(text)

    return read


def acceptance(text: str) -> str:
    """Read Prisma's `sslaccept`."""
    if text not in ("strict", "accept_invalid_certs"):
        raise ValueError("'strict' or 'accept_invalid_certs'")
    return text


# --- names ----------------------------------------------------------------------------

# The arguments of a pool that can be written down.
ARGUMENTS: Final[Mapping[str, Reader]] = {
    "min_size": whole,
    "max_size": or_none(whole),
    "open": or_none(flag),
    "reset": or_none(str),
    "name": str,
    "close_returns": flag,
    "timeout": seconds,
    "max_waiting": whole,
    "max_lifetime": seconds,
    "max_idle": seconds,
    "reconnect_timeout": seconds,
    "num_workers": whole,
    "max_connecting": or_none(whole),
    "check_after": seconds,
    "nested": str,
    "pooler": str,
    "role": str,
    "track_borrows": flag,
    "expire_with_credentials": flag,
    "shed_target": or_none(seconds),
    "shed_interval": seconds,
}

# Which argument a parameter sets, and how it is read.
PARAMETERS: Final[Mapping[str, tuple[str, Reader]]] = {
    **{f"pool_{name}": (name, reader) for name, reader in ARGUMENTS.items()},
    "pool_max_conns": ("max_size", whole),
    "pool_min_conns": ("min_size", whole),
    "pool_max_conn_lifetime": ("max_lifetime", duration),
    "pool_max_conn_idle_time": ("max_idle", duration),
    "connection_limit": ("max_size", whole),
    "max_connection_lifetime": ("max_lifetime", limit),
    "max_idle_connection_lifetime": ("max_idle", limit),
}

# What these ask for is done in any case, or has no counterpart.
WITHOUT_EFFECT: Final[Mapping[str, Reader]] = {
    "pool_health_check_period": duration,
    "pool_max_conn_lifetime_jitter": duration,
    "pool_min_idle_conns": whole,
}

# These are about the session.
TRANSLATED: Final[Mapping[str, Reader]] = {
    "pgbouncer": flag,
    "schema": str,
    "single_use_connections": flag,
    "socket_timeout": patience,
    "sslaccept": acceptance,
    "sslidentity": str,
    "statement_cache_size": whole,
}

# Where one of these is, the DSN was written for Prisma. That matters for two names that
# others have too, `pool_timeout` and `sslcert`; asyncpg has the last one as well.
PRISMAS: Final = {
    *("connection_limit", "max_connection_lifetime", "max_idle_connection_lifetime"),
    *(TRANSLATED.keys() - {"statement_cache_size"}),
}


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Tell whether something is a dictionary, of whatever."""
    return isinstance(value, Mapping)


def is_taken(name: str) -> bool:
    """Tell whether a parameter is not for libpq."""
    return name.startswith("pool_") or name in PARAMETERS or name in TRANSLATED


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return the end of an error about a name: the one that is like it, if any."""
    from difflib import get_close_matches  # imported for an error only

    # What all have in common would make them alike.
    rests = [known.removeprefix(prefix) for known in names]
    close = get_close_matches(name.removeprefix(prefix), rests, n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


HIDDEN: Final = "not shown, for an @ follows: is it a password that is not escaped?"


@dataclass(repr=False)
class Taken:
    """The parameters that were taken out of a DSN, and how to speak of them."""

    where: str
    may_show: bool = True
    """False: the values may be part of a password."""
    texts: dict[str, str] = field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return bool(self.texts)

    def add(self, name: str, text: str) -> None:
        """Take a parameter; the last of a name counts, as it does for libpq."""
        self.texts[name] = text

    def read(self, name: str, reader: Reader) -> Any:
        """Return a value, or raise an error that names the parameter."""
        text = self.texts[name]
        try:
            return reader(text)
        except ValueError as error:
            raise ValueError(
                f"{name} must be {error}, not {self._shown(text)}"
            ) from None

    def argument(self, name: str, argument: str, value: object) -> Any:
        """Take an argument of whatever type, and return it; a text is read."""
        self.add(name, str(value))
        written = isinstance(value, str) and argument in ARGUMENTS
        return self.read(name, ARGUMENTS[argument]) if written else value

    def origin(self, name: str) -> str:
        """Return what an error about the argument is to say in addition."""
        value = f"={self.texts[name]}" if self.may_show else ""
        return f"{name}{value} {self.where}"

    def unknown(self, name: str) -> ValueError:
        """Return the error for a name that looks like one of ours, and is not."""
        if not self.may_show:
            return ValueError(
                f"a name that begins with pool_ is no parameter of the pool ({HIDDEN})"
            )
        known = [n for n in (*PARAMETERS, *WITHOUT_EFFECT) if n.startswith("pool_")]
        hint = did_you_mean(name, known, "pool_")
        return ValueError(f"{name} is not a parameter of the pool{hint}")

    def _shown(self, text: str) -> str:
        return repr(text) if self.may_show else f"what it is ({HIDDEN})"


class Translation(NamedTuple):
    """What the parameters that were taken out come to."""

    arguments: dict[str, Any]
    origins: dict[str, str]
    connect: dict[str, Any]
    # Parameters of libpq that are to be set, or to be left out.
    changes: dict[str, str | None]
    pooler: str | None


def translate(taken: Taken, libpq: Mapping[str, str]) -> Translation:
    """Say in the words of the pool and of libpq what only others understand.

    Args:
        taken: the parameters that are not libpq's.
        libpq: those that are.

    Raises:
        ValueError: a value cannot be read, two are about the same, or a name that
            begins with `pool_` is none.
    """
    arguments: dict[str, Any] = {}
    sources: dict[str, str] = {}
    values: dict[str, Any] = {}
    prismas = not PRISMAS.isdisjoint(taken.texts)
    for name in taken.texts:
        if name in PARAMETERS:
            argument, reader = PARAMETERS[name]
            if prismas and name == "pool_timeout":
                reader = limit
            value = taken.read(name, reader)
        elif name in TRANSLATED:
            values[name] = value = taken.read(name, TRANSLATED[name])
            if name != "single_use_connections" or not value:
                continue
            argument, value = "max_lifetime", 0.0
        elif name in WITHOUT_EFFECT:
            taken.read(name, WITHOUT_EFFECT[name])
            continue
        else:
            raise taken.unknown(name)
        if argument in arguments:
            raise ValueError(f"{sources[argument]} and {name} both set {argument}")
        arguments[argument], sources[argument] = value, name

    # Nothing is to be prepared; other sizes are psycopg's own business.
    unprepared = values.get("statement_cache_size") == 0
    return Translation(
        arguments,
        {argument: taken.origin(name) for argument, name in sources.items()},
        {"prepare_threshold": None} if unprepared else {},
        {**_tls(values, libpq, prismas), **_options(values, libpq)},
        "transaction" if values.get("pgbouncer") else None,
    )


def _tls(
    values: Mapping[str, Any], libpq: Mapping[str, str], prismas: bool
) -> dict[str, str | None]:
    if "sslidentity" in values:
        raise ValueError(
            "sslidentity names a PKCS #12 file, which libpq cannot read:"
            " convert it to PEM, and give sslcert and sslkey"
        )
    changes: dict[str, str | None] = {}
    root = libpq.get("sslrootcert")
    if prismas and "sslcert" in libpq and root is None and "sslkey" not in libpq:
        # Prisma's name for the certificate of the server's authority.
        root = libpq["sslcert"]
        changes["sslcert"] = None
    if values.get("sslaccept") != "strict":
        # A root certificate would have libpq verify.
        return changes
    mode = libpq.get("sslmode", "prefer")
    if mode in ("allow", "prefer", "require"):
        mode = changes["sslmode"] = "verify-full"
    if mode.startswith("verify-"):
        changes["sslrootcert"] = root or "system"
    return changes


def _options(
    values: Mapping[str, Any], libpq: Mapping[str, str]
) -> dict[str, str | None]:
    settings: dict[str, str] = {}
    schema = values.get("schema", "")
    # Behind a pooler Prisma's own default has to do without: it may refuse the startup
    # parameter, and "public" is in the path anyhow.
    if schema and not (schema == "public" and values.get("pgbouncer")):
        name = schema.replace('"', '""')
        settings["search_path"] = f'"{name}"'
    if wait := values.get("socket_timeout"):
        settings["statement_timeout"] = f"{wait * 1000:.0f}"
    return {"options": with_options(libpq.get("options"), settings)} if settings else {}


def with_options(options: str | None, settings: Mapping[str, str]) -> str:
    """Return libpq's `options` with settings of the session added.

    Those that are there already come last, and win.
    """
    escape = {ord(c): f"\\{c}" for c in "\\ \t\n\r\f\v"}
    texts = [f"-c {name}={v.translate(escape)}" for name, v in settings.items()]
    return " ".join([*texts, *([options] if options else [])])
