"""A heap of deadlines with O(1) removal: what is removed is only marked.

Most deadlines never come: the waiter is served, the check returns. The marked ones are
swept out when they are more than half, which keeps the cost per deadline constant and
leaks nothing (asyncio does the same with its timers, at three times the memory).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")

# Below this many it is not worth sweeping (asyncio's figure is 100).
SWEEP_FROM = 64

# [when, number, item]: a list, because lists compare without a call of ours, and a
# heap does little else. The number decides between equals. No item: removed, or due.
Deadline: TypeAlias = list[Any]


class Deadlines(Generic[T]):
    """Items with a moment each; the caller brings the time."""

    __slots__ = ("_heap", "_numbers", "_removed")

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._numbers = count()
        self._removed = 0

    def add(self, when: float, item: T) -> Deadline:
        """Put an item in; keep the result to `remove` it."""
        deadline = [when, next(self._numbers), item]
        heappush(self._heap, deadline)
        return deadline

    def remove(self, deadline: Deadline) -> bool:
        """Take an item out; False if it was due or removed before."""
        if deadline[2] is None:
            return False
        deadline[2] = None
        self._removed += 1
        if self._removed > SWEEP_FROM and self._removed * 2 > len(self._heap):
            self._heap = [d for d in self._heap if d[2] is not None]
            heapify(self._heap)
            self._removed = 0
        return True

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Take out all items of a kind."""
        for deadline in self._heap:
            if deadline[2] is not None and unwanted(deadline[2]):
                deadline[2] = None
                self._removed += 1

    def due(self, now: float) -> list[T]:
        """Take out all items whose moment has come, in order."""
        items: list[T] = []
        while self.next <= now:
            deadline = heappop(self._heap)
            items.append(deadline[2])
            deadline[2] = None
        return items

    @property
    def first(self) -> T | None:
        """The item whose moment comes first, without taking it out."""
        return self._heap[0][2] if self.next < float("inf") else None

    def take_first(self) -> None:
        """Take out what `first` gives."""
        heappop(self._heap)[2] = None

    @property
    def next(self) -> float:
        """The next moment at which `due` gives something; infinity if there is none."""
        heap = self._heap
        while heap and heap[0][2] is None:
            heappop(heap)
            self._removed -= 1
        when: float = heap[0][0] if heap else float("inf")
        return when
