"""What an engine knows of memcgs: their limits, counters and charges: see engine.pyi."""

import cython
from cython.cimports.libc.errno import ENOMEM
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.boundary.opened import Opened, core_lock, core_unlock
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.store.active import HAS_LRU, active_list
from cython.cimports.uzswap.core.store.clean import clean_drop
from cython.cimports.uzswap.core.store.entries import (
    C_RESIDENT,
    C_SWAP,
    C_ZSWAP,
    MEMCG_ONLINE,
    NO_MEMCG,
    NR_COUNTERS,
    NR_GLOBALS,
    Delta,
)
from cython.cimports.uzswap.core.store.histogram import NR_BUCKETS, NR_HISTOGRAMS, Histogram
from cython.cimports.uzswap.core.store.memcgs import (
    delta_add,
    delta_apply,
    in_subtree,
    memcg_alloc,
    memcg_offline,
    memcg_protect,
    writeback_allowed,
)
from cython.cimports.uzswap.core.store.protection import effective_protection, share_of
from cython.cimports.uzswap.core.store.state import Charge, core_charge

from uzswap.core.boundary.names import HISTOGRAMS, HistogramInfo


def share_of_protection(
    usage: int64_t, parent_usage: int64_t, setting: int64_t, parent_effective: int64_t, siblings: int64_t
):
    return share_of(usage, parent_usage, setting, parent_effective, siblings)


