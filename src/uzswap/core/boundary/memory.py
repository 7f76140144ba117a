"""The boundary of paged memory, which adds what memcgs have of it and what is told of it: see memory.pyi."""

from collections import namedtuple

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import free
from cython.cimports.uzswap.core.boundary.areas import Areas
from cython.cimports.uzswap.core.boundary.paged import pager_lock, pager_unlock, work_done
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock, strndup, uz_monotonic_ns
from cython.cimports.uzswap.core.paging.handlers import blockers
from cython.cimports.uzswap.core.paging.make_room import evict_from
from cython.cimports.uzswap.core.paging.pager import settle, wait_events
from cython.cimports.uzswap.core.paging.pagetable import (
    E_HIGH,
    E_LOW,
    E_MAX,
    E_OOM,
    E_POOL_FULL,
    E_STALL,
    E_SWAP,
    LABEL_BYTES,
)
from cython.cimports.uzswap.core.paging.ranges import evict_own
from cython.cimports.uzswap.core.paging.stalls import stalls_reparent, stalls_until
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_broadcast
from cython.cimports.uzswap.core.paging.workingset import nr_listed, pages_reparent
from cython.cimports.uzswap.core.store.entries import MEMCG_ONLINE
from cython.cimports.uzswap.core.store.memcgs import memcg_offline

from uzswap.core.boundary.areas import NORMAL as NORMAL
from uzswap.core.boundary.areas import RANDOM as RANDOM
from uzswap.core.boundary.areas import SEQUENTIAL as SEQUENTIAL
from uzswap.core.boundary.areas import AreaInfo as AreaInfo
from uzswap.core.boundary.areas import Place as Place

HIGH, MAX, OOM, POOL_FULL, LOW, SWAP, STALL = E_HIGH, E_MAX, E_OOM, E_POOL_FULL, E_LOW, E_SWAP, E_STALL

MemoryInfo = namedtuple(
    "MemoryInfo",
    "user_mode_only calls_trapped by_signal can_move can_poison threads workers areas resident faults evicted "
    "evicted_clean swap_tokens read_ahead broken",
)
Counts = namedtuple("Counts", "low high max oom swap_high swap_max swap_fail some_ns full_ns over_high")


@cython.cclass
class Memory(Areas):
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


def sigbus_blockers():
    """The numbers of threads of this process that block SIGBUS, those of engines apart: the first 64."""
    tids: cython.int[64]
    with cython.nogil:
        n: cython.int = blockers(tids, 64)
    return [tids[i] for i in range(n)]
