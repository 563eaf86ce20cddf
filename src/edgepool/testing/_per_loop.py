"""One pool for each event loop, closed when its loop ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from edgepool import AsyncConnectionPool

Keeper: TypeAlias = AsyncGenerator[None, None]
P = TypeVar("P", bound="AsyncConnectionPool[Any]")


class PoolPerLoop(Generic[P]):
    """Gives a pool of its own to each event loop, and closes it when the loop ends.

    A pool belongs to the loop in which it was opened, and test suites have many. It is
    closed in its loop, when whoever runs that shuts it down (`asyncio.run`,
    `asyncio.Runner`, the plugins of pytest-asyncio and anyio, uvloop), or by `close`.

    Args:
        make: makes a pool; called in a loop that has none yet.

    Raises:
        TypeError: `make` is no function.

    Example:
        ```python
        pool_of_loop = PoolPerLoop(lambda: AsyncConnectionPool(conninfo))


        async def test_one():
            async with pool_of_loop().connection() as conn:
                ...
        ```
    """

    def __init__(self, make: Callable[[], P]) -> None:
        if not callable(make):
            raise TypeError(f"make must be a function, not {make!r}")
        self._make = make
        self._kept: dict[asyncio.AbstractEventLoop, tuple[P, Keeper]] = {}

    def __call__(self) -> P:
        """Return the pool of the running loop.

        Raises:
            RuntimeError: no loop is running.
        """
        loop = asyncio.get_running_loop()
        if loop not in self._kept:
            pool = self._make()
            keeper = self._keep(pool)
            # Begun in the loop, it is one of those that the loop ends when it does.
            begun = keeper.__anext__()
            with suppress(StopIteration):
                begun.send(None)
            self._kept[loop] = pool, keeper
        return self._kept[loop][0]

    async def _keep(self, pool: P) -> Keeper:
        try:
            yield
        finally:
            self._kept.pop(asyncio.get_running_loop(), None)
            await pool.close()

    def close(self) -> None:
        """Close the pools of loops that stand still. Those that have ended did it.

        Raises:
            RuntimeError: called in a loop that has a pool.
        """
        for loop, (_, keeper) in list(self._kept.items()):
            if loop.is_closed():
                del self._kept[loop]
            else:
                loop.run_until_complete(keeper.aclose())
