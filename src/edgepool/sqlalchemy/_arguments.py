"""What the arguments of `create_engine` are for edgepool."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

from sqlalchemy.pool.base import _ConnectionRecord

from ..psycopg._dsn import parameters_of, parse

# Of QueuePool.
POOL_SIZE: Final = 5
MAX_OVERFLOW: Final = 10

# What the engine says already, or has no use for; and how it is said.
ELSEWHERE: Final = {
    "conninfo": "the engine's URL says where to connect",
    "kwargs": "the engine's connect_args are the arguments of a connect",
    "open": "the pool opens at the first use, and dispose() closes it",
    "close_returns": "the engine returns its connections by itself",
    "num_workers": "max_connecting is what edgepool has",
}

# The module of the creator that SQLAlchemy makes of a URL and connect_args.
SQLALCHEMYS: Final = "sqlalchemy.engine.create"


# QueuePool's words, and edgepool's for the same.
WORDS: Final = {
    "pool_size": "max_size",
    "max_overflow": "max_size",
    "pool_timeout": "timeout",
}


def arguments_of_pool(
    said: Mapping[str, Any],
    recycle: object,
    given: Mapping[str, Any],
    in_url: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """Return `pool_size`, and the arguments of edgepool's pool.

    Args:
        said: in QueuePool's words.
        recycle: the age at which connections are replaced; -1: none.
        given: in edgepool's words.
        in_url: the same, but found in the URL: what is given wins.

    Raises:
        TypeError: one is no number.
        ValueError: one is given in both words, or is out of range.
    """
    must_be_edgepools(given)
    for word in said:
        if WORDS[word] in given:
            raise ValueError(
                f"{word} and {WORDS[word]} say the same, or not: give one of them"
            )
    arguments = {"min_size": 0, **without(in_url, said), **given}
    if "pool_timeout" in said:
        arguments["timeout"] = said["pool_timeout"]
    if not isinstance(recycle, (int, float)):
        raise TypeError(f"pool_recycle must be a number, not {recycle!r}")
    if recycle > 0:
        # Ahead of it, and the idle ones too.
        arguments.setdefault("max_lifetime", recycle)
    if (most := arguments.get("max_size")) is not None:
        return most, arguments
    pool_size, overflow = (
        _at_least(least, word, said.get(word, default))
        for least, word, default in (
            (1, "pool_size", POOL_SIZE),
            (0, "max_overflow", MAX_OVERFLOW),
        )
    )
    most = arguments["max_size"] = pool_size + overflow
    least = arguments["min_size"]
    if isinstance(least, int) and least > most:
        raise ValueError(
            f"min_size must be at most pool_size + max_overflow ({most}), not {least}"
        )
    return pool_size, arguments


def _at_least(least: int, word: str, size: object) -> int:
    if not isinstance(size, int):
        raise TypeError(f"{word} must be a whole number, not {size!r}")
    if size < least:
        raise ValueError(
            f"{word} must be at least {least}, not {size}: edgepool has a limit"
        )
    return size


def without(arguments: Mapping[str, Any], said: Iterable[str]) -> dict[str, Any]:
    """Return arguments but for those that are said in QueuePool's words."""
    known = {WORDS.get(word) for word in said}
    return {name: value for name, value in arguments.items() if name not in known}


def must_be_edgepools(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of a pool that the engine has other words for.

    Raises:
        ValueError: one is given; says which, and what to give.
    """
    for name, instead in ELSEWHERE.items():
        if name in arguments:
            raise ValueError(f"{name} is not for the pool of an engine: {instead}")


def must_be_warmest_first(use_lifo: bool | None) -> None:
    """Refuse another order of the idle connections than there is."""
    if use_lifo is False:
        raise ValueError(
            "pool_use_lifo must be True, not False: edgepool lends the connection"
            " that was used last, so that the others can be closed"
        )


def must_be_unsaid(said: Mapping[str, object]) -> None:
    """Refuse what would change a pool that others use too."""
    for name, value in said.items():
        raise ValueError(
            f"{name} is the business of the pool that was given as edge, and cannot"
            f" be set to {value!r} here"
        )


def must_be_psycopg(dialect: Any) -> None:
    """Refuse a URL of another driver."""
    name = f"{dialect.name}+{dialect.driver}"
    if name != "postgresql+psycopg":
        raise ValueError(
            "edgepool's connections are psycopg's: the URL must begin with"
            f" postgresql+psycopg://, not {name}://"
        )


def must_be_sqlalchemys(creator: object) -> None:
    """Refuse a creator of the user's."""
    ours = creator is None or isinstance(creator, ConnectArguments)
    if not ours and getattr(creator, "__module__", None) != SQLALCHEMYS:
        raise ValueError(
            "creator has no effect, for edgepool opens the connections: give"
            " connect_args, credentials or a do_connect listener; and instead of"
            " creator=pool.getconn, edge=pool"
        )


class _Told(NamedTuple):
    """What SQLAlchemy would call psycopg's `connect` with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def _tell(*args: Any, **kwargs: Any) -> _Told:
    return _Told(args, kwargs)


class ConnectArguments:
    """Gives the arguments of each connect, as a DSN of edgepool's.

    They come from the URL and `connect_args`, and the engine's `do_connect` listeners
    may change them. SQLAlchemy keeps them to itself: it only calls `dialect.connect`
    with them. So that is replaced, in this engine's own dialect.

    Attributes:
        unchanged: the arguments, before any listener has seen them.
    """

    def __init__(self, dialect: Any, creator: Callable[..., Any]) -> None:
        dialect.connect = _tell
        self._creator = creator
        # Nobody is connecting yet, so no listener is to be called.
        listened = dialect._has_events
        dialect._has_events = False
        self.unchanged = self()
        dialect._has_events = listened

    def __call__(self) -> dict[str, Any]:
        """Ask for the arguments of a connect.

        Raises:
            TypeError: a listener gave a connection instead.
        """
        # A listener may keep something in a record. But there is no connection yet that
        # it could go with.
        told: object = self._creator(_ConnectionRecord(cast("Any", None), False))
        if not isinstance(told, _Told):
            raise TypeError(
                "a do_connect listener may change the arguments of a connect, but"
                f" edgepool opens the connection, and the listener gave {told!r}"
            )
        conninfo = told.args[0] if told.args else ""
        return {**parameters_of(parse(conninfo)), **told.kwargs}
