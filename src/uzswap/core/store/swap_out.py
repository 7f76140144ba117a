"""Storing pages: the kernel's swap-out decision (SPEC 2.2 and 3.1) for many pages in one call.

A step classifies and compresses up to STEP_PAGES pages outside the lock, then places them under it.  A folio of several
pages is all or nothing: when one page of it is refused, those before it are taken out again and the whole folio goes
where refused pages go.
"""

import cython
from cython.cimports.libc.errno import ENODEV, ENOMEM, ENOSPC
from cython.cimports.libc.stdint import int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock, uz_read_int
from cython.cimports.uzswap.core.store.clean import clean_drop_locked
from cython.cimports.uzswap.core.store.codec import (
    MAX_ENTRY_BYTES,
    STEP_BYTES,
    Codec,
    compress,
    compress_bound,
    same_filled,
    worker_io,
)
from cython.cimports.uzswap.core.store.codecs import codec_slot
from cython.cimports.uzswap.core.store.entries import (
    C_INCOMP,
    C_METADATA,
    C_SAME_FILLED,
    C_SWAP,
    C_SWPOUT_ZERO,
    C_ZSWAP,
    C_ZSWAPPED,
    C_ZSWPOUT,
    G_ALLOC_FAIL,
    G_COMPRESS_FAIL,
    G_COMPRESS_POOR,
    G_KMEMCACHE_FAIL,
    G_POOL_LIMIT_HIT,
    G_STORED,
    G_STORED_INCOMP,
    GOING_TO_DISK,
    IN_POOL,
    IS_SAME,
    IS_ZERO,
    MEMCG_DEAD,
    MEMCG_ONLINE,
    REFERENCED,
    ROOT,
    SHARED,
    entry_alloc,
    entry_at,
    handle_of,
    lru_add_tail,
    owner_of,
    record_of_entry_bytes,
)
from cython.cimports.uzswap.core.store.histogram import H_LENGTH, bucket_of_length, observe
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply, memcg_unref, over_swap_max, over_zswap_max
from cython.cimports.uzswap.core.store.pool import pool_alloc, pool_free
from cython.cimports.uzswap.core.store.state import (
    born_units,
    core_now,
    entry_drop,
    may_write_back,
    whole_pages,
    worker_get,
    worker_put,
)
from cython.cimports.uzswap.core.store.stream import (
    stream_advance,
    stream_append,
    stream_finish,
    stream_fits,
    stream_get,
    stream_put,
)
from cython.cimports.uzswap.core.store.sums import sum_of

# When the pool is found full the caller should wake the shrink worker; going on a while first keeps the writes to the
# device large.
PAGES_AFTER_KICK = cython.declare(int64_t, 512)

# Bytes of clean copies that go at once for memory.zswap.max or a full pool: about a batch of evicted pages.
COPIES_DROPPED = cython.declare(int64_t, 128 << 10)


def size_of(s, i):
    """Bytes of page i."""
    if s.spans != cython.NULL:
        return s.spans[i].size
    left: uint64_t = s.nbytes - cython.cast(uint64_t, i) * s.page
    return cython.cast(uint32_t, left if left < s.page else s.page)


def next_step(s, i):
    """How many pages from i on fit into a step."""
    k: cython.int = 0
    nbytes: int64_t = 0
    while k < STEP_PAGES and i + k < s.n:
        nbytes += size_of(s, i + k)
        if nbytes > STEP_BYTES:
            break
        k += 1
    return k


