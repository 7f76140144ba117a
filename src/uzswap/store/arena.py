"""Memory that large buffers come back into: the data of arrays, which pickle keeps apart from the rest.

What reclaim gave back to the system has to be had from it again, page by page: 1.6 us each, half as much again as all
the decompressing of an array (1 MiB of float64: 256 page faults beside 420 us).  Of huge pages the same takes 0.37 us
for each 4 KiB (virtio guest, Linux 6.18, 2026-11).  So buffers lie one after the other in *regions* of huge pages, and
what they had goes back the moment they go, whole or not: memory of a region is never used twice, so there are no free
lists, and nothing is kept.

A huge page counts as a whole once it is touched.  So the first buffers, :data:`EXACT_BYTES` of them, get ordinary
pages: a store of little arrays holds what they need, and one of many at most one huge page more.

A core dump has none of it, as of all that was stored.  Whoever calls has the GIL, which is all the locking there is.  A
forked child has copies of its own.
"""

from pickle import PickleBuffer

import cython
from cython.cimports.cpython.buffer import PyBuffer_FillInfo
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.uzswap.core.libc_ext import (
    MADV_HUGEPAGE,
    MADV_NOHUGEPAGE,
    madvise,
    munmap,
    uz_discard,
    uz_reserve,
)

# Bytes of buffers that are there before the first huge page is asked for: it is half of them at most (our choice).
EXACT_BYTES = cython.declare(cython.size_t, 2 * EXTENT_BYTES)
# A buffer from so many bytes on is a region of its own, of which what fills no huge page has ordinary ones.
ALONE_BYTES = cython.declare(cython.size_t, 2 * EXTENT_BYTES)
_PAGE_BYTES = cython.declare(cython.size_t, 4096)

_current = cython.declare(cython.pointer(Region), cython.NULL)
_live_bytes = cython.declare(cython.size_t, 0)


@cython.cfunc
@cython.exceptval(check=False)
def _region_new(room: cython.size_t) -> cython.pointer(Region):
    """NULL without memory."""
    region = cython.cast(cython.pointer(Region), malloc(cython.sizeof(Region)))
    if region == cython.NULL:
        return region
    extent: cython.size_t = EXTENT_BYTES
    address = cython.cast(cython.size_t, uz_reserve(room + extent))
    if address == 0:
        free(region)
        return cython.NULL
    region.mapping = cython.cast(cython.p_char, address)
    region.mapped = room + extent
    region.base = region.mapping + ((extent - (address & (extent - 1))) & (extent - 1))
    region.room = room
    region.used = region.live = 0
    return region


@cython.cfunc
@cython.exceptval(check=False)
def _take(region: cython.pointer(Region), nbytes: cython.size_t) -> cython.p_char:
    """So many bytes, whole pages, of a region that has room for them."""
    global _live_bytes
    extent: cython.size_t = EXTENT_BYTES
    data = region.base + region.used
    if _live_bytes >= EXACT_BYTES or nbytes >= ALONE_BYTES:
        # The extents that are begun with this buffer, and that are whole.
        first = (region.used + extent - 1) & ~(extent - 1)
        end = (region.used + nbytes + extent - 1) & ~(extent - 1)
        if end > region.room:
            end = region.room & ~(extent - 1)
        if first < end:
            madvise(region.base + first, end - first, MADV_HUGEPAGE)
    region.used += nbytes
    region.live += 1
    _live_bytes += nbytes
    return data


@cython.final
@cython.no_gc
@cython.cclass
class Memory:
    """Writable bytes of a fixed length, which are anything at first; they have the buffer protocol and little else."""

    def __cinit__(self, nbytes: cython.Py_ssize_t):
        global _current
        if nbytes < 0:
            raise ValueError(f"{nbytes} bytes: a buffer has 0 at least")
        self.nbytes = nbytes
        taken = (cython.cast(cython.size_t, nbytes) + _PAGE_BYTES - 1) & ~(_PAGE_BYTES - 1)
        if taken == 0:
            taken = _PAGE_BYTES
        region = _current
        if taken >= ALONE_BYTES:
            region = _region_new(taken)
        elif region == cython.NULL or region.room - region.used < taken:
            region = _region_new(REGION_BYTES)
            if region != cython.NULL:
                _current = region
        if region == cython.NULL:
            raise MemoryError(f"{nbytes} bytes for a buffer that is to be loaded can't be had from the system")
        self._region = region
        self._data = _take(region, taken)
        self._taken = taken

    def __dealloc__(self):
        global _current, _live_bytes
        region = self._region
        if region == cython.NULL:
            return
        _live_bytes -= self._taken
        region.live -= 1
        if region.live == 0:
            # With its page tables: where there are any of small pages, no huge one can be.
            if munmap(region.mapping, region.mapped) == 0:
                if region == _current:
                    _current = cython.NULL
                free(region)
                return
        # Or khugepaged would fill the holes again, of which it may be that 511 pages of 512 are.
        extent: cython.size_t = EXTENT_BYTES
        first = cython.cast(cython.size_t, self._data - region.base) & ~(extent - 1)
        end = (cython.cast(cython.size_t, self._data - region.base) + self._taken + extent - 1) & ~(extent - 1)
        if end > region.room:
            end = region.room
        madvise(region.base + first, end - first, MADV_NOHUGEPAGE)
        uz_discard(self._data, self._taken)

    def __getbuffer__(self, view: cython.pointer(Py_buffer), flags: cython.int):
        PyBuffer_FillInfo(view, self, self._data, self.nbytes, 0, flags)

    def __len__(self):
        return self.nbytes

    def __sizeof__(self):
        return object.__sizeof__(self) + self.nbytes

    def __reduce_ex__(self, protocol):
        return _same, (PickleBuffer(self) if protocol >= 5 else bytearray(self),)


def _same(memory):
    return memory


def arena_bytes():
    return _live_bytes
