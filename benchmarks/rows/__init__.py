"""The rows of the speed table, one module per group; ``ALL`` is their order."""

from ..model import Row
from . import (
    burst,
    engine,
    footprint,
    hygiene,
    liveness,
    load,
    overhead,
    overload,
    recovery,
    waiters,
)

ALL: tuple[Row, ...] = (
    *overhead.ROWS,
    *engine.ROWS,
    *liveness.ROWS,
    *hygiene.ROWS,
    *load.ROWS,
    *burst.ROWS,
    *waiters.ROWS,
    *recovery.ROWS,
    *overload.ROWS,
    *footprint.ROWS,
)
