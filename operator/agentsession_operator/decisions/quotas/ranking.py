"""Things in the order of a key that changes: a heap that keeps outdated entries until they come up.

A change and the first few in order cost the logarithm of the number of things, not the number.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound="tuple[Any, ...]")

_SLACK: Final = 64
"""Outdated entries that are not worth a new heap."""


class Ranking(Generic[K, T]):
    """No two things may ever have the same key."""

    def __init__(self) -> None:
        self._keys: dict[T, K] = {}
        self._heap: list[tuple[K, T]] = []

    def __contains__(self, item: object) -> bool:
        return item in self._keys

    def __iter__(self) -> Iterator[T]:
        """In any order."""
        return iter(self._keys)

    def put(self, item: T, key: K | None) -> None:
        """The key of a thing is this now; None takes it out."""
        if key == self._keys.get(item):
            return
        if key is None:
            del self._keys[item]
        else:
            self._keys[item] = key
            heapq.heappush(self._heap, (key, item))
        if len(self._heap) > 2 * len(self._keys) + _SLACK:
            self._heap = [(key, item) for item, key in self._keys.items()]
            heapq.heapify(self._heap)

    def first(self) -> T | None:
        """The thing with the least key."""
        while self._heap and self._is_outdated(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def in_order(self) -> Iterator[tuple[K, T]]:
        """Keys and things, the least key first. Nothing may change meanwhile. Those that are not taken cost nothing."""
        heap = self._heap
        ahead = [(heap[0], 0)] if heap else []  # children come up when their parent has
        last: K | None = None
        while ahead:
            (key, item), place = heapq.heappop(ahead)
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(ahead, (heap[child], child))
            if key != last and not self._is_outdated(key, item):  # a key that came back is in the heap twice
                last = key
                yield key, item

    def _is_outdated(self, key: K, item: T) -> bool:
        return self._keys.get(item) != key
