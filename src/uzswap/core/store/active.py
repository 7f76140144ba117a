"""The memcgs that have something to give, without a look at those that have not.

A memcg is active while its subtree has resident or compressed bytes.  Each keeps its active children in a list, so a
request over ten thousand idle cgroups and three busy ones meets three.

Invariant, held whenever the engine lock is free: an online memcg but the root is on its parent's list exactly when
``counters[C_RESIDENT]`` and ``counters[C_ZSWAP]`` add up to something.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
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
        n: int64_t = 0
        child = g.first_active
        while child:
            todo -= 1
            out[todo] = child
            n += 1
            child = t.memcgs[child].next_active
        sort_by_birth(t, out + todo, n)
        if has(t, m, which):
            out[found] = m
            found += 1
    return found


def has(t, m, which):
    """Whether a memcg itself has some of what `which` asks for."""
    g = cython.address(t.memcgs[m])
    node: cython.int
    if which & HAS_COPIES and g.clean.length:
        return 1
    if which & HAS_LRU:
        for node in range(NR_NODES):
            if g.lru[node].length:
                return 1
    if which & HAS_RESIDENT and g.counters[C_RESIDENT]:
        resident = g.counters[C_RESIDENT]
        child = g.first_active
        while child:
            resident -= t.memcgs[child].counters[C_RESIDENT]
            child = t.memcgs[child].next_active
        return resident > 0
    return 0


def active_step(t, m, root, inside):
    """The next active memcg of a subtree in pre-order, past the children of m unless inside; NO_MEMCG at the end."""
    if inside and t.memcgs[m].first_active:
        return t.memcgs[m].first_active
    while m != root:
        if t.memcgs[m].next_active:
            return t.memcgs[m].next_active
        m = t.memcgs[m].parent
    return NO_MEMCG


def active_after(t, root, which, only_writeback, birth):
    """The eldest memcg of a subtree that has something, of those born after `birth` if there are any; or NO_MEMCG."""
    first: uint32_t = NO_MEMCG
    later: uint32_t = NO_MEMCG
    m = root
    while m != NO_MEMCG:
        g = cython.address(t.memcgs[m])
        inside: cython.bint = g.writeback or not only_writeback
        if inside and has(t, m, which):
            if first == NO_MEMCG or g.birth < t.memcgs[first].birth:
                first = m
            if g.birth > birth and (later == NO_MEMCG or g.birth < t.memcgs[later].birth):
                later = m
        m = active_step(t, m, root, inside)
    return first if later == NO_MEMCG else later


def active_turn(t, root, which, only_writeback, after, round):
    """Whose turn it is, `after` saying who was served last; NO_MEMCG when all were met since the round began.

    Who gets something of one sets round.began to 0, and goes on.
    """
    m = active_after(t, root, which, only_writeback, after[0])
    if m == NO_MEMCG:
        return m
    birth = t.memcgs[m].birth
    if not round.began:
        round.began = birth
        round.met = 0
    elif birth == round.began or round.met > t.next_memcg:  # or whom the round began with has nothing any more
        return NO_MEMCG
    round.met += 1
    after[0] = birth
    return m


def active_coldest(t, root):
    """The memcg of a subtree with the entry that has waited longest, of those that may be written back; or NO_MEMCG."""
    coldest: uint32_t = NO_MEMCG
    oldest: uint64_t = 0
    node: cython.int
    m = root
    while m != NO_MEMCG:
        g = cython.address(t.memcgs[m])
        if g.writeback:
            for node in range(NR_NODES):
                head = g.lru[node].head
                if head and (coldest == NO_MEMCG or t.entries[head].stamp < oldest):
                    coldest = m
                    oldest = t.entries[head].stamp
        m = active_step(t, m, root, g.writeback)
    return coldest
