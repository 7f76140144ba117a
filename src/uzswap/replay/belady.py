"""The best that could have been: which pages to send away, where to, for a given loss of time, knowing the future.

Belady's rule is to send away what is needed again last.  Here memory has no fixed size, but a price: each gap between
two accesses of a page can be spent in memory, in zswap, or on the device.  Sending a page away as soon as it was used
saves its bytes for the whole gap, and costs one load at the end of it; after its last access it costs nothing.  So for
a given loss the gaps with the most bytes times seconds for a second of load are taken, longest first: the order of
Belady.  It is an upper bound: no time passes until a page is sent away, and the last gap is taken in part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Belady", "touched_weight"]


def touched_weight(pages: NDArray[np.int64], times: NDArray[np.float64], end: float) -> _Weight:
    """Return the weight of time: a byte that is saved counts by its share of the bytes of all pages touched so far."""
    _, first = np.unique(pages, return_index=True)
    return _Weight(np.sort(times[first]), end)


class _Weight:
    """The integral of 1 / (pages touched so far) over time."""

    def __init__(self, first: NDArray[np.float64], end: float) -> None:
        self._first = first
        self._count = np.arange(1, len(first) + 1)
        spans = np.diff(np.append(first, end)) / self._count
        self._sums = np.concatenate([[0.0], np.cumsum(spans)])

    def __call__(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        at = np.clip(np.searchsorted(self._first, times, side="right") - 1, 0, len(self._first) - 1)
        return self._sums[at] + (times - self._first[at]) / self._count[at]


@dataclass(frozen=True, slots=True)
class Belady:
    """Saved share by lost share, as a curve.  Shares as those of a replay."""

    lost: NDArray[np.float64]
    saved: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        pages: NDArray[np.int64],
        times: NDArray[np.float64],
        lengths: NDArray[np.int64],
        page: int,
        zswap_cost: float,
        disk_cost: NDArray[np.float64],
    ) -> Belady:
        """Work it out.

        Parameters
        ----------
        pages, times
            Accesses in order.
        lengths
            Compressed bytes of each page, by its number.
        page
            Bytes of a page.
        zswap_cost, disk_cost
            Seconds that a load takes; from the device for each access.
        """
        end = float(times[-1])
        order = np.lexsort((np.arange(len(pages)), pages))
        follows = pages[order][1:] == pages[order][:-1]
        following = np.full(len(pages), -1)
        following[order[:-1][follows]] = order[1:][follows]
        last = following < 0
        weight = touched_weight(pages, times, end)
        until = np.where(last, end, times[following])
        gap = weight(until) - weight(times)
        # The share of a gap that zswap saves, and that the device saves beyond it.
        packed = np.minimum(lengths[pages] / page, 1.0)
        by_zswap, by_disk = gap * (1 - packed), gap * packed
        again = ~last
        cost_zswap = np.full(int(again.sum()), zswap_cost)
        cost_disk = np.maximum(disk_cost[following[again]] - zswap_cost, 1e-12)
        gain_zswap, gain_disk = by_zswap[again], by_disk[again]
        # Where the second step pays better than the first they are one: it is then worth nothing to stop half-way.
        at_once = gain_disk * cost_zswap > gain_zswap * cost_disk
        gain_zswap = np.where(at_once, gain_zswap + gain_disk, gain_zswap)
        cost_first = np.where(at_once, cost_zswap + cost_disk, cost_zswap)
        gains = np.concatenate([gain_zswap, gain_disk[~at_once]])
        costs = np.concatenate([cost_first, cost_disk[~at_once]])
        worth = np.argsort(-gains / costs, kind="stable")
        span = max(end, 1e-12)
        saved = np.concatenate([[0.0], np.cumsum(gains[worth])]) + gap[last].sum()
        seconds = np.concatenate([[0.0], np.cumsum(costs[worth])])
        return cls(seconds / (span + seconds), np.minimum(saved / span, 1.0))

    def at(self, lost_share: float) -> float:
        """Return the best saved share for a lost share."""
        return float(np.interp(lost_share, self.lost, self.saved))
