"""Recompression: what stayed cold in the pool is compressed again, with a slower codec, where it lies.

The walk is that of writeback: from the cold end of an LRU, with the same second chance.  An entry keeps its place there
and its age.  Its bytes are copied under the lock and compressed without it; nobody is kept from loading, freeing or
writing it meanwhile.  The new bytes take the place of the old only if the entry is still what it was, and if they save
a size class of the pool.

A byte shuffle is kept.  Values that were compressed with a dictionary are left alone: nothing general does better.
"""

import cython
from cython.cimports.libc.errno import ENOMEM
from cython.cimports.libc.stdint import int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.codec import MAX_ENTRY_BYTES, compress, decompress, worker_io
from cython.cimports.uzswap.core.store.codecs import codec_slot
from cython.cimports.uzswap.core.store.entries import (
    C_INCOMP,
    C_ZSWAP,
    CLEAN,
    G_STORED_INCOMP,
    HELD,
    IN_POOL,
    MEMCG_ONLINE,
    REFERENCED,
    TRIED,
    WRITING,
    Delta,
    entry_at,
    handle_of,
    lru_rotate,
    owner_of,
)
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.pool import class_of, pool_alloc, pool_free
from cython.cimports.uzswap.core.store.state import codec_unref, whole_pages, worker_get, worker_put
from cython.cimports.uzswap.core.store.walk import PASSES_PER_SCAN


def next_entry(c, w, owner):
    """The entry at which the walk continues; 0 at the end."""
    t = cython.address(c.t)
    if w.position:
        e = entry_at(t, w.position)
        if (
            e != cython.NULL
            and e.state == IN_POOL
            and not e.flags & (WRITING | CLEAN)
            and e.node == w.node
            and owner_of(t, e) == owner
        ):
            return e.next
    return t.memcgs[owner].lru[w.node].head


def take_one(c, w, index, owner, a):
    """Meet one entry.  Whether it was taken: its bytes are copied, the codecs that it needs pinned."""
    t = cython.address(c.t)
    e = cython.address(t.entries[index])
    codec = cython.address(c.codecs[e.codec])
    pointless: cython.bint = (
        codec.dictionary != cython.NULL
        or (codec.algorithm == w.algorithm and codec.level == w.level)
        or (e.flags & TRIED and not w.flags & RECOMPRESS_AGAIN)
    )
    if pointless or e.flags & HELD or e.born > w.youngest:
        w.position = handle_of(t, index)
        return 0
    w.scanned += 1
    if e.flags & REFERENCED:
        e.flags &= ~REFERENCED
        lru_rotate(t, index, owner)
        w.rotated += 1
        return 0
    w.position = handle_of(t, index)
    target = codec_slot(c, w.algorithm, w.level, codec.filter)
    if target < 0:
        return 0
    a.index = index
    a.gen = e.gen
    a.data = e.data
    a.length = cython.cast(uint32_t, e.length_1) + 1
    a.size = cython.cast(uint32_t, e.size_1) + 1
    a.codec = e.codec
    a.target = target
    codec.users += 1
    c.codecs[target].users += 1
    memcpy(cython.cast(cython.p_char, a.copy), cython.cast(cython.p_char, e.data), a.length)
    w.taken_bytes += a.length
    return 1


def take_step(c, w):
    """How many entries were taken; sets w.exhausted at the end of the LRU."""
    t = cython.address(c.t)
    k: cython.int = 0
    used: uint32_t = 0
    copies = w.worker.io
    pthread_mutex_lock(cython.address(c.lock))
    if t.memcgs[w.memcg].state != MEMCG_ONLINE:
        w.exhausted = 1
    while not w.exhausted and k < STEP_PAGES and w.scanned < w.nr_to_scan and w.taken_bytes < w.budget and w.passes > 0:
        w.passes -= 1
        index = next_entry(c, w, w.memcg)
        if not index or t.entries[index].stamp > w.since:
            w.exhausted = 1
            break
        length = cython.cast(uint32_t, t.entries[index].length_1) + 1
        if used + length > COPIED_BYTES:
            break
        a = cython.address(w.step[k])
        a.copy = copies + used
        if take_one(c, w, index, w.memcg, a):
            used += length
            k += 1
    pthread_mutex_unlock(cython.address(c.lock))
    return k