def prepare(c, s, i, k):
    """Classify and compress pages i .. i + k - 1.  Called without the lock."""
    out = s.worker.scratch
    j: cython.int
    for j in range(k):
        p = cython.address(s.pages[j])
        p.src = s.data + cython.cast(uint64_t, i + j) * s.page if s.spans == cython.NULL else s.spans[i + j].data
        p.size = size_of(s, i + j)
        p.packed = out
        if c.t.sums != cython.NULL:
            # The sum has to be that of what is compressed, which somebody may be writing to.
            memcpy(s.worker.io, p.src, p.size)
            p.src = s.worker.io
            p.sum = sum_of(p.src, p.size)
        p.filled = same_filled(p.src, p.size, cython.address(p.word)) and (
            p.word == 0 or uz_read_int(cython.address(c.same_as_value))
        )
        if not p.filled:
            p.codec = s.small if s.small >= 0 and p.size <= s.small_bytes else s.codec
            p.length = compress(s.worker, cython.address(c.codecs[p.codec]), p.src, p.size, out)
            p.raw = p.length <= 0 or cython.cast(uint32_t, p.length) >= p.size
            if p.raw:
                # The source may be paged memory: under the lock nothing may be read that can fault.
                memcpy(out, p.src, p.size)
            out += compress_bound(p.size)


def admit(c, s, i, p):
    """The checks made once a folio, at its first page i: the swap charge, then S1 to S3.  0: the call must return."""
    t = cython.address(c.t)
    d = cython.address(s.delta)
    s.refused = 0
    s.folio_start = i
    if s.flags & STORE_FORCE:
        s.writeback = may_write_back(c, s.memcg)
        return 1
    folio: uint64_t = size_of(s, i)
    if s.folio > 1:
        folio = cython.cast(uint64_t, s.folio) * s.page
        left: uint64_t = s.nbytes - cython.cast(uint64_t, i) * s.page
        if left < folio:
            folio = left
    if over_swap_max(t, d, s.memcg, cython.cast(int64_t, (folio + 4095) & ~4095)):
        s.reason = STORE_OVER_SWAP
        return 0
    s.writeback = may_write_back(c, s.memcg)
    if p.filled and s.folio == 1:
        return 1
    flags = s.flags if i == s.start else 0
    if not c.enabled or flags & STORE_REFUSE:
        s.refused = 1
        return 1
    if not flags & STORE_SKIP_LIMIT and over_zswap_max(t, d, s.memcg) and not drop_copies_for(c, s):
        s.reason = STORE_OVER_LIMIT
        return 0
    if c.pool.pages >= c.pool_max or c.reached_full:
        # Pages of the pool, not bytes, have to become free: what else lies in them stays, so this is a try.
        clean_drop_locked(c, ROOT, ((c.pool.pages - c.pool_accept) << 12) + COPIES_DROPPED, 0, 0)
    if c.pool.pages >= c.pool_max:
        t.totals[G_POOL_LIMIT_HIT] += 1
        c.reached_full = 1
    elif c.reached_full and c.pool.pages <= c.pool_accept:
        c.reached_full = 0
    if c.reached_full:
        s.refused = 1
        s.kicked += s.kicked == 0
    return 1


def drop_copies_for(c, s):
    """Whether the page fits below every memory.zswap.max after clean copies have gone."""
    t = cython.address(c.t)
    d = cython.address(s.delta)
    m = s.memcg
    # What is pending counts too when it is asked whose limit it is.
    delta_apply(t, d)
    while over_zswap_max(t, d, s.memcg):
        while m != ROOT and t.memcgs[m].counters[C_ZSWAP] >> 12 < t.memcgs[m].zswap_max:
            m = t.memcgs[m].parent
        if m == ROOT:
            return 0
        if clean_drop_locked(c, m, COPIES_DROPPED, 0, 0) == 0:
            m = t.memcgs[m].parent
    return 1


def new_entry(c, s, p, state, length):
    """An entry charged to the swap level of its memcg; 0 without memory."""
    t = cython.address(c.t)
    index = entry_alloc(t)
    if not index:
        return 0
    e = cython.address(t.entries[index])
    e.memcg = s.memcg
    e.node = cython.cast(uint8_t, s.node)
    e.state = cython.cast(uint8_t, state)
    e.codec = cython.cast(uint8_t, p.codec)
    e.size_1 = cython.cast(uint16_t, p.size - 1)
    e.length_1 = cython.cast(uint16_t, length - 1 if length else 0)
    if t.sums != cython.NULL:
        t.sums[index] = p.sum
    t.memcgs[s.memcg].refs += 1
    delta_add(t, cython.address(s.delta), s.memcg, C_METADATA, record_of_entry_bytes(t))
    delta_add(t, cython.address(s.delta), s.memcg, C_SWAP, whole_pages(p.size))
    return index


