"""The boundary of paged memory: see memory.pyi."""

import weakref
from collections import namedtuple

import cython
from cython.cimports.libc.errno import EBUSY, EIO
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.boundary.forking import kin_pager
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    strndup,
    uz_monotonic_ns,
    uz_private,
    uz_private_free,
)
from cython.cimports.uzswap.core.paging.areas import area_new, leaf_end, space_open
from cython.cimports.uzswap.core.paging.gather import GATHER_BYTES, Gather, gather, scatter
from cython.cimports.uzswap.core.paging.handlers import blockers, handler_open, is_blocked
from cython.cimports.uzswap.core.paging.keeper import pager_close, pager_start, pager_stop
from cython.cimports.uzswap.core.paging.make_room import evict_from
from cython.cimports.uzswap.core.paging.page_in import KEEP
from cython.cimports.uzswap.core.paging.pager import settle, wait_events
from cython.cimports.uzswap.core.paging.pagetable import (
    E_HIGH,
    E_LOW,
    E_MAX,
    E_OOM,
    E_POOL_FULL,
    E_STALL,
    E_SWAP,
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
    table_close,
    table_open,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.paging.ranges import (
    area_free,
    bring_range,
    cool_range,
    drop_range,
    evict_own,
    evict_range,
    unkeep_range,
)
from cython.cimports.uzswap.core.paging.signal_faults import fault_here
from cython.cimports.uzswap.core.paging.stalls import stalls_reparent, stalls_until
from cython.cimports.uzswap.core.paging.syscalls import serve_call
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_wait,
)
from cython.cimports.uzswap.core.paging.workingset import nr_listed, pages_reparent
from cython.cimports.uzswap.core.store.entries import CLEAN, IN_POOL, MEMCG_ONLINE, ON_DISK
from cython.cimports.uzswap.core.store.memcgs import memcg_offline

HIGH, MAX, OOM, POOL_FULL, LOW, SWAP, STALL = E_HIGH, E_MAX, E_OOM, E_POOL_FULL, E_LOW, E_SWAP, E_STALL

NORMAL, SEQUENTIAL, RANDOM = H_NORMAL, H_SEQUENTIAL, H_RANDOM

Place = namedtuple("Place", "address pages memcg")
AreaInfo = namedtuple("AreaInfo", "address pages memcg resident zswap disk zero lost clean_copies faults loads")
MemoryInfo = namedtuple(
    "MemoryInfo",
    "user_mode_only calls_trapped by_signal can_move can_poison threads workers areas resident faults evicted "
    "evicted_clean swap_tokens read_ahead broken",
)
Counts = namedtuple("Counts", "low high max oom swap_high swap_max swap_fail some_ns full_ns over_high")


def pager_lock(p):
    """The lock, and the gate: what is read and written between the two is never seen half done by a forked child."""
    uz_enter(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))


def pager_unlock(p):
    pthread_mutex_unlock(cython.address(p.lock))
    uz_leave(cython.address(p.gate))