def pack_step(c, w, k):
    """Compress what was taken with the other codec.  Called without the lock."""
    plain = w.worker.io + COPIED_BYTES
    out = w.worker.scratch
    j: cython.int
    for j in range(k):
        a = cython.address(w.step[j])
        a.packed = cython.NULL
        if a.length == a.size:
            memcpy(plain, a.copy, a.size)
        elif decompress(w.worker, cython.address(c.codecs[a.codec]), a.copy, a.length, plain, a.size):
            continue  # whoever loads it is told
        n = compress(w.worker, cython.address(c.codecs[a.target]), plain, a.size, out)
        if n > 0 and cython.cast(uint32_t, n) < a.length:
            # What is kept of a step is smaller than what was copied; so the next result has room.
            a.packed = out
            a.packed_length = cython.cast(uint32_t, n)
            out += n


def settle_step(c, w, k):
    """Put the new bytes where the old are, of entries that are what they were."""
    t = cython.address(c.t)
    d: Delta
    j: cython.int
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(c.lock))
    for j in range(k):
        a = cython.address(w.step[j])
        c.codecs[a.codec].users -= 1
        c.codecs[a.target].users -= 1
        e = cython.address(t.entries[a.index])
        # The address too: it may have been compressed again by somebody else.
        if e.gen != a.gen or e.state != IN_POOL or e.data != a.data or e.flags & (HELD | WRITING | CLEAN):
            w.gone += 1
            continue
        obj = cython.cast(cython.p_char, cython.NULL)
        if a.packed != cython.NULL and c.pool.size[class_of(a.packed_length)] < c.pool.size[class_of(a.length)]:
            obj = pool_alloc(cython.address(c.pool), a.packed_length)
        if obj == cython.NULL:
            e.flags |= TRIED
            w.refused += 1
            c.recompressed.refused += 1
            continue
        memcpy(obj, a.packed, a.packed_length)
        pool_free(cython.address(c.pool), cython.cast(cython.p_char, e.data))
        e.data = cython.cast(uint64_t, cython.cast(cython.size_t, obj))
        e.length_1 = cython.cast(uint16_t, a.packed_length - 1)
        e.codec = cython.cast(uint8_t, a.target)
        owner = owner_of(t, e)
        delta_add(t, cython.address(d), owner, C_ZSWAP, cython.cast(int64_t, a.packed_length) - a.length)
        if a.length == a.size:
            delta_add(t, cython.address(d), owner, C_INCOMP, -whole_pages(a.size))
            t.totals[G_STORED_INCOMP] -= whole_pages(a.size) >> 12
        c.codecs[a.codec].entries -= 1
        codec_unref(c, a.codec)
        c.codecs[a.target].entries += 1
        c.codecs[a.target].refs += 1
        w.entries += 1
        w.bytes_before += a.length
        w.bytes_after += a.packed_length
        c.recompressed.entries += 1
        c.recompressed.bytes_before += a.length
        c.recompressed.bytes_after += a.packed_length
    delta_apply(t, cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))


def recompress(c, w):
    """Meet entries of one LRU from the coldest on, until a bound of w is reached.  Called without the lock."""
    w.worker = worker_get(c)
    if w.worker == cython.NULL:
        w.error = ENOMEM
        return
    if worker_io(w.worker, COPIED_BYTES + MAX_ENTRY_BYTES) == cython.NULL:
        w.error = ENOMEM
    w.passes = PASSES_PER_SCAN * w.nr_to_scan
    while not w.error and not w.exhausted and w.scanned < w.nr_to_scan and w.taken_bytes < w.budget and w.passes > 0:
        k = take_step(c, w)
        pack_step(c, w, k)
        settle_step(c, w, k)
    worker_put(c, w.worker)