def filled_entry(c, s, p):
    """An entry for a same-filled page: with s.shares the one that the memcg's last page of this value has, if any.

    So pages of one value, of which there may be very many, cost no entry each.  0 without memory.
    """
    t = cython.address(c.t)
    last: cython.pointer(uint64_t) = cython.address(t.memcgs[s.memcg].filled[p.word != 0])
    if s.shares:
        e = entry_at(t, last[0])
        if (
            e != cython.NULL
            and e.data == p.word
            and cython.cast(uint32_t, e.size_1) + 1 == p.size
            and owner_of(t, e) == s.memcg
        ):
            e.stamp += 1
            delta_add(t, cython.address(s.delta), s.memcg, C_SWAP, whole_pages(p.size))
            return cython.cast(uint32_t, last[0])
    index = new_entry(c, s, p, IS_SAME if p.word else IS_ZERO, 0)
    if index:
        t.entries[index].data = p.word
        if s.shares:
            t.entries[index].flags = SHARED
            last[0] = handle_of(t, index)
    return index


def count_entry(c, p, length):
    codec = cython.address(c.codecs[p.codec])
    codec.refs += 1
    codec.given_bytes += p.size
    codec.packed_bytes += length


def store_in_pool(c, s, i, p):
    """S6 to S11.  0, or -1 when the page was refused."""
    t = cython.address(c.t)
    # Kept raw: that saves no memory, but keeps the order of writeback right.  Without writeback there is no such order.
    length = p.size if p.raw else cython.cast(uint32_t, p.length)
    if p.raw and not s.writeback and not s.flags & STORE_FORCE:
        t.totals[G_COMPRESS_FAIL if p.length <= 0 else G_COMPRESS_POOR] += 1
        return -1
    obj = pool_alloc(cython.address(c.pool), length)
    if obj == cython.NULL:
        t.totals[G_ALLOC_FAIL] += 1
        return -1
    index = new_entry(c, s, p, IN_POOL, length)
    if not index:
        # The object was never published: hand it straight back.
        pool_free(cython.address(c.pool), obj)
        t.totals[G_KMEMCACHE_FAIL] += 1
        return -1
    memcpy(obj, p.packed, length)
    e = cython.address(t.entries[index])
    e.data = cython.cast(cython.ulonglong, cython.cast(cython.size_t, obj))
    e.born = s.born
    e.flags = REFERENCED
    lru_add_tail(t, index, s.memcg)
    pages = whole_pages(p.size)
    d = cython.address(s.delta)
    delta_add(t, d, s.memcg, C_ZSWAP, length)
    delta_add(t, d, s.memcg, C_ZSWAPPED, pages)
    t.totals[G_STORED] += pages >> 12
    if length == p.size:
        delta_add(t, d, s.memcg, C_INCOMP, pages)
        t.totals[G_STORED_INCOMP] += pages >> 12
    t.memcgs[s.memcg].stored += 1
    observe(cython.address(c.histograms[H_LENGTH]), bucket_of_length(length), length, 1)
    c.codecs[p.codec].entries += 1
    count_entry(c, p, length)
    s.handles[i] = handle_of(t, index)
    return 0


def send_to_disk(c, s, i, p):
    """Gather a refused page for the device.  When that can't be, it stays with the caller and s.error says why."""
    length = p.size if p.raw else cython.cast(uint32_t, p.length)
    if s.stream == cython.NULL or not stream_fits(s.stream, length):
        if s.stream == cython.NULL or not s.stream.no_space:
            return NEEDS_ROOM
        s.error = ENOSPC
        return PLACED
    index = new_entry(c, s, p, GOING_TO_DISK, length)
    if not index:
        s.error = ENOMEM
        return PLACED
    count_entry(c, p, length)
    stream_append(s.stream, c, index, p.packed, cython.cast(uint32_t, i))
    s.handles[i] = handle_of(cython.address(c.t), index)
    return PLACED