@cython.cclass
class Memory:
    def __cinit__(
        self,
        engine: Engine,
        user_mode_only: cython.bint = False,
        old_kernel: cython.bint = False,
        by_signal: cython.bint = False,
    ):
        self.pager = cython.NULL
        pthread_mutex_init(cython.address(self.gate), cython.NULL)
        pthread_cond_init(cython.address(self.passed), cython.NULL)
        self.engine = engine
        core = engine._open()
        if engine.memory is not None and engine.memory() is not None:
            raise ValueError("the engine has paged memory already")
        p = cython.cast(cython.pointer(Pager), calloc(1, cython.sizeof(Pager)))
        if p == cython.NULL:
            raise MemoryError
        p.c = core
        with cython.nogil:
            error = -EBUSY if by_signal and is_blocked() else 0
            if not error:
                error = table_open(p, user_mode_only, old_kernel, by_signal, serve_call)
            if not error and by_signal:
                error = handler_open(fault_here)
            if not error:
                error = space_open(p)
            if not error:
                error = pager_start(p)
            if error:
                table_close(p)
                free(p)
        if error:
            raise OSError(-error, "userfaultfd")
        with cython.nogil:
            kin_pager(core, p)
        self.pager = p
        engine.memory = weakref.ref(self)

    def __dealloc__(self):
        self.close()
        pthread_mutex_destroy(cython.address(self.gate))
        pthread_cond_destroy(cython.address(self.passed))

    def forked(self):
        """In a forked child: whether the memory came along.  Calls that were under way there are not here."""
        pthread_mutex_init(cython.address(self.gate), cython.NULL)
        pthread_cond_init(cython.address(self.passed), cython.NULL)
        self.users = self.closing = 0
        if self.pager != cython.NULL and self.pager.pid != getpid():
            self.pager = cython.NULL
            self.engine.memory = None
        return self.pager != cython.NULL

    def close(self):
        """Unmap everything.  No array may be alive, and the engine must still be open.

        Calls of other threads that are under way end first; those that come later are refused.
        """
        with cython.nogil:
            pthread_mutex_lock(cython.address(self.gate))
            p = self.pager
            self.pager = cython.NULL
            if p == cython.NULL:
                # Another thread may be at it.
                while self.closing:
                    pthread_cond_wait(cython.address(self.passed), cython.address(self.gate))
            self.closing = p != cython.NULL
            pthread_mutex_unlock(cython.address(self.gate))
        if p == cython.NULL:
            return
        self.engine.memory = None
        broken: cython.bint = p.broken
        if broken:
            # Threads may hang in there for good: nothing of it can be freed.
            p.c.abandoned = 1
        with cython.nogil:
            kin_pager(p.c, cython.NULL)
            if not broken:
                pager_close(p)
            pthread_mutex_lock(cython.address(self.gate))
            while self.users and not broken:
                pthread_cond_wait(cython.address(self.passed), cython.address(self.gate))
            pthread_mutex_unlock(cython.address(self.gate))
            if not broken:
                pager_stop(p)
                table_close(p)
                free(p)
            pthread_mutex_lock(cython.address(self.gate))
            self.closing = 0
            pthread_cond_broadcast(cython.address(self.passed))
            pthread_mutex_unlock(cython.address(self.gate))

    def _enter(self):
        """The pager, which stays until _leave(), or an exception.

        Memory.gate is held for a moment, and nothing is waited for with it: so it may be taken with the GIL.
        """
        pthread_mutex_lock(cython.address(self.gate))
        p = self.pager
        broken: cython.bint = p != cython.NULL and p.broken
        if p != cython.NULL and not broken:
            self.users += 1
        pthread_mutex_unlock(cython.address(self.gate))
        if p == cython.NULL:
            raise ValueError("the engine is closed")
        if broken:
            raise OSError(EIO, "a thread that serves page faults was killed")
        return p

    def _leave(self):
        pthread_mutex_lock(cython.address(self.gate))
        self.users -= 1
        if not self.users:
            pthread_cond_broadcast(cython.address(self.passed))
        pthread_mutex_unlock(cython.address(self.gate))

    def _work(self, p: cython.pointer(Pager)):
        with cython.nogil:
            pager_lock(p)
            w = work_get(p)
            pager_unlock(p)
        if w == cython.NULL:
            raise MemoryError
        return w

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

    def reclaim(self, memcg: uint32_t, pages: int64_t):
        """Evict up to `pages` of the oldest resident pages of the memcg's subtree.  How many went."""
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            w = self._work(p)
            with cython.nogil:
                w.may_breathe = 1
                uz_enter(cython.address(p.gate))
                gone = evict_from(p, w, memcg, pages, 0)
                work_done(p, w)
                uz_leave(cython.address(p.gate))
            return gone
        finally:
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

    def info(self):
        # Also of one that is broken.
        pthread_mutex_lock(cython.address(self.gate))
        p = self.pager
        self.users += p != cython.NULL
        pthread_mutex_unlock(cython.address(self.gate))
        if p == cython.NULL:
            raise ValueError("the engine is closed")
        try:
            return MemoryInfo(
                bool(p.user_only),
                p.trapped,
                bool(p.by_signal),
                bool(p.can_move),
                bool(p.can_poison),
                p.nr_servers,
                p.nr_workers,
                p.live_areas,
                p.resident,
                p.faults,
                p.evicted,
                p.evicted_clean,
                p.swap_tokens,
                p.read_ahead,
                bool(p.broken),
            )
        finally:
            self._leave()

    def wait_events(self):
        """Sleep until a fault met a limit: HIGH | MAX | OOM | POOL_FULL; 0 when another thread closes the memory."""
        p = self._enter()
        try:
            with cython.nogil:
                events = wait_events(p)
            return events
        finally:
            self._leave()

    def settle(self):
        """Wait until workers and threads that serve faults have nothing left to do."""
        p = self._enter()
        try:
            with cython.nogil:
                settle(p)
        finally:
            self._leave()

    def take_events(self, memcg: uint32_t):
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            with cython.nogil:
                pager_lock(p)
                events = p.memcgs[memcg].events
                p.memcgs[memcg].events = 0
                pager_unlock(p)
            return events
        finally:
            self._leave()

    def reclaim_own(self, memcg: uint32_t, pages: int64_t):
        """Evict up to `pages` of the oldest resident pages of this memcg's own arrays.  How many went."""
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            w = self._work(p)
            with cython.nogil:
                w.may_breathe = 1
                uz_enter(cython.address(p.gate))
                gone = evict_own(p, w, memcg, pages)
                work_done(p, w)
                uz_leave(cython.address(p.gate))
            return gone
        finally:
            self._leave()

    def own_pages(self, memcg: uint32_t):
        """Resident pages of this memcg's own arrays that may go: those on its lists."""
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            with cython.nogil:
                pager_lock(p)
                pages: int64_t = nr_listed(cython.address(p.memcgs[memcg]))
                pager_unlock(p)
            return pages
        finally:
            self._leave()

    def take_counts(self, memcg: uint32_t, acts: cython.bint = True):
        """How often faults met the limits of a memcg since the last call, and how long they waited.

        Who does not act on it leaves that to the next one who does, and who waits for events.
        """
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            with cython.nogil:
                pager_lock(p)
                m = cython.address(p.memcgs[memcg])
                stalls_until(p, memcg, uz_monotonic_ns())
                m.over_high = m.over_high or m.nr_high != 0
                met = m[0]
                if acts:
                    m.over_high = 0
                elif m.over_high:
                    p.events |= E_HIGH
                    pthread_cond_broadcast(cython.address(p.told))
                m.nr_low = m.nr_high = m.nr_max = m.nr_oom = 0
                m.nr_swap_high = m.nr_swap_max = m.nr_swap_fail = 0
                m.some_ns = m.full_ns = 0
                m.events = 0
                if m.stalled:
                    # It goes on: somebody has to look again, though nothing may happen until then.
                    p.events |= E_STALL
                pager_unlock(p)
            return Counts(
                met.nr_low,
                met.nr_high,
                met.nr_max,
                met.nr_oom,
                met.nr_swap_high,
                met.nr_swap_max,
                met.nr_swap_fail,
                met.some_ns,
                met.full_ns,
                bool(met.over_high),
            )
        finally:
            self._leave()

    def remove_memcg(self, memcg: uint32_t):
        """Engine.memcg_remove() with the memcg's arrays, which become its parent's in the same moment."""
        p = self._enter()
        t = cython.address(p.c.t)
        try:
            with cython.nogil:
                pager_lock(p)
                pthread_mutex_lock(cython.address(p.c.lock))
                if t.memcgs[memcg].state == MEMCG_ONLINE:
                    parent = t.memcgs[memcg].parent
                    memcg_offline(t, memcg)
                    pages_reparent(p, memcg, parent)
                    stalls_reparent(p, memcg, parent)
                pthread_mutex_unlock(cython.address(p.c.lock))
                pager_unlock(p)
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

    def name_memcg(self, memcg: uint32_t, label: bytes):
        """The path of a memcg, for the same."""
        p = self._enter()
        try:
            self.engine._memcg(memcg)
            copy = strndup(label, LABEL_BYTES)
            with cython.nogil:
                pager_lock(p)
                free(p.memcgs[memcg].label)
                p.memcgs[memcg].label = copy
                pager_unlock(p)
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


def sigbus_blockers():
    """The numbers of threads of this process that block SIGBUS, those of engines apart: the first 64."""
    tids: cython.int[64]
    with cython.nogil:
        n: cython.int = blockers(tids, 64)
    return [tids[i] for i in range(n)]


def work_done(p, w):
    pthread_mutex_lock(cython.address(p.lock))
    work_put(p, w)
    pthread_mutex_unlock(cython.address(p.lock))


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
