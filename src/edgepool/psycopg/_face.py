"""What the psycopg pools show beyond the pools of anything: psycopg_pool's face."""

# pyright: reportPrivateUsage=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from weakref import WeakSet, ref

from typing_extensions import Self

from .._core import (
    NEVER,
    PROBE_AFTER,
    RENEWAL,
    STAGGER,
    Nested,
    PoolStatistics,
    Settings,
    whole,
)
from .._face import A, Face
from ._arguments import arguments_from, blamed, dsn_of, validate_direct
from ._snapshot import C

if TYPE_CHECKING:
    from ._adapter_base import CommonAdapter
    from ._guard import Found

Cls = TypeVar("Cls", bound=type)

log = logging.getLogger("edgepool.connect")

# psycopg_pool's default. A pool with another number of workers means to open so many
# connections at the same time.
NUM_WORKERS = 3
MAX_CONNECTING = 10

# What libraries and tests read of psycopg_pool's insides, though it is private.
READ_BY_OTHERS: dict[str, Callable[[Any], object]] = {
    "_closed": lambda pool: pool.closed,
    "_nconns": lambda pool: pool._engine.statistics().size,
    "_pool": lambda pool: [e.resource for e in pool._engine.core.idle_entries()],
    "_waiting": lambda pool: pool._engine.core.waiters(),
}


def own_engine(cls: Cls) -> Cls:
    """Replace each method that a class would inherit from psycopg_pool.

    Being a psycopg_pool class is for `isinstance` and for type checkers; its engine
    must never run beside ours. What a pool does not override itself is internal to that
    engine, and says so when it is called.
    """
    for name, read in READ_BY_OTHERS.items():
        setattr(cls, name, property(read))
    callables = (property, staticmethod, classmethod, type(own_engine))
    for base in cls.__mro__:
        if base.__module__.split(".")[0] != "psycopg_pool":
            continue
        for name, value in vars(base).items():
            inherited = _lookup(cls, name) is value
            if inherited and isinstance(value, callables):
                setattr(cls, name, _not_ours(name))
    return cls


def _lookup(cls: type, name: str) -> object:
    return next(vars(c)[name] for c in cls.__mro__ if name in vars(c))


def _not_ours(name: str) -> Callable[..., NoReturn]:
    def not_ours(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"{name} is internal to psycopg_pool's engine; edgepool has its own"
        )

    return not_ours