def undo_folio(c, s, end):
    """Take out what was stored of the current folio: pages folio_start .. end - 1."""
    i: int64_t
    for i in range(s.folio_start, end):
        if s.handles[i]:
            e = cython.address(c.t.entries[cython.cast(uint32_t, s.handles[i])])
            if e.state == IN_POOL:
                length = cython.cast(int64_t, e.length_1) + 1
                observe(cython.address(c.histograms[H_LENGTH]), bucket_of_length(length), length, -1)
            entry_drop(c, cython.address(s.delta), cython.cast(uint32_t, s.handles[i]))
            s.handles[i] = 0
    s.folio_zero = s.folio_same = s.folio_stored = 0


def end_folio(c, s):
    """Count what became of the folio: only now is it certain that none of its pages is taken out again."""
    t = cython.address(c.t)
    d = cython.address(s.delta)
    delta_add(t, d, s.memcg, C_SWPOUT_ZERO, s.folio_zero)
    delta_add(t, d, s.memcg, C_SAME_FILLED, s.folio_same)
    delta_add(t, d, s.memcg, C_ZSWPOUT, s.folio_stored)
    s.folio_zero = s.folio_same = s.folio_stored = 0
    s.decided = 0


def place(c, s, i, p):
    """Give page i its place: PLACED (its handle stays 0 when it stays with the caller), NEEDS_ROOM or START_ANEW."""
    s.handles[i] = 0
    if p.filled:
        index = filled_entry(c, s, p)
        if not index:
            s.error = ENOMEM
            return PLACED
        s.handles[i] = handle_of(cython.address(c.t), index)
        if p.word:
            s.folio_same += whole_pages(p.size) >> 12
        else:
            s.folio_zero += whole_pages(p.size) >> 12
        return PLACED
    if not s.refused:
        if store_in_pool(c, s, i, p) == 0:
            s.folio_stored += whole_pages(p.size) >> 12
            return PLACED
        s.refused = 1
        if i > s.folio_start:
            undo_folio(c, s, i)
            return START_ANEW
    return send_to_disk(c, s, i, p) if s.writeback else PLACED


def fit_into_stream(c, s, size):
    """Called without the lock."""
    if s.stream == cython.NULL:
        s.stream = stream_get(c)
        if s.stream == cython.NULL:
            s.error = ENOMEM
            s.writeback = 0
            return
        s.stream.handles = s.handles
    stream_advance(c, s.stream, size)


def memcg_get(t, memcg, lock):
    """Pin a memcg for the length of a call.  0, or -1 when it is not online any more."""
    gone: cython.int = -1
    pthread_mutex_lock(lock)
    if memcg < t.next_memcg and t.memcgs[memcg].state == MEMCG_ONLINE:
        t.memcgs[memcg].refs += 1
        t.memcgs[memcg].pins += 1
        gone = 0
    pthread_mutex_unlock(lock)
    return gone


def follow_removal(t, memcg):
    """The memcg that a pinned one has become part of when it was removed meanwhile; the pin moves along."""
    while t.memcgs[memcg].state == MEMCG_DEAD:
        parent = t.memcgs[memcg].parent
        t.memcgs[parent].refs += 1
        t.memcgs[parent].pins += 1
        t.memcgs[memcg].pins -= 1
        memcg_unref(t, memcg)
        memcg = parent
    return memcg


def filter_helps(c, s):
    """Whether the filter makes a sample of what is to be stored smaller.  Called without the lock.

    Shuffling makes int32 counts 2.8 times smaller and prices with two decimals 1.8 times larger (lz4, 64 KiB, 2026-11).
    8 KiB tell, from the middle, and cost a quarter of compressing one entry of 64 KiB.
    """
    left: uint64_t = (
        size_of(s, s.start) if s.spans != cython.NULL else s.nbytes - cython.cast(uint64_t, s.start) * s.page
    )
    data = s.spans[s.start].data if s.spans != cython.NULL else s.data + (s.nbytes - left)
    size = cython.cast(uint32_t, left if left < FILTER_SAMPLE_BYTES else FILTER_SAMPLE_BYTES)
    middle = (left - size) // 2
    src = data + (middle - middle % cython.cast(uint32_t, s.filter))
    pthread_mutex_lock(cython.address(c.lock))
    plain: Codec = c.codecs[s.asked if s.asked >= 0 else c.codec]
    pthread_mutex_unlock(cython.address(c.lock))
    plain.filter = 0
    without = compress(s.worker, cython.address(plain), src, size, s.worker.scratch)
    plain.filter = s.filter
    filtered = compress(s.worker, cython.address(plain), src, size, s.worker.scratch)
    return 0 < filtered and (without <= 0 or filtered < without)


