"""The dynamic shrinker: memory pressure that reaches into zswap (SPEC 5.5), with the arithmetic of mm/shrinker.c.

It is off unless ``shrinker_enabled`` is Y, and runs as a part of ordinary reclaim.  How much it scans depends on how
hard reclaim tries (the priority), on how well the data compresses (good data looks small), and on how many pages had to
be read back from the device since the last time (each one protects an entry).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uzswap.core.boundary.engine import COUNTERS, STOP_ON_EXIST
from uzswap.reclaim.writeback import Request
from uzswap.units import NO_LIMIT, PAGE_SIZE

if TYPE_CHECKING:
    from uzswap.cgroup.memcg import MemCgroup
    from uzswap.reclaim.state import ReclaimState

__all__ = ["DynamicShrinker", "freeable"]

SHRINK_BATCH: Final = 128  # include/linux/shrinker.h, entries
DEFAULT_SEEKS: Final = 2  # include/linux/shrinker.h

_ZSWAP: Final = COUNTERS.index("zswap")
_ZSWAPPED: Final = COUNTERS.index("zswapped")


def freeable(length: int, swapins: int, backing: int, stored: int) -> tuple[int, int]:
    """Return what counts as freeable, and how many swap-ins that uses up (SPEC 5.5).

    Parameters
    ----------
    length
        Of the LRU, in entries.
    swapins
        Pages read from the device since the last time.
    backing, stored
        Pages that the cgroup's entries take up in zswap, and pages that they hold.

    >>> freeable(1000, 200, 250, 1000), freeable(1000, 1500, 250, 1000)
    ((200, 200), (0, 1000))
    """
    used_up = min(swapins, length)
    return (length - used_up) * backing // stored if stored else 0, used_up


class DynamicShrinker:
    """The shrinker of one engine.  Several threads may shrink at once."""

    def __init__(self, state: ReclaimState) -> None:
        self._state = state
        #: scans that were due but not made, by (cgroup id, node)
        self._nr_deferred: dict[tuple[int, int], int] = {}
        state.tree.on_remove.append(self._forget)

    def _forget(self, removed: MemCgroup) -> None:
        for node in range(self._state.nodes):
            self._nr_deferred.pop((removed.id, node), None)

    def count(self, memcg: MemCgroup, node: int) -> int:
        """zswap_shrinker_count(): uses up the swap-ins that it takes into account."""
        state, core = self._state, self._state.core
        if not state.shrinker_enabled or not state.has_device or not core.writeback_allowed(memcg.index):
            return 0
        counters = core.counters(memcg.index)
        backing, stored = counters[_ZSWAP] // PAGE_SIZE, counters[_ZSWAPPED] // PAGE_SIZE
        if not stored:
            return 0
        length = core.lru_len(memcg.index, node)
        _, used_up = freeable(length, core.nr_disk_swapins(memcg.index, node), backing, stored)
        used_up = core.take_disk_swapins(memcg.index, node, used_up)
        return freeable(length, used_up, backing, stored)[0]

    def shrink(self, memcg: MemCgroup, priority: int) -> int:
        """Shrink one cgroup as hard as ``priority`` says (12 lightest, 0 hardest); return the entries written."""
        return sum(self._shrink_node(memcg, node, priority) for node in range(self._state.nodes))

    def _shrink_node(self, memcg: MemCgroup, node: int, priority: int) -> int:
        """do_shrink_slab()"""
        count = self.count(memcg, node)
        if count == 0:
            return 0
        deferred = self._nr_deferred.pop((memcg.id, node), 0)
        delta = (count >> priority) * 4 // DEFAULT_SEEKS
        total_scan = min((deferred >> priority) + delta, 2 * count)
        scanned = written = 0
        with Request(self._state, memcg, descendants=False) as request:
            while total_scan >= SHRINK_BATCH or total_scan >= count:
                nr_to_scan = min(SHRINK_BATCH, total_scan)
                batch = request.walk_one(memcg, node, nr_to_scan, NO_LIMIT, flags=STOP_ON_EXIST)
                if batch.scanned == 0 or batch.stopped or request.trouble() or request.interrupted():
                    break
                written += batch.entries
                total_scan -= nr_to_scan
                scanned += nr_to_scan
        self._nr_deferred[memcg.id, node] = min(max(deferred + delta - scanned, 0), 2 * count)
        return written
