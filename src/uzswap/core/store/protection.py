"""``memory.min`` and ``memory.low`` at work: how much of a memcg a reclaim has to spare (mm/page_counter.c).

What a memcg sets is not what it gets: its ancestors' settings bound it, and siblings that together claim more than
their parent has share it by use.  What children do not claim of their parent's protection is shared among them by use
as well, which the kernel does with the mount option ``memory_recursiveprot`` (systemd's default).

Each memcg knows how much of its use is protected by its own setting, and the sum of that over its children; both follow
every charge (delta_apply), so an answer costs a look at each ancestor.  The caller holds Core.lock.
"""

import cython
from cython.cimports.libc.stdint import int64_t
from cython.cimports.uzswap.core.store.entries import C_RESIDENT, C_ZSWAP, NO_MEMCG


def protection_changed(t, m):
    """The use or the settings of a memcg have changed: tell its parent what it claims."""
    g = cython.address(t.memcgs[m])
    usage: int64_t = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
    claimed_min: int64_t = usage if usage < g.memory_min else g.memory_min
    claimed_low: int64_t = usage if usage < g.memory_low else g.memory_low
    if g.parent != NO_MEMCG:
        t.memcgs[g.parent].children_min += claimed_min - g.claimed_min
        t.memcgs[g.parent].children_low += claimed_low - g.claimed_low
    g.claimed_min = claimed_min
    g.claimed_low = claimed_low


def share_of(usage, parent_usage, setting, parent_effective, siblings):
    """What a child's setting is worth, in bytes (effective_protection() of the kernel).

    siblings: the sum over the parent's children, this one included, of min(usage, setting).
    """
    protected: int64_t = usage if usage < setting else setting
    if siblings > parent_effective:
        return uz_share(protected, parent_effective, siblings)
    if parent_effective > siblings and parent_usage > siblings and usage > protected:
        return protected + uz_share(parent_effective - siblings, usage - protected, parent_usage - siblings)
    return protected


def effective_protection(t, m, root, minimum, low):
    """What a memcg of root's subtree is granted when root is reclaimed, in bytes.  Root itself is granted nothing."""
    minimum[0] = low[0] = 0
    if m == root:
        return
    while t.memcgs[m].parent != root:
        t.memcgs[t.memcgs[m].parent].toward = m
        m = t.memcgs[m].parent
    minimum[0] = t.memcgs[m].memory_min
    low[0] = t.memcgs[m].memory_low
    while t.memcgs[m].toward:
        parent = cython.address(t.memcgs[m])
        parent_usage: int64_t = parent.counters[C_RESIDENT] + parent.counters[C_ZSWAP]
        m = parent.toward
        parent.toward = 0
        g = cython.address(t.memcgs[m])
        usage: int64_t = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
        minimum[0] = share_of(usage, parent_usage, g.memory_min, minimum[0], parent.children_min) if minimum[0] else 0
        low[0] = share_of(usage, parent_usage, g.memory_low, low[0], parent.children_low) if low[0] else 0


def unprotected(t, m, root, n, leaving, take_low, said):
    """How much of `n` that a memcg has itself, pages or bytes, a reclaim of root may take now.

    As shrink_node_memcgs() and get_scan_count() of mm/vmscan.c.  `leaving`: bytes that are on their way out already,
    and are charged until they are gone.  Adds to `said` what became of memory.low.
    """
    minimum: int64_t = 0
    low: int64_t = 0
    if not t.nr_protected:
        return n
    effective_protection(t, m, root, cython.address(minimum), cython.address(low))
    g = cython.address(t.memcgs[m])
    usage: int64_t = g.counters[C_RESIDENT] + g.counters[C_ZSWAP] - leaving
    if minimum and usage <= minimum:
        return 0
    if low and usage <= low:
        if not take_low:
            said[0] |= LOW_SPARED
            return 0
        said[0] |= LOW_BREACHED
    protection: int64_t = minimum
    if low > minimum and not take_low:
        said[0] |= LOW_SPARED
        protection = low
    return n - uz_share(n, protection, (usage if usage > protection else protection) + 1)
