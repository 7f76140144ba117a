"""The memcgs and their counters: made, removed, charged.

Invariants, held whenever the engine lock is free:

* a level of a memcg is the sum over the entries owned by its subtree; what the root itself owns is in ``totals`` only,
  as in the kernel, where pages of the root cgroup are not charged;
* ``Memcg.refs`` counts the entries that name it, its children and itself while online, so a removed memcg's record
  outlives it exactly as long as something points there.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.store.active import active_leave, active_update
from cython.cimports.uzswap.core.store.entries import (
    C_RESIDENT,
    C_SWAP,
    C_ZSWAP,
    C_ZSWPWB,
    MEMCG_DEAD,
    MEMCG_FREE,
    MEMCG_ONLINE,
    NO_MEMCG,
    NR_COUNTERS,
    NR_LEVELS,
    NR_NODES,
    ROOT,
    Memcg,
    lru_splice,
)
from cython.cimports.uzswap.core.store.protection import protection_changed

UNLIMITED = cython.declare(int64_t, 1 << 62)
# Removed memcgs whose number is not given out again yet: a request that runs while cgroups come and go must not meet a
# new one under the number of an old one.
REUSE_DISTANCE = cython.declare(uint32_t, 1024)


def memcg_alloc(t, parent):
    m: uint32_t
    if t.free_memcg and (t.nr_free_memcgs > REUSE_DISTANCE or t.next_memcg == t.max_memcgs):
        m = t.free_memcg - 1
        t.free_memcg = t.memcgs[m].next_free
        t.nr_free_memcgs -= 1
    elif t.next_memcg < t.max_memcgs:
        m = t.next_memcg
        t.next_memcg += 1
    else:
        return NO_MEMCG
    g = cython.address(t.memcgs[m])
    memset(g, 0, cython.sizeof(Memcg))
    g.parent = parent
    t.last_birth += 1
    g.birth = t.last_birth
    g.refs = 1
    g.state = MEMCG_ONLINE
    g.writeback = 1
    g.zswap_max = g.memory_high = g.memory_max = g.resident_max = g.swap_high = g.swap_max = UNLIMITED
    if parent != NO_MEMCG:
        t.memcgs[parent].refs += 1
    return m


def memcg_unref(t, m):
    while True:
        g = cython.address(t.memcgs[m])
        g.refs -= 1
        if g.refs:
            return
        parent = g.parent
        g.state = MEMCG_FREE
        # Who still comes along with its number meets the root next, and ends.
        g.parent = ROOT
        g.next_free = 0
        if t.free_memcg:
            t.memcgs[t.last_free_memcg - 1].next_free = m + 1
        else:
            t.free_memcg = m + 1
        t.last_free_memcg = m + 1
        t.nr_free_memcgs += 1
        m = parent


def memcg_offline(t, m):
    """Entries go to the parent, at the head of its LRUs: scanned before the parent's own (list_lru reparenting)."""
    g = cython.address(t.memcgs[m])
    p = cython.address(t.memcgs[g.parent])
    node: cython.int
    k: cython.int
    for node in range(NR_NODES):
        lru_splice(t, cython.address(g.lru[node]), cython.address(p.lru[node]))
    lru_splice(t, cython.address(g.clean), cython.address(p.clean))
    p.stored += g.stored
    g.stored = 0
    if g.parent == ROOT:
        # Resident memory is the exception: the root shows its own, so it keeps what becomes its own.
        for k in range(NR_LEVELS):
            if k != C_RESIDENT:
                p.counters[k] -= g.counters[k]
    active_leave(t, m)
    memcg_protect(t, m, 0, 0)
    g.state = MEMCG_DEAD
    memcg_unref(t, m)


def memcg_protect(t, m, minimum, low):
    """Set memory.min and memory.low."""
    g = cython.address(t.memcgs[m])
    t.nr_protected -= g.memory_min != 0 or g.memory_low != 0
    g.memory_min = minimum
    g.memory_low = low
    t.nr_protected += minimum != 0 or low != 0
    protection_changed(t, m)


def in_subtree(t, m, root):
    while m != root:
        if m == ROOT:
            return 0
        m = t.memcgs[m].parent
    return 1


def writeback_allowed(t, m):
    while m != NO_MEMCG:
        if not t.memcgs[m].writeback:
            return 0
        m = t.memcgs[m].parent
    return 1


def delta_add(t, d, m, counter, value):
    if d.memcg != m:
        delta_apply(t, d)
        d.memcg = m
    d.counters[counter] += value
    d.dirty = 1


def delta_apply(t, d):
    if not d.dirty:
        return
    k: cython.int
    for k in range(NR_COUNTERS):
        t.totals[k] += d.counters[k]
    m = d.memcg
    # The root cgroup's own pages are not charged to it (its zswap events neither): it shows its descendants only.
    own_root: cython.bint = m == ROOT
    while m != NO_MEMCG:
        g = cython.address(t.memcgs[m])
        for k in range(NR_COUNTERS):
            if not (own_root and k <= C_ZSWPWB and k != C_RESIDENT):
                g.counters[k] += d.counters[k]
        current = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
        if (current != 0) != g.active:
            active_update(t, m)
        if t.nr_protected:
            protection_changed(t, m)
        if current > g.memory_peak:
            g.memory_peak = current
        if current > g.memory_peak_local:
            g.memory_peak_local = current
        if g.counters[C_SWAP] > g.swap_peak:
            g.swap_peak = g.counters[C_SWAP]
        if g.counters[C_SWAP] > g.swap_peak_local:
            g.swap_peak_local = g.counters[C_SWAP]
        m = g.parent
    memset(cython.address(d.counters), 0, cython.sizeof(int64_t) * NR_COUNTERS)
    d.dirty = 0


def over_zswap_max(t, d, m):
    """SPEC 2.4 "may store": every ancestor but the root has fewer than its limit of whole pages."""
    pending = d.counters[C_ZSWAP] if d.memcg == m else 0
    while m != ROOT:
        g = cython.address(t.memcgs[m])
        if g.zswap_max != UNLIMITED and (g.counters[C_ZSWAP] + pending) >> 12 >= g.zswap_max:
            return 1
        m = g.parent
    return 0


def over_swap_max(t, d, m, more):
    pending = d.counters[C_SWAP] if d.memcg == m else 0
    while m != ROOT:
        g = cython.address(t.memcgs[m])
        if g.swap_max != UNLIMITED and g.counters[C_SWAP] + pending + more > g.swap_max:
            return 1
        m = g.parent
    return 0
