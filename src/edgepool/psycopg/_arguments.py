"""Where a pool's arguments come from: the call, the environment, the DSN.

In this order: the first that has one wins. The rest are the signature's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, Final, TypeVar, cast

from ._dsn import Dsn, parse
from ._dsn_parameters import ARGUMENTS, Taken, did_you_mean

PREFIX: Final = "EDGEPOOL_"

Init = TypeVar("Init", bound=Callable[..., None])


def takes_dsn(init: Init) -> Init:
    """Let a constructor's DSN hold arguments; those that the call gives win.

    A decorator, since only the call tells what was given and what is a default.
    """

    @wraps(init)
    def with_dsn(self: Any, *args: Any, **given: Any) -> None:
        dsn = dsn_of(args[0] if args else given.get("conninfo"))
        with blamed(dsn.origins, given):
            init(self, *args, **completed(init, dsn.arguments, given))

    return cast("Init", with_dsn)


def dsn_of(conninfo: object) -> Dsn:
    """Read a DSN, unless it is only known when connecting."""
    return Dsn() if callable(conninfo) else parse(conninfo)


def validate_direct(conninfo: object) -> None:
    """Refuse a direct DSN that cannot be; what it says of a pool is not used."""
    try:
        dsn_of(conninfo)
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"direct_conninfo: {error}") from None


def arguments_from(
    init: Callable[..., None],
    variable: str,
    direct: str | None,
    environ: Mapping[str, str],
    given: Mapping[str, Any],
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Return the DSN, the arguments and their origins, as the environment has them.

    Raises:
        ValueError: a variable is missing, is unknown or cannot be read.
    """
    conninfo = _variable(environ, variable)
    dsn = parse(conninfo)
    read, origins = _read(environ)
    found = {**dsn.arguments, **read}
    if direct is not None:
        found["direct_conninfo"] = _variable(environ, direct)
    elif url := environ.get("DIRECT_URL", "").strip():
        found["direct_conninfo"] = url
    return conninfo, completed(init, found, given), {**dsn.origins, **origins}


def _variable(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {name} is not set")
    if not value.strip():
        raise ValueError(f"the environment variable {name} is empty")
    return value.strip()


def _read(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    names = {f"{PREFIX}{name.upper()}": name for name in ARGUMENTS}
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and text and variable not in names:
            hint = did_you_mean(variable, names, PREFIX)
            raise ValueError(f"{variable} is not an argument of the pool{hint}")
    return arguments_in(environ, names, "in the environment")


def arguments_in(
    config: Mapping[str, Any], names: Mapping[str, str], where: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the arguments in a configuration, and their origins.

    Texts are read, other values are taken as they are. None and the empty text count as
    not set.

    Args:
        config: the configuration, with whatever else is in it.
        names: of each key the argument that it sets; the last key of an argument wins.
        where: how an error calls the configuration.

    Raises:
        ValueError: a text cannot be read; names the key.
    """
    taken = Taken(where)
    arguments: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, name in names.items():
        value = config.get(key)
        if value is None or value == "":
            continue
        arguments[name] = taken.argument(key, name, value)
        # What cannot be written down may hold a secret.
        origins[name] = taken.origin(key) if name in ARGUMENTS else f"{key} {where}"
    return arguments, origins


def completed(
    init: Callable[..., None], found: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what was found, then given; a bound that was found bounds min_size."""
    arguments = {**found, **given}
    least = signature(init).parameters.get("min_size")
    most = None if "max_size" in given else arguments.get("max_size")
    # What is no number is refused by the constructor.
    bound = isinstance(most, int) and least is not None and 0 < most < least.default
    if bound and "min_size" not in arguments:
        arguments["min_size"] = most
    return arguments


@contextmanager
def blamed(
    origins: Mapping[str, str], given: Mapping[str, Any]
) -> Generator[None, None, None]:
    """Say of an argument that is refused where it was set, if not in the call."""
    try:
        yield
    except (TypeError, ValueError) as error:
        words = re.findall(r"\w+", str(error))
        found = [o for a, o in origins.items() if a in words and a not in given]
        if not found:
            raise
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{error} ({', '.join(found)})") from None
