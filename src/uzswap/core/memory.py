"""The boundary of paged memory: see memory.pyi."""

from collections import namedtuple

import cython
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.uzswap.core.engine import Engine
from cython.cimports.uzswap.core.entries import IN_POOL, ON_DISK, entry_at
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.pager import (
    KEEP,
    area_free,
    bring_range,
    cool_range,
    drop_range,
    evict_from,
    evict_own,
    evict_range,
    pager_start,
    pager_stop,
    unkeep_range,
    wait_events,
)
from cython.cimports.uzswap.core.pagetable import (
    E_HIGH,
    E_MAX,
    E_OOM,
    E_POOL_FULL,
    P_COMING,
    P_GOING,
    P_LOST,
    P_RESIDENT,
    PAGE_BYTES,
    Pager,
    area_new,
    memcg_of,
    memcg_reparent,
    table_close,
    table_open,
    work_get,
    work_put,
)

HIGH, MAX, OOM, POOL_FULL = E_HIGH, E_MAX, E_OOM, E_POOL_FULL

AreaInfo = namedtuple("AreaInfo", "address pages memcg resident zswap disk zero lost faults loads")
MemoryInfo = namedtuple("MemoryInfo", "user_mode_only can_move can_poison threads areas resident faults evicted")


@cython.cclass
class Memory:
    def __cinit__(self, engine: Engine, user_mode_only: cython.bint = False):
        self.pager = cython.NULL
        self.engine = engine
        core = engine._open()
        p = cython.cast(cython.pointer(Pager), calloc(1, cython.sizeof(Pager)))
        if p == cython.NULL:
            raise MemoryError
        p.c = core
        with cython.nogil:
            error = table_open(p, user_mode_only)
            if not error:
                error = pager_start(p)
            if error:
                table_close(p)
                free(p)
        if error:
            raise OSError(-error, "userfaultfd")
        self.pager = p

    def __dealloc__(self):
        self.close()

    def close(self):
        """Unmap everything.  No array may be alive, and the engine must still be open."""
        p = self.pager
        if p == cython.NULL:
            return
        self.pager = cython.NULL
        with cython.nogil:
            pager_stop(p)
            table_close(p)
            free(p)

    def _open(self):
        if self.pager == cython.NULL:
            raise ValueError("the engine is closed")
        return self.pager

    def _work(self):
        p = self._open()
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            w = work_get(p)
            pthread_mutex_unlock(cython.address(p.lock))
        if w == cython.NULL:
            raise MemoryError
        return w

    def _done(self, w):
        p = self.pager
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            work_put(p, w)
            pthread_mutex_unlock(cython.address(p.lock))

    def _range(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        p = self._open()
        if area >= p.next_area or not p.areas[area].used:
            raise ValueError(f"area {area} is not in use")
        if first > p.areas[area].pages or pages > p.areas[area].pages - first:
            raise ValueError(f"pages {first}..{first + pages} of area {area}, which has {p.areas[area].pages}")
        return p.areas[area].first + first

    def alloc(self, nbytes: uint64_t, memcg: uint32_t, item: uint8_t = 0):
        """Number and address of a new area of zeros."""
        p = self._open()
        self.engine._memcg(memcg)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            a = area_new(p, nbytes, memcg)
            p.areas[a].item = item
            pthread_mutex_unlock(cython.address(p.lock))
        if not a:
            raise MemoryError(f"no address space for an array of {nbytes} bytes")
        return a, cython.cast(cython.size_t, p.base) + p.areas[a].first * PAGE_BYTES

    def free(self, area: uint32_t):
        self._range(area, 0, 0)
        p = self.pager
        with cython.nogil:
            error = area_free(p, area)
        if error:
            raise MemoryError

    def bring(self, area: uint32_t, first: uint64_t, pages: uint64_t, keep: cython.bint = False):
        """0, or -EIO when a page is lost."""
        at: uint64_t = self._range(area, first, pages)
        w = self._work()
        flags: cython.int = KEEP if keep else 0
        with cython.nogil:
            lost = bring_range(self.pager, w, at, pages, flags)
        self._done(w)
        return lost

    def unkeep(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        at: uint64_t = self._range(area, first, pages)
        p = self.pager
        with cython.nogil:
            unkeep_range(p, at, pages)

    def evict(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        """Pages that went."""
        at: uint64_t = self._range(area, first, pages)
        w = self._work()
        with cython.nogil:
            gone = evict_range(self.pager, w, at, pages)
        self._done(w)
        return gone

    def drop(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        at: uint64_t = self._range(area, first, pages)
        if not pages:
            return
        w = self._work()
        with cython.nogil:
            drop_range(self.pager, w, at, pages)
        self._done(w)

    def reclaim(self, memcg: uint32_t, pages: int64_t):
        """Evict up to `pages` of the oldest resident pages of the memcg's subtree.  How many went."""
        self.engine._memcg(memcg)
        w = self._work()
        with cython.nogil:
            gone = evict_from(self.pager, w, memcg, pages)
        self._done(w)
        return gone

    def area(self, area: uint32_t):
        """Where the pages of an area are: counts them, under the lock."""
        self._range(area, 0, 0)
        p = self.pager
        t = cython.address(p.c.t)
        i: uint64_t
        zswap: int64_t = 0
        disk: int64_t = 0
        zero: int64_t = 0
        lost: int64_t = 0
        resident: int64_t = 0
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            a = p.areas[area]
            memcg = memcg_of(p, area)
            pthread_mutex_lock(cython.address(p.c.lock))
            for i in range(a.first, a.first + a.pages):
                page = cython.address(p.pages[i])
                e = entry_at(t, page.handle) if page.handle else cython.NULL
                if page.state == P_RESIDENT or page.state == P_COMING or page.state == P_GOING:
                    resident += 1
                elif page.state == P_LOST:
                    lost += 1
                elif e == cython.NULL:
                    zero += 1
                elif e.state == IN_POOL:
                    zswap += 1
                elif e.state == ON_DISK:
                    disk += 1
                else:
                    zero += 1
            pthread_mutex_unlock(cython.address(p.c.lock))
            pthread_mutex_unlock(cython.address(p.lock))
        address = cython.cast(cython.size_t, p.base) + a.first * PAGE_BYTES
        return AreaInfo(address, a.pages, memcg, resident, zswap, disk, zero, lost, a.faults, a.loads)

    def info(self):
        p = self._open()
        return MemoryInfo(
            bool(p.user_only),
            bool(p.can_move),
            bool(p.can_poison),
            p.nr_threads,
            p.live_areas,
            p.resident,
            p.faults,
            p.evicted,
        )

    def wait_events(self):
        """Sleep until a fault met a limit: HIGH | MAX | OOM | POOL_FULL; 0 when another thread closes the memory."""
        p = self._open()
        with cython.nogil:
            events = wait_events(p)
        return events

    def take_events(self, memcg: uint32_t):
        p = self._open()
        self.engine._memcg(memcg)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            events = p.memcgs[memcg].events
            p.memcgs[memcg].events = 0
            pthread_mutex_unlock(cython.address(p.lock))
        return events

    def reclaim_own(self, memcg: uint32_t, pages: int64_t):
        """Evict up to `pages` of the oldest resident pages of this memcg's own arrays.  How many went."""
        self.engine._memcg(memcg)
        w = self._work()
        with cython.nogil:
            gone = evict_own(self.pager, w, memcg, pages)
        self._done(w)
        return gone

    def own_pages(self, memcg: uint32_t):
        """Resident pages of this memcg's own arrays that may go: those on its lists."""
        self.engine._memcg(memcg)
        p = self._open()
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            pages: int64_t = p.memcgs[memcg].inactive.length + p.memcgs[memcg].active.length
            pthread_mutex_unlock(cython.address(p.lock))
        return pages

    def reparent(self, memcg: uint32_t, parent: uint32_t):
        """The arrays of a memcg that is about to be removed become its parent's."""
        self.engine._memcg(memcg)
        self.engine._memcg(parent)
        p = self._open()
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            memcg_reparent(p, memcg, parent)
            pthread_mutex_unlock(cython.address(p.lock))

    def cool(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        """Make what is resident of a range the next to be evicted."""
        at: uint64_t = self._range(area, first, pages)
        p = self.pager
        with cython.nogil:
            cool_range(p, at, pages)
