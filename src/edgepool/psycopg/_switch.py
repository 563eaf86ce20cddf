"""Move a pool to another address: there first, and only then away from here.

The first connections to the new address are those of a pool that is made for it. So
they are opened, configured, refused and given up as all connections are, and nothing of
the pool is changed unless all of them are there at the same time.
"""

# Private by name, but between a pool and its own:
# pyright: reportPrivateUsage=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._direct import akin, must_not_be_closed

if TYPE_CHECKING:
    from ._face import PsycopgFace

P = TypeVar("P", bound="PsycopgFace[Any, Any]")

log = logging.getLogger("edgepool.pool")


def scout(
    pool: PsycopgFace[Any, Any], make: Callable[..., P], conninfo: object, over: float
) -> P:
    """Make a pool for the first connections to another address: to wait for.

    They are as many as the pool has, but no more than it opens at the same time.

    Args:
        pool: which is to move.
        make: the class of the new one.
        conninfo: the address.
        over: what `drain` is to be given.

    Raises:
        ValueError, TypeError: it is no address, or not one for the pool's role; or
            `over` is out of range.
        PoolClosed: the pool was closed.
    """
    must_not_be_closed(pool)
    pool._must_be_finite(over)
    wanted = max(pool.min_size, pool.statistics().size, 1)
    size = min(wanted, pool.max_connecting)
    sizes = dict.fromkeys(("min_size", "max_size", "max_connecting"), size)
    return akin(pool, make, conninfo, name=f"{pool.name}-switch", **sizes)


def move(pool: PsycopgFace[Any, Any], conninfo: object, over: float) -> None:
    """Have the pool connect to an address from now on, and replace what it has."""
    must_not_be_closed(pool)
    pool.conninfo = conninfo
    log.info("%s: switched to another address", pool.name)
    pool._drain(over)
