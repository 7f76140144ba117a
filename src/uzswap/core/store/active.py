"""The memcgs that have something to give, without a look at those that have not.

A memcg is active while its subtree has resident or compressed bytes.  Each keeps its active children in a list, so a
request over ten thousand idle cgroups and three busy ones meets three.

Invariant, held whenever the engine lock is free: an online memcg but the root is on its parent's list exactly when
``counters[C_RESIDENT]`` and ``counters[C_ZSWAP]`` add up to something.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdint import int64_t
from cython.cimports.uzswap.core.store.entries import C_RESIDENT, C_ZSWAP, MEMCG_ONLINE, NO_MEMCG, NR_NODES


def active_update(t, m):
    """Put a memcg on its parent's list or take it off, as its counters say now."""
    g = cython.address(t.memcgs[m])
    if g.parent == NO_MEMCG or g.state != MEMCG_ONLINE:
        return
    wanted: cython.bint = g.counters[C_RESIDENT] + g.counters[C_ZSWAP] != 0
    if wanted == g.active:
        return
    if not wanted:
        active_leave(t, m)
        return
    p = cython.address(t.memcgs[g.parent])
    g.active = 1
    g.prev_active = 0
    g.next_active = p.first_active
    if p.first_active:
        t.memcgs[p.first_active].prev_active = m
    p.first_active = m
    p.nr_active += 1


def active_leave(t, m):
    """Take a memcg off its parent's list, if it is on it."""
    g = cython.address(t.memcgs[m])
    if not g.active:
        return
    p = cython.address(t.memcgs[g.parent])
    if g.prev_active:
        t.memcgs[g.prev_active].next_active = g.next_active
    else:
        p.first_active = g.next_active
    if g.next_active:
        t.memcgs[g.next_active].prev_active = g.prev_active
    g.active = 0
    p.nr_active -= 1


def sink(t, heap, at, n):
    """Let what is at a place of a heap, whose root is the youngest, go down to where it belongs."""
    moving = heap[at]
    while 2 * at + 1 < n:
        child = 2 * at + 1
        if child + 1 < n and t.memcgs[heap[child + 1]].birth > t.memcgs[heap[child]].birth:
            child += 1
        if t.memcgs[moving].birth >= t.memcgs[heap[child]].birth:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moving


def sort_by_birth(t, memcgs, n):
    """Oldest first.  Heapsort: in place, and no worse for any order."""
    i: int64_t = n // 2
    while i > 0:
        i -= 1
        sink(t, memcgs, i, n)
    while n > 1:
        n -= 1
        youngest = memcgs[0]
        memcgs[0] = memcgs[n]
        memcgs[n] = youngest
        sink(t, memcgs, 0, n)


def active_list(t, root, which, only_writeback, out, room):
    """List the memcgs of a subtree that have what `which` asks for, in pre-order, children in the order of their birth.

    only_writeback: leave out memcgs whose writeback is off, with their subtrees.  How many are listed, in `out`; -1
    when that, which has room for so many indices, is too small.
    """
    # Those still to be visited stand at the end of `out`, the next one first.
    found: int64_t = 0
    todo: int64_t = room - 1
    resident: int64_t
    node: cython.int
    if room < 1:
        return -1
    out[todo] = root
    while todo < room:
        m = out[todo]
        todo += 1
        g = cython.address(t.memcgs[m])
        if only_writeback and not g.writeback:
            continue
        if found + g.nr_active + 1 > todo:
            return -1
        resident = g.counters[C_RESIDENT]
        n: int64_t = 0
        child = g.first_active
        while child:
            todo -= 1
            out[todo] = child
            n += 1
            resident -= t.memcgs[child].counters[C_RESIDENT]
            child = t.memcgs[child].next_active
        sort_by_birth(t, out + todo, n)
        wanted: cython.bint = which & HAS_RESIDENT and resident > 0
        if which & HAS_LRU:
            for node in range(NR_NODES):
                wanted |= g.lru[node].length != 0
        if wanted:
            out[found] = m
            found += 1
    return found