class PsycopgFace(Face[C, A]):
    """The part of a psycopg pool that neither waits nor works."""

    close_returns: bool
    direct_conninfo: Any

    _engine: Any  # the driver of either colour
    _adapter: CommonAdapter[C]
    _check: Any  # Django's own tests read it
    _keep_idle = True
    # Whether others may use a connection while it is being returned: threads may.
    _is_shared = True
    # What is in the way of direct connections, and which way that is.
    _direct_found: tuple[object, Found] | None = None

    def _set_up_psycopg(
        self,
        adapter: A,
        *,
        min_size: int,
        max_size: int | None,
        open: bool | None,
        check: object,
        reset: object,
        name: str | None,
        close_returns: bool,
        timeout: float,
        max_waiting: int,
        max_lifetime: float,
        max_idle: float,
        reconnect_timeout: float,
        reconnect_failed: Callable[[Any], object] | None,
        num_workers: int,
        max_connecting: int | None,
        check_after: float,
        nested: Nested,
        track_borrows: bool,
        shed_target: float | None,
        shed_interval: float,
        direct_conninfo: Any,
    ) -> None:
        whole("num_workers", num_workers, 1)
        self._adapter = cast("CommonAdapter[C]", adapter)
        self._check = check
        # Whether an idle connection that comes back needs no reset.
        self._returns_clean = reset is None
        validate_direct(direct_conninfo)
        self.direct_conninfo = direct_conninfo
        self._listeners: WeakSet[Any] = WeakSet()
        self.close_returns = close_returns
        self.num_workers = num_workers
        if max_connecting is None:
            changed = num_workers != NUM_WORKERS
            max_connecting = num_workers if changed else MAX_CONNECTING
        sizes = self._sizes(min_size, max_size)
        settings = Settings(
            min_size=sizes[0],
            max_size=sizes[1],
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            max_connecting=max_connecting,
            # Without a check, and without a wish to keep idle connections proven, the
            # probe is all that happens before a borrow.
            check_after=check_after if check or check_after else NEVER,
            probe_after=PROBE_AFTER,
            stagger=STAGGER,
            renewal=RENEWAL,
            reconnect_timeout=reconnect_timeout,
            nested=nested,
            shed_target=shed_target,
            shed_interval=shed_interval,
            keep_idle=self._keep_idle,
        )
        self._adapter.pool = ref(self)
        self._set_up(adapter, settings, open, name, reconnect_failed, track_borrows)
        self._forget_popped()

    # --- what connects ------------------------------------------------------------

    @classmethod
    def from_env(
        cls,
        variable: str = "DATABASE_URL",
        *,
        direct: str | None = None,
        environ: Mapping[str, str] | None = None,
        **arguments: Any,
    ) -> Self:
        """Make a pool as the environment has it.

        `EDGEPOOL_MAX_SIZE`, `EDGEPOOL_TIMEOUT` and so on are arguments of the pool: all
        that can be written down. Those that this call gives win, then the variables,
        then what the DSN says, then the defaults. A variable that is empty counts as
        not set.

        Args:
            variable: the variable that holds the DSN.
            direct: the one that holds `direct_conninfo`. Default: `DIRECT_URL`, if it
                is set.
            environ: the variables. Default: those of the process.
            arguments: as for the constructor, but for `conninfo`.

        Raises:
            ValueError: one of the two variables is not set; an `EDGEPOOL_` variable is
                no argument, or cannot be one; or what the constructor raises.
        """
        init = cls.__init__
        where = os.environ if environ is None else environ
        dsn, found, origins = arguments_from(init, variable, direct, where, arguments)
        with blamed(origins, arguments):
            return cast("Self", cast("Any", cls)(dsn, **found))

    @property
    def conninfo(self) -> Any:
        """The DSN, or what gives it; used from now on, but for arguments in it."""
        return self._adapter.conninfo

    @conninfo.setter
    def conninfo(self, value: Any) -> None:
        self._adapter.lead_to(value)
        dsn = dsn_of(value)
        if dsn.arguments:
            log.warning(
                "%s: no effect in another conninfo, give it to the pool: %s",
                self.name,
                ", ".join(dsn.origins.values()),
            )

    @property
    def kwargs(self) -> Any:
        """The arguments of `connect`, or what gives them; used from now on."""
        return self._adapter.kwargs

    @kwargs.setter
    def kwargs(self, value: Any) -> None:
        self._adapter.kwargs = value

    @property
    def connection_class(self) -> type[C]:
        """The class whose `connect` is called from now on."""
        return self._adapter.connection_class

    @connection_class.setter
    def connection_class(self, value: type[C]) -> None:
        self._adapter.connection_class = value

    def _stop_listeners(self) -> None:
        for listener in list(self._listeners):
            listener._stop()

    # --- statistics ---------------------------------------------------------------

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the pool."""
        pooler = self._adapter.detection.pooler
        return self._driver.statistics()._replace(pooler=pooler.mode)

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's numbers: gauges, and counters that are not 0.

        Times are in milliseconds. `statistics` has more, and in seconds.
        """
        if self._popped_of is not self._driver.core:  # a forked child counts anew
            self._forget_popped()
        s = self._driver.statistics()
        stats: dict[str, int] = {}
        for key, value in _counters(s).items():
            if count := int(value - self._popped.get(key, 0)):
                stats[key] = count
        stats["pool_min"] = self.min_size
        stats["pool_max"] = self.max_size
        stats["pool_size"] = s.size
        stats["pool_available"] = s.idle
        stats["requests_waiting"] = s.waiting
        return stats

    def _forget_popped(self) -> None:
        # What `pop_stats` has reported so far, and of which core.
        self._popped: dict[str, float] = {}
        self._popped_of = self._driver.core

    def pop_stats(self) -> dict[str, int]:
        """Return psycopg_pool's numbers, and begin to count anew."""
        stats = self.get_stats()
        for key, value in stats.items():
            self._popped[key] = self._popped.get(key, 0) + value
        return stats


def _counters(s: PoolStatistics) -> dict[str, float]:
    return {
        "requests_num": s.requests,
        "requests_queued": s.requests_queued,
        "requests_wait_ms": s.wait_time * 1000,
        "requests_errors": s.requests_errors,
        "usage_ms": s.usage_time * 1000,
        "returns_bad": s.bad_returns,
        "connections_num": s.connects,
        "connections_ms": s.connect_time * 1000,
        "connections_errors": s.connect_errors,
        "connections_lost": s.lost,
    }
