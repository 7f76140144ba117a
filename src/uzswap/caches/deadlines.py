"""Which key's time comes first: a binary heap in which each deadline knows its place, so that it can be moved.

All operations take O(log n) steps, and there is never more in it than there are keys: a key that is set again and again
leaves nothing behind that would have to be swept up later.  The module is compiled (setup.py, ``UNTORN``), and neither
code of keys nor the garbage collector runs while the heap is out of order, so it needs no lock.
"""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K")


class _Deadline:
    __slots__ = ("at", "key", "place")

    def __init__(self, key: Any, at: float) -> None:
        self.key = key
        self.at = at
        self.place = -1  # in the heap; -1 when it is not there


class Deadlines(Generic[K]):
    """Keys and the times at which each of them expires; a key that is not in it never does."""

    def __init__(self) -> None:
        self._by_key: dict[K, _Deadline] = {}
        self._heap: list[_Deadline] = []

    def __len__(self) -> int:
        return len(self._heap)

    def get(self, key: K) -> float:
        """Return when a key expires; infinity when it does not."""
        one = self._by_key.get(key)
        return math.inf if one is None else one.at

    def set(self, key: K, at: float) -> None:
        """Set or move a deadline; infinity removes it."""
        if at == math.inf:
            self.remove(key)
            return
        new = _Deadline(key, at)
        one = self._by_key.setdefault(key, new)
        one.at = at
        if one.place < 0:
            one.place = len(self._heap)
            self._heap.append(one)
        _up(self._heap, one)
        _down(self._heap, one)

    def remove(self, key: K) -> None:
        """Remove a deadline, if there is one."""
        one = self._by_key.pop(key, None)
        if one is None:
            return
        last = self._heap.pop()
        if last is not one:
            last.place = one.place
            self._heap[last.place] = last
            _up(self._heap, last)
            _down(self._heap, last)
        one.place = -1

    def first(self) -> tuple[K, float] | None:
        """Return the key whose time comes first, and when; None when there is none."""
        if not self._heap:
            return None
        one = self._heap[0]
        return one.key, one.at

    def check(self) -> list[str]:
        """Return what is wrong, in words."""
        wrong = [f"{one.key!r} is not in its place" for i, one in enumerate(self._heap) if one.place != i]
        wrong += [
            f"{one.key!r} comes before its parent"
            for i, one in enumerate(self._heap)
            if i and one.at < self._heap[(i - 1) // 2].at
        ]
        if len(self._by_key) != len(self._heap):
            wrong.append(f"{len(self._by_key)} keys have {len(self._heap)} deadlines")
        return wrong


def _up(heap: list[_Deadline], one: _Deadline) -> None:
    place = one.place
    while place > 0:
        above = heap[(place - 1) // 2]
        if above.at <= one.at:
            break
        heap[place] = above
        above.place = place
        place = (place - 1) // 2
    heap[place] = one
    one.place = place


def _down(heap: list[_Deadline], one: _Deadline) -> None:
    place, end = one.place, len(heap)
    while True:
        child = 2 * place + 1
        if child >= end:
            break
        if child + 1 < end and heap[child + 1].at < heap[child].at:
            child += 1
        below = heap[child]
        if one.at <= below.at:
            break
        heap[place] = below
        below.place = place
        place = child
    heap[place] = one
    one.place = place