@cython.cclass
class Memcgs(Opened):
    # Memcgs

    def memcg_new(self, parent: uint32_t):
        self._memcg(parent)
        c = self.core
        m: uint32_t = NO_MEMCG
        with cython.nogil:
            core_lock(c)
            online: cython.bint = c.t.memcgs[parent].state == MEMCG_ONLINE
            if online:
                m = memcg_alloc(cython.address(c.t), parent)
            core_unlock(c)
        if not online:
            raise ValueError(f"memcg {parent} is not online")
        return -ENOMEM if m == NO_MEMCG else m

    def memcg_remove(self, memcg: uint32_t):
        if memcg == 0:
            raise ValueError("the root memcg cannot be removed")
        self._memcg(memcg)
        c = self.core
        memory = self.memory() if self.memory is not None else None
        if memory is not None:
            memory.remove_memcg(memcg)
            return
        with cython.nogil:
            core_lock(c)
            if c.t.memcgs[memcg].state == MEMCG_ONLINE:
                memcg_offline(cython.address(c.t), memcg)
            core_unlock(c)

    def set_limit(self, memcg: uint32_t, which: cython.int, value: int64_t):
        g = self._memcg(memcg)
        if not 0 <= which <= 7:
            raise ValueError(f"limit {which}")
        c = self.core
        with cython.nogil:
            core_lock(c)
            if which == 0:
                g.zswap_max = value
            elif which == 1:
                g.memory_high = value
            elif which == 2:
                g.memory_max = value
            elif which == 3:
                g.swap_high = value
            elif which == 4:
                g.swap_max = value
            elif which == 5:
                g.resident_max = value
            elif which == 6:
                memcg_protect(cython.address(c.t), memcg, value, g.memory_low)
            else:
                memcg_protect(cython.address(c.t), memcg, g.memory_min, value)
            core_unlock(c)

    def effective_protection(self, memcg: uint32_t, target: uint32_t):
        self._memcg(memcg)
        self._memcg(target)
        c = self.core
        minimum: int64_t = 0
        low: int64_t = 0
        with cython.nogil:
            core_lock(c)
            below: cython.bint = in_subtree(cython.address(c.t), memcg, target)
            if below:
                effective_protection(cython.address(c.t), memcg, target, cython.address(minimum), cython.address(low))
            core_unlock(c)
        if not below:
            raise ValueError(f"memcg {memcg} is not in the subtree of {target}")
        return minimum, low

    def set_writeback(self, memcg: uint32_t, allowed: cython.bint):
        g = self._memcg(memcg)
        c = self.core
        core_lock(c)
        g.writeback = allowed
        core_unlock(c)

    def counters(self, memcg: uint32_t):
        g = self._memcg(memcg)
        c = self.core
        values: int64_t[NR_COUNTERS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_COUNTERS):
                values[k] = g.counters[k]
            core_unlock(c)
        return [values[k] for k in range(NR_COUNTERS)]

    def globals(self):
        c = self._open()
        values: int64_t[NR_GLOBALS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_GLOBALS):
                values[k] = c.t.totals[k]
            core_unlock(c)
        return [values[k] for k in range(NR_GLOBALS)]

    def histograms(self):
        c = self._open()
        copy: Histogram[NR_HISTOGRAMS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_HISTOGRAMS):
                copy[k] = c.histograms[k]
            core_unlock(c)
        found = {}
        for k in range(NR_HISTOGRAMS):
            found[HISTOGRAMS[k]] = HistogramInfo(copy[k].sum, [copy[k].counts[i] for i in range(NR_BUCKETS)])
        return found

    def lru_len(self, memcg: uint32_t, node: cython.int):
        lru = cython.address(self._memcg(memcg).lru[self._node(node)])
        c = self.core
        core_lock(c)
        length: uint32_t = lru.length
        core_unlock(c)
        return length

    def nr_disk_swapins(self, memcg: uint32_t, node: cython.int):
        lru = cython.address(self._memcg(memcg).lru[self._node(node)])
        c = self.core
        core_lock(c)
        loads: uint32_t = lru.disk_swapins
        core_unlock(c)
        return loads

    def take_disk_swapins(self, memcg: uint32_t, node: cython.int, most: uint32_t):
        lru = cython.address(self._memcg(memcg).lru[self._node(node)])
        c = self.core
        with cython.nogil:
            core_lock(c)
            taken = lru.disk_swapins if lru.disk_swapins < most else most
            lru.disk_swapins -= taken
            core_unlock(c)
        return taken

    def active(self, memcg: uint32_t, which: cython.int):
        self._memcg(memcg)
        c = self.core
        room: int64_t = 64
        while True:
            out = cython.cast(cython.pointer(uint32_t), malloc(room * cython.sizeof(uint32_t)))
            if out == cython.NULL:
                raise MemoryError
            with cython.nogil:
                core_lock(c)
                n = active_list(cython.address(c.t), memcg, which, c.enabled and which == HAS_LRU, out, room)
                core_unlock(c)
            found = [out[i] for i in range(n)]
            free(out)
            if n >= 0:
                return found
            room *= 4

    def local_stored(self, memcg: uint32_t):
        g = self._memcg(memcg)
        c = self.core
        core_lock(c)
        stored: uint32_t = g.stored
        core_unlock(c)
        return stored

    def writeback_allowed(self, memcg: uint32_t):
        self._memcg(memcg)
        c = self.core
        core_lock(c)
        allowed: cython.bint = not c.enabled or writeback_allowed(cython.address(c.t), memcg)
        core_unlock(c)
        return bool(allowed)

    def watermark(self, memcg: uint32_t, swap: cython.bint):
        g = self._memcg(memcg)
        c = self.core
        core_lock(c)
        ever: int64_t = g.swap_peak if swap else g.memory_peak
        since: int64_t = g.swap_peak_local if swap else g.memory_peak_local
        core_unlock(c)
        return ever, since

    def reset_watermark(self, memcg: uint32_t, swap: cython.bint):
        g = self._memcg(memcg)
        c = self.core
        with cython.nogil:
            core_lock(c)
            if swap:
                current = g.counters[C_SWAP]
                g.swap_peak_local = current
            else:
                current = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
                g.memory_peak_local = current
            core_unlock(c)
        return current

    def count(self, memcg: uint32_t, counter: cython.int, value: int64_t):
        self._memcg(memcg)
        if not 0 <= counter < NR_COUNTERS:
            raise ValueError(f"counter {counter}")
        self._add(memcg, counter, value)

    def _add(self, memcg, counter, value):
        c = self.core
        d: Delta
        with cython.nogil:
            memset(cython.address(d), 0, cython.sizeof(Delta))
            core_lock(c)
            # Looked at again: another thread may have removed it since.
            online: cython.bint = c.t.memcgs[memcg].state == MEMCG_ONLINE
            if online:
                delta_add(cython.address(c.t), cython.address(d), memcg, counter, value)
                delta_apply(cython.address(c.t), cython.address(d))
            core_unlock(c)
        if not online:
            raise ValueError(f"memcg {memcg} is not online")

    # Resident memory of the front-ends

    def charge(self, memcg: uint32_t, nbytes: int64_t, force: cython.bint = False):
        self._memcg(memcg)
        c = self.core
        met: Charge
        # With the GIL: nobody forks between this and the caller, who alone knows of it.
        gone = core_charge(c, memcg, nbytes, force, cython.address(met))
        if gone:
            raise ValueError(f"memcg {memcg} is not online")
        return (-1 if met.over_max == NO_MEMCG else met.over_max), (-1 if met.over_high == NO_MEMCG else met.over_high)

    def drop_clean(self, memcg: uint32_t, nbytes: int64_t):
        self._memcg(memcg)
        c = self.core
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            freed = clean_drop(c, memcg, nbytes, 0)
            uz_leave(cython.address(c.gate))
        return freed

    def uncharge(self, memcg: uint32_t, nbytes: int64_t):
        self._memcg(memcg)
        self._add(memcg, C_RESIDENT, -nbytes)
