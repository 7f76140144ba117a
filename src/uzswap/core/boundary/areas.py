"""Areas, one an array: what is done with their pages, and where these are: see memory.pyi."""

from collections import namedtuple

import cython
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.boundary.paged import Paged, pager_lock, pager_unlock, work_done
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_lock,
    pthread_mutex_unlock,
    strndup,
    uz_private,
    uz_private_free,
)
from cython.cimports.uzswap.core.paging.areas import area_new, leaf_end
from cython.cimports.uzswap.core.paging.gather import GATHER_BYTES, Gather, gather, scatter
from cython.cimports.uzswap.core.paging.page_in import KEEP
from cython.cimports.uzswap.core.paging.pagetable import (
    H_NORMAL,
    H_RANDOM,
    H_SEQUENTIAL,
    HOLD_PAGES,
    LABEL_BYTES,
    P_COMING,
    P_GOING,
    P_LOST,
    P_RESIDENT,
    PAGE_BYTES,
    Pager,
    address_of,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.ranges import (
    area_free,
    bring_range,
    cool_range,
    drop_range,
    evict_range,
    unkeep_range,
)
from cython.cimports.uzswap.core.store.entries import CLEAN, IN_POOL, ON_DISK

NORMAL, SEQUENTIAL, RANDOM = H_NORMAL, H_SEQUENTIAL, H_RANDOM

Place = namedtuple("Place", "address pages memcg")
AreaInfo = namedtuple("AreaInfo", "address pages memcg resident zswap disk zero lost clean_copies faults loads")


@cython.cclass
class Areas(Paged):
    def _range(self, p: cython.pointer(Pager), area: uint32_t, first: uint64_t, pages: uint64_t):
        if area >= p.next_area or not p.areas[area].used:
            raise ValueError(f"area {area} is not in use")
        if first > p.areas[area].pages or pages > p.areas[area].pages - first:
            raise ValueError(f"pages {first}..{first + pages} of area {area}, which has {p.areas[area].pages}")
        return p.areas[area].first + first

    def alloc(self, nbytes: uint64_t, memcg: uint32_t, item: uint8_t = 0):
        """Number and address of a new area of zeros."""
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            with cython.nogil:
                uz_enter(cython.address(p.gate))
                a = area_new(p, nbytes, memcg, item)
                uz_leave(cython.address(p.gate))
            if not a:
                raise MemoryError(f"no address space for an array of {nbytes} bytes")
            return a, cython.cast(cython.size_t, p.base) + p.areas[a].first * PAGE_BYTES
        finally:
            self._leave()

    def free(self, area: uint32_t):
        p = self._enter()
        try:
            self._range(p, area, 0, 0)
            with cython.nogil:
                uz_enter(cython.address(p.gate))
                area_free(p, area)
                uz_leave(cython.address(p.gate))
        finally:
            self._leave()

    def bring(self, area: uint32_t, first: uint64_t, pages: uint64_t, keep: cython.bint = False):
        """0, or -EIO when a page is lost."""
        p = self._enter()
        try:
            at: uint64_t = self._range(p, area, first, pages)
            w = self._work(p)
            flags: cython.int = KEEP if keep else 0
            with cython.nogil:
                w.may_breathe = 1
                uz_enter(cython.address(p.gate))
                lost = bring_range(p, w, at, pages, flags)
                work_done(p, w)
                uz_leave(cython.address(p.gate))
            return lost
        finally:
            self._leave()

    def unkeep(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        p = self._enter()
        try:
            at: uint64_t = self._range(p, area, first, pages)
            with cython.nogil:
                uz_enter(cython.address(p.gate))
                unkeep_range(p, at, pages)
                uz_leave(cython.address(p.gate))
        finally:
            self._leave()

    def evict(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        """Pages that went."""
        p = self._enter()
        try:
            at: uint64_t = self._range(p, area, first, pages)
            w = self._work(p)
            with cython.nogil:
                w.may_breathe = 1
                uz_enter(cython.address(p.gate))
                gone = evict_range(p, w, at, pages)
                work_done(p, w)
                uz_leave(cython.address(p.gate))
            return gone
        finally:
            self._leave()

    def cool(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        """Make what is resident of a range the next to be evicted."""
        p = self._enter()
        try:
            at: uint64_t = self._range(p, area, first, pages)
            with cython.nogil:
                uz_enter(cython.address(p.gate))
                cool_range(p, at, pages)
                uz_leave(cython.address(p.gate))
        finally:
            self._leave()

    def drop(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        p = self._enter()
        try:
            at: uint64_t = self._range(p, area, first, pages)
            with cython.nogil:
                uz_enter(cython.address(p.gate))
                error = drop_range(p, at, pages, 0)
                uz_leave(cython.address(p.gate))
            if error:
                raise OSError(-error, "madvise")
        finally:
            self._leave()

    def exchange(
        self,
        area: uint32_t,
        begins: cython.const[uint64_t][::1],
        places: cython.const[uint64_t][::1],
        length: uint64_t,
        memory: cython.size_t,
        into: cython.bint,
    ):
        """0, or the errno and page with which bytes cannot be read.  See memory.pyi."""
        i: cython.Py_ssize_t
        n = begins.shape[0]
        if not n or not length or places.shape[0] != n:
            raise ValueError(f"{n} spans of {length} bytes, {places.shape[0]} places")
        p = self._enter()
        g = cython.cast(cython.pointer(Gather), calloc(1, cython.sizeof(Gather)))
        # The caller's arrays may be paged memory, whose faults need the locks under which these are read.
        where = cython.cast(cython.pointer(uint64_t), malloc(2 * n * cython.sizeof(uint64_t)))
        buffer: cython.p_char = cython.NULL
        try:
            if g == cython.NULL or where == cython.NULL:
                raise MemoryError
            nbytes = p.areas[area].pages * PAGE_BYTES if area < p.next_area else 0
            g.first = self._range(p, area, 0, 0)
            for i in range(n):
                where[i] = begins[i]
                where[n + i] = places[i]
                if where[i] > nbytes or length > nbytes - where[i]:
                    raise ValueError(f"bytes {where[i]}..{where[i] + length} of area {area}, which has {nbytes}")
            if into:
                buffer = cython.cast(cython.p_char, uz_private(GATHER_BYTES))
                if buffer == cython.NULL:
                    raise MemoryError
            w = self._work(p)
            g.begins, g.places, g.n, g.length = where, where + n, n, length
            g.memory, g.buffer = cython.cast(cython.p_char, memory), buffer
            with cython.nogil:
                if into:
                    scatter(p, w, g)
                else:
                    gather(p, w, g)
                uz_enter(cython.address(p.gate))
                work_done(p, w)
                uz_leave(cython.address(p.gate))
            return g.error, g.failed - g.first if g.error else 0
        finally:
            uz_private_free(buffer, GATHER_BYTES)
            free(where)
            free(g)
            self._leave()

    def place(self, area: uint32_t):
        """What an area is, without looking at its pages."""
        p = self._enter()
        try:
            self._range(p, area, 0, 0)
            a = cython.address(p.areas[area])
            return Place(cython.cast(cython.size_t, p.base) + a.first * PAGE_BYTES, a.pages, memcg_of(p, area))
        finally:
            self._leave()

    def area(self, area: uint32_t):
        """Where the pages of an area are: counts them, some at a time, while they may come and go."""
        p = self._enter()
        found: AreaCount
        i: uint64_t = 0
        try:
            self._range(p, area, 0, 0)
            memset(cython.address(found), 0, cython.sizeof(AreaCount))
            with cython.nogil:
                while i < p.areas[area].pages:
                    i = count_some(p, area, i, cython.address(found))
                a = cython.address(p.areas[area])
                pthread_mutex_lock(cython.address(p.lock))
                faults, loads = a.faults, a.loads
                pthread_mutex_unlock(cython.address(p.lock))
            return AreaInfo(
                cython.cast(cython.size_t, p.base) + a.first * PAGE_BYTES,
                a.pages,
                memcg_of(p, area),
                found.resident,
                found.zswap,
                found.disk,
                found.zero,
                found.lost,
                found.clean,
                faults,
                loads,
            )
        finally:
            self._leave()

    def hint(self, area: uint32_t, kind: cython.int):
        """NORMAL, SEQUENTIAL: read ahead from the first fault on, or RANDOM: never."""
        p = self._enter()
        try:
            self._range(p, area, 0, 0)
            if kind not in (H_NORMAL, H_SEQUENTIAL, H_RANDOM):
                raise ValueError(f"hint {kind}")
            pthread_mutex_lock(cython.address(p.lock))
            p.areas[area].hint = kind
            pthread_mutex_unlock(cython.address(p.lock))
        finally:
            self._leave()

    def name(self, area: uint32_t, label: bytes):
        """What the array is, for the line that says that bytes of it are lost."""
        p = self._enter()
        try:
            self._range(p, area, 0, 0)
            copy = strndup(label, LABEL_BYTES)
            with cython.nogil:
                pager_lock(p)
                free(p.areas[area].label)
                p.areas[area].label = copy
                pager_unlock(p)
        finally:
            self._leave()


def place_of(p, i):
    """Where the bytes of a page are.  With both locks."""
    page = cython.address(p.pages[i])
    if page.state == P_RESIDENT or page.state == P_COMING or page.state == P_GOING:
        return AT_RESIDENT
    if page.state == P_LOST:
        return AT_LOST
    if not page.entry:
        return AT_NONE
    e = cython.address(p.c.t.entries[page.entry])
    if e.state == IN_POOL:
        return AT_ZSWAP
    return AT_DISK if e.state == ON_DISK else AT_NONE


def count_some(p, a, first, found):
    """Count an area's pages from number `first` on, as many as one hold of the locks is for.  Where to go on."""
    t = cython.address(p.c.t)
    i: uint64_t
    pthread_mutex_lock(cython.address(p.lock))
    pthread_mutex_lock(cython.address(p.c.lock))
    area = cython.address(p.areas[a])
    end = area.pages
    if end > first and end - first > HOLD_PAGES:
        end = first + HOLD_PAGES
    beyond = leaf_end(p, area.first + first) - area.first
    if beyond > first:
        end = beyond if beyond < area.pages else area.pages
        found.zero += end - first
        first = end
    for i in range(area.first + first, area.first + end):
        at = place_of(p, i)
        if at == AT_RESIDENT:
            found.resident += 1
            page = cython.address(p.pages[i])
            e = cython.address(t.entries[page.entry])
            if page.entry and e.flags & CLEAN and e.stamp == address_of(p, i):
                found.clean += cython.cast(int64_t, e.length_1) + 1
        elif at == AT_LOST:
            found.lost += 1
        elif at == AT_ZSWAP:
            found.zswap += 1
        elif at == AT_DISK:
            found.disk += 1
        else:
            found.zero += 1
    pthread_mutex_unlock(cython.address(p.c.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return end
