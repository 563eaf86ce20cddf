"""How flows, which await, handle the resources of threads, which block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .._adapter import Adapter
from .base import RoundTrip

T = TypeVar("T")


class Blocking(Generic[T]):
    """A blocking adapter in the shape that flows await. It never suspends."""

    def __init__(self, adapter: Adapter[T]) -> None:
        self._adapter = adapter
        self.is_clean = adapter.is_clean
        self.configure = self._optional(getattr(adapter, "configure", None))
        self.cancel = self._optional(getattr(adapter, "cancel", None))

    async def connect(self) -> T:
        return self._adapter.connect()

    async def check(self, resource: T, /) -> None:
        self._adapter.check(resource)

    async def reset(self, resource: T, /) -> bool:
        return self._adapter.reset(resource)

    async def close(self, resource: T, /) -> None:
        self._adapter.close(resource)

    @staticmethod
    def _optional(method: Callable[[T], None] | None) -> RoundTrip[T] | None:
        """Give a method that only some adapters have, in the shape of the others."""
        if method is None:
            return None

        async def blocking(resource: T, /) -> None:
            method(resource)

        return blocking
