"""Pages that somebody wants to stay resident, counted: ranges may nest and overlap."""

from __future__ import annotations

from collections import defaultdict

from uzswap.locks import Order, make_lock

__all__ = ["Kept"]


class Kept:
    """The ranges of pages that are kept, by area.  May be used from any thread."""

    def __init__(self) -> None:
        self.lock = make_lock(Order.KEPT)
        self._ranges: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)

    def add(self, area: int, first: int, end: int) -> None:
        """Note one more who keeps pages first .. end - 1; called with the lock."""
        self._ranges[area].append((first, end))

    def remove(self, area: int, first: int, end: int) -> list[tuple[int, int]]:
        """Undo :meth:`add` and return the parts that nobody else keeps; called with the lock.

        >>> kept = Kept()
        >>> for pages in ((0, 10), (4, 6), (8, 20)):
        ...     kept.add(1, *pages)
        >>> kept.remove(1, 0, 10)
        [(0, 4), (6, 8)]
        >>> kept.remove(1, 4, 6), kept.remove(1, 8, 20)
        ([(4, 6)], [(8, 20)])
        """
        ranges = self._ranges[area]
        ranges.remove((first, end))
        if not ranges:
            del self._ranges[area]
        free = []
        at = first
        for begin, until in sorted(ranges):
            if begin >= end:
                break
            if begin > at:
                free.append((at, begin))
            at = max(at, until)
        if at < end:
            free.append((at, end))
        return free
