"""A heap of deadlines with O(1) removal: what is removed is only marked.

Most deadlines never come: the waiter is served, the check returns. The marked ones are
swept out when they are more than half, which keeps the cost per deadline constant and
leaks nothing (asyncio does the same with its timers, at three times the memory).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")

# Below this many it is not worth sweeping (asyncio's figure is 100).
SWEEP_FROM = 64


class Deadline(Generic[T]):
    """A place in the heap. `item` is None once it is removed or due."""

    __slots__ = ("item", "when")

    def __init__(self, when: float, item: T) -> None:
        self.when = when
        self.item: T | None = item

    def __lt__(self, other: Deadline[T]) -> bool:
        return self.when < other.when


class Deadlines(Generic[T]):
    """Items with a moment each; the caller brings the time."""

    __slots__ = ("_heap", "_removed")

    def __init__(self) -> None:
        self._heap: list[Deadline[T]] = []
        self._removed = 0

    def add(self, when: float, item: T) -> Deadline[T]:
        """Put an item in; keep the result to `remove` it."""
        deadline = Deadline(when, item)
        heappush(self._heap, deadline)
        return deadline

    def remove(self, deadline: Deadline[T]) -> bool:
        """Take an item out; False if it was due or removed before."""
        if deadline.item is None:
            return False
        deadline.item = None
        self._removed += 1
        if self._removed > SWEEP_FROM and self._removed * 2 > len(self._heap):
            self._heap = [d for d in self._heap if d.item is not None]
            heapify(self._heap)
            self._removed = 0
        return True

    def due(self, now: float) -> list[T]:
        """Take out all items whose moment has come, in order."""
        items: list[T] = []
        heap = self._heap
        while heap and (heap[0].item is None or heap[0].when <= now):
            deadline = heappop(heap)
            if deadline.item is None:
                self._removed -= 1
            else:
                items.append(deadline.item)
                deadline.item = None
        return items

    @property
    def next(self) -> float:
        """The next moment at which `due` gives something; infinity if there is none."""
        heap = self._heap
        while heap and heap[0].item is None:
            heappop(heap)
            self._removed -= 1
        return heap[0].when if heap else float("inf")