def choose_codec(c, s):
    """The codec of the next step.  Called with the lock."""
    codec = s.asked if s.asked >= 0 else c.codec
    p = cython.address(c.codecs[codec])
    if not s.filter or p.dictionary != cython.NULL:
        return codec
    filtered = codec_slot(c, p.algorithm, p.level, s.filter)
    return filtered if filtered >= 0 else codec


def swap_out(c, s):
    """Store pages from s.start on.  Called without the lock; sets s.next, s.reason and s.error, and s.handles."""
    memset(cython.address(s.delta), 0, cython.sizeof(Delta))
    s.next = s.start
    s.reason = STORE_DONE
    s.stream = cython.NULL
    s.kicked = s.error = s.decided = 0
    s.folio_zero = s.folio_same = s.folio_stored = 0
    s.worker = worker_get(c)
    if s.worker == cython.NULL:
        s.error = ENOMEM
        return
    if c.t.sums != cython.NULL and worker_io(s.worker, MAX_ENTRY_BYTES) == cython.NULL:
        s.error = ENOMEM
        worker_put(c, s.worker)
        return
    t = cython.address(c.t)
    if memcg_get(t, s.memcg, cython.address(c.lock)):
        s.error = ENODEV
        worker_put(c, s.worker)
        return
    if s.filter and s.flags & STORE_TRY_FILTER and not filter_helps(c, s):
        s.filter = 0
    i = s.start
    j: cython.int
    k: cython.int
    while i < s.n and s.reason == STORE_DONE and (s.kicked < PAGES_AFTER_KICK or s.decided):
        k = next_step(s, i)
        # The compressor may change before the pages are placed: its pool is pinned until they are.
        pthread_mutex_lock(cython.address(c.lock))
        s.codec = choose_codec(c, s)
        c.codecs[s.codec].users += 1
        pthread_mutex_unlock(cython.address(c.lock))
        prepare(c, s, i, k)
        pthread_mutex_lock(cython.address(c.lock))
        s.memcg = follow_removal(t, s.memcg)
        s.born = born_units(core_now(c))
        j = 0
        while j < k:
            p = cython.address(s.pages[j])
            if not s.decided and not admit(c, s, i, p):
                break
            s.decided = 1
            outcome = place(c, s, i, p)
            if outcome == NEEDS_ROOM:
                delta_apply(t, cython.address(s.delta))
                pthread_mutex_unlock(cython.address(c.lock))
                fit_into_stream(c, s, p.size)
                pthread_mutex_lock(cython.address(c.lock))
                s.memcg = follow_removal(t, s.memcg)
                continue
            if outcome == START_ANEW:
                i = s.folio_start
                break
            i += 1
            j += 1
            s.kicked += s.kicked > 0
            if (i - s.start) % s.folio == 0 or i == s.n:
                end_folio(c, s)
                s.next = i
        delta_apply(t, cython.address(s.delta))
        # Not the last user of a dictionary: the caller holds it.
        c.codecs[s.codec].users -= 1
        pthread_mutex_unlock(cython.address(c.lock))
    if s.stream != cython.NULL:
        stream_finish(c, s.stream)
        if s.stream.error:
            s.error = s.stream.error
        stream_put(c, s.stream)
    pthread_mutex_lock(cython.address(c.lock))
    t.memcgs[s.memcg].pins -= 1
    memcg_unref(t, s.memcg)
    pthread_mutex_unlock(cython.address(c.lock))
    worker_put(c, s.worker)
    if s.kicked and s.reason == STORE_DONE:
        s.reason = STORE_POOL_FULL
