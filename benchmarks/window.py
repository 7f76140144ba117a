"""A file mapping that is not allowed more page cache than a budget.

A limit of a cgroup (v2, memory.max) would do this in the kernel, but takes root, a machine whose memory controller is
there, and a process of its own.  Here the least recently used pages are given back by madvise and posix_fadvise as
soon as more than the budget is in use.  Which these are is worked out in advance, so only the giving back takes time.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.reference import PAGE

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

#: Pages given back at once, as the kernel reclaims them (SWAP_CLUSTER_MAX of include/linux/swap.h).
BATCH = 32

#: Pages of the largest folio that readahead makes: a part of one cannot be given back (2 MiB, PMD_ORDER).
FOLIO = 512

_libc = ctypes.CDLL(None, use_errno=True)


class Window:
    """The pages of a mapping that are in memory, least recently used first."""

    def __init__(self, mapped: np.memmap[Any, Any], path: str, budget: int) -> None:
        self.address, self.nbytes = mapped.ctypes.data, mapped.nbytes
        self.map: mmap.mmap = getattr(mapped, "_mmap")  # noqa: B009  numpy does not declare it
        self.fd: int = os.open(path, os.O_RDWR)  # numpy has closed its own
        self.room = budget // PAGE
        self.used: OrderedDict[int, None] = OrderedDict()
        self.dirty: set[int] = set()
        self.advice: int | None = None
        #: before step -> (pages, whether they have to be written) to give back
        self.plan: dict[int, list[tuple[range, bool]]] = {}

    def expect(self, order: NDArray[np.intp], pages: int, *, dirty: bool) -> None:
        """Plan for an access to each of these pieces of so many pages, in this order."""
        advice = mmap.MADV_RANDOM if pages == 1 else mmap.MADV_NORMAL
        if advice != self.advice:
            self.map.madvise(advice)
            self.advice = advice
            self._empty()
        self.plan = {}
        for step, piece in enumerate(order.tolist()):
            touched = range(piece * pages, (piece + 1) * pages)
            new = sum(page not in self.used for page in touched)
            if new and len(self.used) + new > self.room:
                self.plan[step] = list(self._give_back(max(new, BATCH), touched))
            for page in touched:
                self.used[page] = None
                self.used.move_to_end(page)
            if dirty:
                self.dirty.update(touched)

    def _empty(self) -> None:
        """Give back everything: single pages could not be taken from what was brought for blocks."""
        self.map.flush()
        self.map.madvise(mmap.MADV_DONTNEED)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        self.used.clear()
        self.dirty.clear()

    def _give_back(self, count: int, keep: Iterable[int]) -> Iterator[tuple[range, bool]]:
        """The runs of the oldest pages."""
        for page in keep:
            if page in self.used:
                self.used.move_to_end(page)
        oldest = sorted(self.used.popitem(last=False)[0] for _ in range(min(count, len(self.used))))
        first = 0
        for at in range(1, len(oldest) + 1):
            if at == len(oldest) or oldest[at] != oldest[at - 1] + 1:
                run = range(oldest[first], oldest[at - 1] + 1)
                yield self._whole(run), not self.dirty.isdisjoint(run)
                self.dirty.difference_update(run)
                first = at

    def _whole(self, run: range) -> range:
        """The run, with the beginning of its first folio where that went before and could not be given back alone."""
        start = run.start // FOLIO * FOLIO
        part = range(start, run.start)
        return range(start, run.stop) if len(run) > 1 and not any(page in self.used for page in part) else run

    def slide(self, step: int) -> None:
        """Give back what has to go before a step of the plan."""
        for pages, dirty in self.plan.get(step, ()):
            start, length = pages.start * PAGE, len(pages) * PAGE
            if dirty:
                self.map.flush(start, length)
            self.map.madvise(mmap.MADV_DONTNEED, start, length)
            os.posix_fadvise(self.fd, start, length, os.POSIX_FADV_DONTNEED)

    def start_writing(self, start: int, length: int) -> None:
        """Have the kernel write what was modified, and do not wait: as its own writeback would begin early."""
        os.posix_fadvise(self.fd, start, length, os.POSIX_FADV_DONTNEED)

    def in_page_cache(self) -> int:
        """Bytes of the file that are in memory, whoever has brought them there."""
        vector = np.zeros(self.nbytes // PAGE, np.uint8)
        address, to = ctypes.c_void_p(self.address), ctypes.c_void_p(vector.ctypes.data)
        if _libc.mincore(address, ctypes.c_size_t(self.nbytes), to) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        return int(np.count_nonzero(vector & 1)) * PAGE

    def close(self) -> None:
        os.close(self.fd)
