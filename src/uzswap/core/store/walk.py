"""The walk over LRUs: second chance, and the coldest first where several LRUs are walked as one.

Semantics: SPEC 4 and 5.1 for one LRU, 10.3 for the merge.  The walk decides about single entries only; how many, for
whom, and what a failure means to the request is the caller's.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.uzswap.core.libc_ext import (
    prefetch,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.store.entries import (
    CLEAN,
    FAILED,
    HELD,
    IN_POOL,
    REFERENCED,
    WRITING,
    entry_at,
    handle_of,
    lru_del,
    lru_rotate,
    owner_of,
)
from cython.cimports.uzswap.core.store.flight import fail_entry
from cython.cimports.uzswap.core.store.stream import stream_advance, stream_append, stream_fits

# The stamp of an LRU that has nothing left.
NEVER = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)


def walk_next(c, w, j):
    """The entry at which LRU j continues: behind the last that was passed over, else the head.  0 at the end."""
    t = cython.address(c.t)
    memcg = cython.cast(uint32_t, w.lrus[j] >> 8)
    node = cython.cast(cython.int, w.lrus[j] & 0xFF)
    if w.positions[j]:
        e = entry_at(t, w.positions[j])
        if (
            e != cython.NULL
            and e.state == IN_POOL
            and not e.flags & (WRITING | CLEAN)
            and e.node == node
            and owner_of(t, e) == memcg
        ):
            return e.next
        w.positions[j] = 0
    return t.memcgs[memcg].lru[node].head


def walk_one(c, s, w, j, index):
    """Meet one entry.  Returns 0 to go on, 1 when the walk is over, 2 when the stream has no room for it."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    memcg = cython.cast(uint32_t, w.lrus[j] >> 8)
    if e.flags & FAILED and e.stamp <= w.since:
        e.flags &= ~FAILED
    if e.born > w.youngest or (e.flags & FAILED and not w.flags & WALK_RETRY_FAILED):
        w.positions[j] = handle_of(t, index)
        return 0
    length = cython.cast(uint32_t, e.length_1) + 1
    if e.next:
        prefetch(cython.cast(cython.p_void, t.entries[e.next].data))
    if e.flags & REFERENCED:
        e.flags &= ~REFERENCED
        lru_rotate(t, index, memcg)
        w.rotated += 1
    elif e.flags & HELD:
        lru_del(t, index, memcg)
        fail_entry(c, index, memcg)
        w.exist += 1
        if w.flags & WALK_STOP_ON_EXIST:
            w.scanned += 1
            w.stopped = 1
            return 1
    elif stream_fits(s, length):
        lru_del(t, index, memcg)
        e.flags |= WRITING
        stream_append(s, c, index, cython.cast(cython.p_char, e.data), 0)
        w.entries += 1
        w.nbytes += length
    elif not s.no_space:
        return 2
    else:
        lru_del(t, index, memcg)
        fail_entry(c, index, memcg)
        w.nospace += 1
    w.scanned += 1
    return w.scanned >= w.nr_to_scan or w.nbytes >= w.budget


def heap_key(c, w, i):
    index = walk_next(c, w, w.heap[i])
    return c.t.entries[index].stamp if index else NEVER


def heap_down(c, w, i, n):
    """Sift down by the stamp of the entry that each LRU continues with: the coldest LRU is at the top."""
    key = heap_key(c, w, i)
    while 2 * i + 1 < n:
        child = 2 * i + 1
        child_key = heap_key(c, w, child)
        if child + 1 < n:
            other = heap_key(c, w, child + 1)
            if other < child_key:
                child += 1
                child_key = other
        if key <= child_key:
            return
        swap = w.heap[i]
        w.heap[i] = w.heap[child]
        w.heap[child] = swap
        i = child


def walk(c, s, w):
    """Meet entries from the coldest on, until a bound of w is reached.  Called without the lock."""
    t = cython.address(c.t)
    passes = PASSES_PER_SCAN * w.nr_to_scan
    n = w.nr_lrus
    i: uint32_t
    index: uint32_t
    if w.nr_to_scan <= 0 or w.budget <= 0:
        return
    pthread_mutex_lock(cython.address(c.lock))
    for i in range(n):
        w.heap[i] = i
    for i in range(n // 2):
        heap_down(c, w, n // 2 - 1 - i, n)
    while True:
        index = walk_next(c, w, w.heap[0]) if n else 0
        if not index:
            w.exhausted = 1
            break
        over = walk_one(c, s, w, w.heap[0], index)
        if over == 1:
            break
        if over == 2:
            length = cython.cast(uint32_t, t.entries[index].length_1) + 1
            pthread_mutex_unlock(cython.address(c.lock))
            stream_advance(c, s, length)
            pthread_mutex_lock(cython.address(c.lock))
            # The lists may have changed meanwhile: the heap is made anew.
            for i in range(n // 2):
                heap_down(c, w, n // 2 - 1 - i, n)
            continue
        passes -= 1
        if passes <= 0:
            break
        if n > 1:
            heap_down(c, w, 0, n)
    if not w.exhausted and not w.stopped:
        # Told at once, so that the caller need not come again to find nothing.  The entry met last may have been the
        # last of its LRU, which is then no longer the coldest.
        if n > 1:
            heap_down(c, w, 0, n)
        w.exhausted = walk_next(c, w, w.heap[0]) == 0 if n else 1
    pthread_mutex_unlock(cython.address(c.lock))
