"""The entry table and the LRU lists.

Invariant, held whenever the engine lock is free: an entry is on the LRU of (owner, node) exactly when it is IN_POOL and
neither WRITING nor CLEAN, on the owner's list of clean copies exactly when it is IN_POOL and CLEAN, and on Core.cached
exactly when it is ON_DISK and CLEAN.

The caller serialises.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import munmap, uz_discard, uz_reserve

MAX_ENTRIES = cython.declare(uint64_t, 1 << 30)  # 4 TiB of pages; address space only, 48 bytes each
MAX_MEMCGS = cython.declare(uint64_t, 1 << 20)  # the kernel's limit is 65535 a hierarchy (MEM_CGROUP_ID_MAX)


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
    return 0


def table_destroy(t):
    if t.entries != cython.NULL:
        munmap(t.entries, t.mapping_bytes)
    if t.memcgs != cython.NULL:
        munmap(t.memcgs, t.memcgs_bytes)
    free(t.chunks)
    memset(t, 0, cython.sizeof(Table))


# Entries


def record_of_entry_bytes(t):
    """What an entry takes beside its bytes."""
    return cython.sizeof(Entry) + (cython.sizeof(uint64_t) if t.sums != cython.NULL else 0)


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
        if t.sums != cython.NULL:
            uz_discard(cython.address(t.sums[c * CHUNK_ENTRIES]), CHUNK_ENTRIES * cython.sizeof(uint64_t))
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
