"""The entry table, the LRU lists, the memcgs and their counters.

Invariants, held whenever the engine lock is free:

* an entry is on the LRU of (owner, node) exactly when it is IN_POOL and neither WRITING nor CLEAN, and on the owner's
  list of clean copies exactly when it is CLEAN;
* a level of a memcg is the sum over the entries owned by its subtree; what the root itself owns is in ``totals`` only,
  as in the kernel, where pages of the root cgroup are not charged;
* ``Memcg.refs`` counts the entries that name it, its children and itself while online, so a removed memcg's record
  outlives it exactly as long as something points there.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import MADV_DONTDUMP, madvise, munmap, uz_discard, uz_reserve
from cython.cimports.uzswap.core.store.active import active_leave, active_update
from cython.cimports.uzswap.core.store.protection import protection_changed

MAX_ENTRIES = cython.declare(uint64_t, 1 << 30)  # 4 TiB of pages; address space only, 48 bytes each
MAX_MEMCGS = cython.declare(uint64_t, 1 << 20)  # the kernel's limit is 65535 a hierarchy (MEM_CGROUP_ID_MAX)
UNLIMITED = cython.declare(int64_t, 1 << 62)
# Removed memcgs whose number is not given out again yet: a request that runs while cgroups come and go must not meet a
# new one under the number of an old one.
REUSE_DISTANCE = cython.declare(uint32_t, 1024)


def table_init(t):
    memset(t, 0, cython.sizeof(Table))
    if cython.sizeof(Entry) * CHUNK_ENTRIES != CHUNK_BYTES:
        return -1
    t.partial = t.empty = NO_CHUNK
    # A strict overcommit policy or an address-space limit refuses large reservations: halve until one is granted.
    n: uint64_t = MAX_ENTRIES
    while True:
        t.mapping_bytes = n * cython.sizeof(Entry)
        t.entries = cython.cast(cython.pointer(Entry), uz_reserve(t.mapping_bytes))
        if t.entries != cython.NULL:
            break
        n >>= 1
        if n < CHUNK_ENTRIES:
            return -1
    madvise(t.entries, t.mapping_bytes, MADV_DONTDUMP)
    t.max_chunks = cython.cast(uint32_t, n // CHUNK_ENTRIES)
    t.chunks = cython.cast(cython.pointer(Chunk), calloc(t.max_chunks, cython.sizeof(Chunk)))
    n = MAX_MEMCGS
    while True:
        t.memcgs_bytes = n * cython.sizeof(Memcg)
        t.memcgs = cython.cast(cython.pointer(Memcg), uz_reserve(t.memcgs_bytes))
        if t.memcgs != cython.NULL or n < 1024:
            break
        n >>= 1
    t.max_memcgs = cython.cast(uint32_t, n)
    if t.chunks == cython.NULL or t.memcgs == cython.NULL:
        table_destroy(t)
        return -1
    memcg_alloc(t, NO_MEMCG)
    return 0


def table_destroy(t):
    if t.entries != cython.NULL:
        munmap(t.entries, t.mapping_bytes)
    if t.memcgs != cython.NULL:
        munmap(t.memcgs, t.memcgs_bytes)
    free(t.chunks)
    memset(t, 0, cython.sizeof(Table))


# Entries


def entry_alloc(t):
    """Index of a new entry, all fields 0 but gen; 0 when there is no room."""
    c = t.partial
    if c == NO_CHUNK:
        if t.empty != NO_CHUNK:
            c = t.empty
            t.empty = t.chunks[c].next
        elif t.next_chunk < t.max_chunks:
            c = t.next_chunk
            t.next_chunk += 1
        else:
            return 0
        chunk = cython.address(t.chunks[c])
        chunk.free_head = 0
        chunk.live = 0
        chunk.carved = c == 0  # index 0 is nobody
        chunk.prev = chunk.next = NO_CHUNK
        t.partial = c
        t.chunks_in_use += 1
    chunk = cython.address(t.chunks[c])
    index: uint32_t
    if chunk.free_head:
        index = chunk.free_head - 1
        chunk.free_head = t.entries[index].next
    else:
        index = c * CHUNK_ENTRIES + chunk.carved
        chunk.carved += 1
    chunk.live += 1
    if chunk.free_head == 0 and chunk.carved == CHUNK_ENTRIES:
        t.partial = chunk.next
        if chunk.next != NO_CHUNK:
            t.chunks[chunk.next].prev = NO_CHUNK
    t.last_gen += 1
    if t.last_gen == 0:
        t.last_gen = 1
    e = cython.address(t.entries[index])
    memset(e, 0, cython.sizeof(Entry))
    e.gen = t.last_gen
    t.live += 1
    return index


def entry_free(t, index):
    c = index // CHUNK_ENTRIES
    chunk = cython.address(t.chunks[c])
    e = cython.address(t.entries[index])
    e.gen = 0
    e.state = FREE
    was_full: cython.bint = chunk.free_head == 0 and chunk.carved == CHUNK_ENTRIES
    e.next = chunk.free_head
    chunk.free_head = index + 1
    chunk.live -= 1
    t.live -= 1
    if was_full:
        chunk.prev = NO_CHUNK
        chunk.next = t.partial
        if t.partial != NO_CHUNK:
            t.chunks[t.partial].prev = c
        t.partial = c
    # The last chunk with room stays while anything lives, or a table that hovers at a boundary would call the kernel
    # for each entry.
    if chunk.live == 0 and (t.live == 0 or chunk.prev != NO_CHUNK or chunk.next != NO_CHUNK):
        if chunk.prev != NO_CHUNK:
            t.chunks[chunk.prev].next = chunk.next
        else:
            t.partial = chunk.next
        if chunk.next != NO_CHUNK:
            t.chunks[chunk.next].prev = chunk.prev
        uz_discard(cython.address(t.entries[c * CHUNK_ENTRIES]), CHUNK_BYTES)
        chunk.next = t.empty
        t.empty = c
        t.chunks_in_use -= 1


def handle_of(t, index):
    return (cython.cast(uint64_t, t.entries[index].gen) << 32) | index


def entry_at(t, handle):
    """The live entry of a handle, or NULL: freed, foreign, or being freed."""
    index = cython.cast(uint32_t, handle)
    gen = cython.cast(uint32_t, handle >> 32)
    if gen == 0 or index // CHUNK_ENTRIES >= t.next_chunk:
        return cython.NULL
    e = cython.address(t.entries[index])
    if e.gen != gen or e.flags & DOOMED:
        return cython.NULL
    return e


def owner_of(t, e):
    m = e.memcg
    while t.memcgs[m].state == MEMCG_DEAD:
        m = t.memcgs[m].parent
    return m


# LRUs


def lru_add_tail(t, index, memcg):
    e = cython.address(t.entries[index])
    t.last_stamp += 1
    e.stamp = t.last_stamp
    lru_link(t, cython.address(t.memcgs[memcg].lru[e.node]), index)


def lru_link(t, lru, index):
    """At the tail."""
    e = cython.address(t.entries[index])
    e.prev = lru.tail
    e.next = 0
    if lru.tail:
        t.entries[lru.tail].next = index
    else:
        lru.head = index
    lru.tail = index
    lru.length += 1


def lru_del(t, index, memcg):
    lru_unlink(t, cython.address(t.memcgs[memcg].lru[t.entries[index].node]), index)


def lru_unlink(t, lru, index):
    e = cython.address(t.entries[index])
    if e.prev:
        t.entries[e.prev].next = e.next
    else:
        lru.head = e.next
    if e.next:
        t.entries[e.next].prev = e.prev
    else:
        lru.tail = e.prev
    lru.length -= 1


def lru_rotate(t, index, memcg):
    lru_del(t, index, memcg)
    lru_add_tail(t, index, memcg)


# Memcgs


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


def lru_splice(t, mine, theirs):
    """All of one list, to the head of another."""
    if mine.length == 0:
        return
    t.entries[mine.tail].next = theirs.head
    if theirs.head:
        t.entries[theirs.head].prev = mine.tail
    else:
        theirs.tail = mine.tail
    theirs.head = mine.head
    theirs.length += mine.length
    mine.head = mine.tail = mine.length = 0


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


# Counters and limits


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
