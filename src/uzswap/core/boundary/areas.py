"""Areas, one an array: what is done with their pages, and where these are: see memory.pyi."""

from collections import namedtuple

import cython
from cython.cimports.libc.errno import EIO
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
from cython.cimports.uzswap.core.paging.handlers import lock_unless
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
    Area,
    Pager,
    address_of,
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
    def _look(self, p: cython.pointer(Pager), area: uint32_t, found: cython.pointer(Area)):
        """What an area is just now: 1, or 0 when it is not in use, and -1 when none was from this number on.

        With the GIL: nobody waits for it with the lock.  Who was killed may have taken the lock along: OSError.
        """
        if not lock_unless(cython.address(p.lock), cython.address(p.broken)):
            raise OSError(EIO, "a thread that serves page faults was killed")
        was: cython.bint = area < p.next_area
        if was:
            found[0] = p.areas[area]
        pthread_mutex_unlock(cython.address(p.lock))
        return found.used if was else -1

    def _area(self, p: cython.pointer(Pager), area: uint32_t, found: cython.pointer(Area)):
        if self._look(p, area, found) <= 0:
            raise ValueError(f"area {area} is not in use")
        return 0

    def _range(self, p: cython.pointer(Pager), area: uint32_t, first: uint64_t, pages: uint64_t):
        a: Area
        self._area(p, area, cython.address(a))
        if first > a.pages or pages > a.pages - first:
            raise ValueError(f"pages {first}..{first + pages} of area {area}, which has {a.pages}")
        return a.first + first

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
        a: Area
        p = self._enter()
        g = cython.cast(cython.pointer(Gather), calloc(1, cython.sizeof(Gather)))
        # The caller's arrays may be paged memory, whose faults need the locks under which these are read.
        where = cython.cast(cython.pointer(uint64_t), malloc(2 * n * cython.sizeof(uint64_t)))
        buffer: cython.p_char = cython.NULL
        try:
            if g == cython.NULL or where == cython.NULL:
                raise MemoryError
            self._area(p, area, cython.address(a))
            g.first = a.first
            nbytes = a.pages * PAGE_BYTES
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
        a: Area
        p = self._enter()
        try:
            self._area(p, area, cython.address(a))
            return Place(cython.cast(cython.size_t, p.base) + a.first * PAGE_BYTES, a.pages, a.memcg)
        finally:
            self._leave()

    def area(self, area: uint32_t):
        """Where the pages of an area are: counts them, some at a time, while they may come and go."""
        a: Area
        found: AreaCount
        i: uint64_t = 0
        p = self._enter()
        try:
            self._area(p, area, cython.address(a))
            memset(cython.address(found), 0, cython.sizeof(AreaCount))
            with cython.nogil:
                while True:
                    i = count_some(p, area, i, cython.address(found))
                    if not i:
                        break
                pthread_mutex_lock(cython.address(p.lock))
                a = p.areas[area]
                pthread_mutex_unlock(cython.address(p.lock))
            return AreaInfo(
                cython.cast(cython.size_t, p.base) + a.first * PAGE_BYTES,
                a.pages,
                a.memcg,
                found.resident,
                found.zswap,
                found.disk,
                found.zero,
                found.lost,
                found.clean,
                a.faults,
                a.loads,
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
            with cython.nogil:
                pager_lock(p)
                p.areas[area].hint = kind
                pager_unlock(p)
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
    """Count an area's pages from number `first` on, as many as one hold of the locks is for.

    Where to go on, or 0 at its end.
    """
    t = cython.address(p.c.t)
    i: uint64_t
    pthread_mutex_lock(cython.address(p.lock))
    pthread_mutex_lock(cython.address(p.c.lock))
    area = cython.address(p.areas[a])
    # Another thread may have freed it, and made a shorter one of it.
    last = area.pages if area.pages > first else first
    end = first + HOLD_PAGES if last - first > HOLD_PAGES else last
    beyond = leaf_end(p, area.first + first) - area.first if last > first else first
    if beyond > first:
        end = beyond if beyond < last else last
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
    on = end if end < last else 0
    pthread_mutex_unlock(cython.address(p.c.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return on
