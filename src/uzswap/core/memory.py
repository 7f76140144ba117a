"""The boundary of paged memory: see memory.pyi."""

import weakref
from collections import namedtuple

import cython
from cython.cimports.libc.errno import EIO
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.uzswap.core.engine import Engine
from cython.cimports.uzswap.core.entries import CLEAN, IN_POOL, MEMCG_ONLINE, ON_DISK, entry_at, memcg_offline
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock, strndup
from cython.cimports.uzswap.core.page_in import KEEP
from cython.cimports.uzswap.core.page_out import evict_from
from cython.cimports.uzswap.core.pager import pager_start, pager_stop, settle, wait_events
from cython.cimports.uzswap.core.pagetable import (
    E_HIGH,
    E_MAX,
    E_OOM,
    E_POOL_FULL,
    H_NORMAL,
    H_RANDOM,
    H_SEQUENTIAL,
    LABEL_BYTES,
    P_COMING,
    P_GOING,
    P_LOST,
    P_RESIDENT,
    PAGE_BYTES,
    Pager,
    address_of,
    area_new,
    memcg_of,
    pages_reparent,
    table_close,
    table_open,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.ranges import (
    area_free,
    bring_range,
    cool_range,
    drop_range,
    evict_own,
    evict_range,
    unkeep_range,
)
from cython.cimports.uzswap.core.syscalls import serve_call

HIGH, MAX, OOM, POOL_FULL = E_HIGH, E_MAX, E_OOM, E_POOL_FULL

NORMAL, SEQUENTIAL, RANDOM = H_NORMAL, H_SEQUENTIAL, H_RANDOM

AreaInfo = namedtuple("AreaInfo", "address pages memcg resident zswap disk zero lost clean_copies faults loads")
MemoryInfo = namedtuple(
    "MemoryInfo",
    "user_mode_only calls_trapped can_move can_poison threads workers areas resident faults evicted evicted_clean "
    "read_ahead broken",
)
Counts = namedtuple("Counts", "high max oom stall_ns")


@cython.cclass
class Memory:
    def __cinit__(self, engine: Engine, user_mode_only: cython.bint = False, old_kernel: cython.bint = False):
        self.pager = cython.NULL
        self.engine = engine
        core = engine._open()
        if engine.memory is not None and engine.memory() is not None:
            raise ValueError("the engine has paged memory already")
        p = cython.cast(cython.pointer(Pager), calloc(1, cython.sizeof(Pager)))
        if p == cython.NULL:
            raise MemoryError
        p.c = core
        with cython.nogil:
            error = table_open(p, user_mode_only, old_kernel, serve_call)
            if not error:
                error = pager_start(p)
            if error:
                table_close(p)
                free(p)
        if error:
            raise OSError(-error, "userfaultfd")
        self.pager = p
        engine.memory = weakref.ref(self)

    def __dealloc__(self):
        self.close()

    def close(self):
        """Unmap everything.  No array may be alive, and the engine must still be open."""
        p = self.pager
        if p == cython.NULL:
            return
        self.pager = cython.NULL
        self.engine.memory = None
        if p.broken:
            # Threads may hang in there for good: nothing of it can be freed.
            p.c.abandoned = 1
            return
        with cython.nogil:
            pager_stop(p)
            table_close(p)
            free(p)

    def _open(self):
        if self.pager == cython.NULL:
            raise ValueError("the engine is closed")
        if self.pager.broken:
            raise OSError(EIO, "a thread that serves page faults was killed")
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
            gone = evict_from(self.pager, w, memcg, pages, 0)
        self._done(w)
        return gone

    def area(self, area: uint32_t):
        """Where the pages of an area are: counts them, under the lock."""
        self._range(area, 0, 0)
        p = self.pager
        t = cython.address(p.c.t)
        i: uint64_t
        zswap: int64_t = 0
        clean: int64_t = 0
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
                    if e != cython.NULL and e.flags & CLEAN and e.stamp == address_of(p, i):
                        clean += cython.cast(int64_t, e.length_1) + 1
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
        return AreaInfo(address, a.pages, memcg, resident, zswap, disk, zero, lost, clean, a.faults, a.loads)

    def info(self):
        p = self.pager
        if p == cython.NULL:
            raise ValueError("the engine is closed")
        return MemoryInfo(
            bool(p.user_only),
            p.trapped,
            bool(p.can_move),
            bool(p.can_poison),
            p.nr_servers,
            p.nr_workers,
            p.live_areas,
            p.resident,
            p.faults,
            p.evicted,
            p.evicted_clean,
            p.read_ahead,
            bool(p.broken),
        )

    def wait_events(self):
        """Sleep until a fault met a limit: HIGH | MAX | OOM | POOL_FULL; 0 when another thread closes the memory."""
        p = self._open()
        with cython.nogil:
            events = wait_events(p)
        return events

    def settle(self):
        """Wait until workers and threads that serve faults have nothing left to do."""
        p = self._open()
        with cython.nogil:
            settle(p)

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

    def take_counts(self, memcg: uint32_t):
        """How often faults met the limits of a memcg since the last call, and how long they waited."""
        p = self._open()
        self.engine._memcg(memcg)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            m = cython.address(p.memcgs[memcg])
            high = m.nr_high
            most = m.nr_max
            oom = m.nr_oom
            stall = m.stall_ns
            m.nr_high = m.nr_max = m.nr_oom = 0
            m.events = 0
            m.stall_ns = 0
            pthread_mutex_unlock(cython.address(p.lock))
        return Counts(high, most, oom, stall)

    def remove_memcg(self, memcg: uint32_t):
        """Engine.memcg_remove() with the memcg's arrays, which become its parent's in the same moment."""
        p = self._open()
        t = cython.address(p.c.t)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            pthread_mutex_lock(cython.address(p.c.lock))
            if t.memcgs[memcg].state == MEMCG_ONLINE:
                parent = t.memcgs[memcg].parent
                memcg_offline(t, memcg)
                pages_reparent(p, memcg, parent)
            pthread_mutex_unlock(cython.address(p.c.lock))
            pthread_mutex_unlock(cython.address(p.lock))

    def hint(self, area: uint32_t, kind: cython.int):
        """NORMAL, SEQUENTIAL: read ahead from the first fault on, or RANDOM: never."""
        self._range(area, 0, 0)
        if kind not in (H_NORMAL, H_SEQUENTIAL, H_RANDOM):
            raise ValueError(f"hint {kind}")
        self.pager.areas[area].hint = kind

    def name(self, area: uint32_t, label: bytes):
        """What the array is, for the line that says that bytes of it are lost."""
        self._range(area, 0, 0)
        p = self.pager
        copy = strndup(label, LABEL_BYTES)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            free(p.areas[area].label)
            p.areas[area].label = copy
            pthread_mutex_unlock(cython.address(p.lock))

    def name_memcg(self, memcg: uint32_t, label: bytes):
        """The path of a memcg, for the same."""
        p = self._open()
        self.engine._memcg(memcg)
        copy = strndup(label, LABEL_BYTES)
        with cython.nogil:
            pthread_mutex_lock(cython.address(p.lock))
            free(p.memcgs[memcg].label)
            p.memcgs[memcg].label = copy
            pthread_mutex_unlock(cython.address(p.lock))

    def cool(self, area: uint32_t, first: uint64_t, pages: uint64_t):
        """Make what is resident of a range the next to be evicted."""
        at: uint64_t = self._range(area, first, pages)
        p = self.pager
        with cython.nogil:
            cool_range(p, at, pages)
