"""What reclaim frees goes back to the system.

The memory of objects is the C library's, which keeps what it is given back: below its threshold for blocks of their
own, which grows up to 32 MiB as such blocks are freed, all lies in one heap, and that ends where the last block in use
does.  200 MB of values, packed and written to the disk, left RSS 100 to 130 MB above where it had been.  So the heap is
trimmed (``malloc_trim``) when stores hold so much less than before that it shows: by a sixteenth of RSS.

That alone is enough: RSS is back within 2 MB for blocks of 80 KB and more, and ``M_MMAP_THRESHOLD`` fixed at 128 KiB
gains nothing beside.  It is a setting of a program that is somebody else's, and dear: temporary arrays of 1 MB take 10
times as long with it, 5 times with an ``M_TRIM_THRESHOLD`` of 1 MiB (8 MB: 3 and 2 times; 2 cores, 2026-11).

A steady state is left alone: where what goes out makes room for what comes in, the fall is made up before it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from uzswap.core.boundary import heap
from uzswap.process import resident_set

__all__ = ["HeapTrim"]

#: Of RSS: how far it may stay above what is needed.  A trim costs most where the heap is large and full of holes: 5 ms
#: in 200 MB with a hole of a page or more in every 12 KB (2 cores, 2026-11), so at most a tenth of the 13 MB evicted
#: for it.
SHARE: Final = 16
#: Bytes: what is below does not show, and is not worth asking for RSS.
LEAST: Final = 1 << 20


class HeapTrim:
    """When the heap is trimmed for one engine: a context manager around what swaps objects out, in any thread.

    No lock: threads that notice the same fall trim twice, and the second finds nothing.  It is to be left
    without any lock of ours, since others may wait for the heap with theirs.

    Parameters
    ----------
    held
        Returns the bytes of the engine's objects that are resident now; arrays have memory of their own, and count not.
    """

    def __init__(self, held: Callable[[], int]) -> None:
        self._held = held
        #: most that was held since the last trim, as far as was looked
        self._peak = 0

    def __enter__(self) -> None:
        """Note what there is before something goes."""
        self._peak = max(self._peak, self._held())

    def __exit__(self, *exception: object) -> None:
        """Trim the heap if so much has gone since the last time that it shows."""
        held = self._held()
        fallen = self._peak - held
        if fallen >= LEAST and fallen * SHARE >= resident_set():
            self._peak = held
            heap.trim()

    def after(self, freed: int) -> None:
        """A request has ended, which has freed so many bytes in steps: what of it was too little goes back as well.

        Else up to a sixteenth of RSS would stay: 5 MiB after 50 of 1000-byte values.
        """
        held = self._held()
        if self._peak - held >= LEAST and freed * SHARE >= resident_set():
            self._peak = held
            heap.trim()

    @staticmethod
    def trim() -> None:
        """Trim the heap now: for the end of an engine."""
        heap.trim()
