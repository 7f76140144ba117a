"""Pages that somebody wants to stay resident, counted: ranges may nest and overlap.

This module is compiled, so that no signal handler runs between two of its steps (setup.py, ``UNTORN``): an exception of
one leaves nothing kept that nobody lets go of.
"""

from __future__ import annotations

from collections import defaultdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from uzswap.condition import Regardless
from uzswap.core.boundary import handler as hook
from uzswap.errors import IntegrityError
from uzswap.locks import Order, make_lock
from uzswap.signals import let_handlers_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uzswap.core.boundary.memory import Memory

__all__ = ["Keeping", "Kept"]

#: Pages brought in between two looks for signals: 64 MiB, which takes a slow disk less than a second.
_AT_ONCE: Final = 1 << 14


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


class Keeping:
    """Brings pages of an area in and keeps them for the length of a block.

    Parameters
    ----------
    address
        Of the array, to find out whether it is still in this area at the end.
    first, end
        Pages of the area.
    array
        What the block gets.
    owner
        Path of the cgroup, for messages.
    """

    __slots__ = ("_address", "_area", "_array", "_end", "_first", "_kept", "_memory", "_owner")

    def __init__(
        self,
        kept: Kept,
        memory: Memory,
        address: int,
        area: int,
        first: int,
        end: int,
        array: NDArray[Any],
        owner: str,
    ) -> None:
        self._kept = kept
        self._memory = memory
        self._address = address
        self._area = area
        self._first = first
        self._end = end
        self._array = array
        self._owner = owner

    def __enter__(self) -> NDArray[Any]:
        with self._kept.lock:
            self._kept.add(self._area, self._first, self._end)
        try:
            for begin in range(self._first, self._end, _AT_ONCE):
                let_handlers_run()
                if self._memory.bring(self._area, begin, min(_AT_ONCE, self._end - begin), keep=True):
                    raise IntegrityError(f"a page of the array of {self._owner} could not be read back", self._owner)
        except BaseException:
            self._let_go()
            raise
        return self._array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        with Regardless(self._kept.lock):
            for begin, end in self._kept.remove(self._area, self._first, self._end):
                if hook.find(self._memory, self._address) == self._area:  # else it was reallocated meanwhile
                    self._memory.unkeep(self._area, begin, end - begin)
