"""Verifies every invariant of the data plane by counting everything again.

The lock is held for the whole of it: levels and lists can only be compared with what they stand for at one moment, and
between two holds others would change both.  So nothing in it touches Python: a thread that holds the GIL may be waiting
for a fault, whose server waits for the lock.  What is wrong is noted as numbers, and put into words afterwards.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.device.device import (
    FILE_SHIFT,
    NO_SEGMENT,
    NR_FILES,
    SEG_FREE,
    SEG_TRIMMING,
    SEGMENT_SHIFT,
    offset_of,
)
from cython.cimports.uzswap.core.device.record import record_bytes
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.codec import NR_CODECS
from cython.cimports.uzswap.core.store.entries import (
    C_CLEAN,
    C_DISK,
    C_INCOMP,
    C_METADATA,
    C_RESIDENT,
    C_SWAP,
    C_SWAPCACHED,
    C_ZSWAP,
    C_ZSWAPPED,
    CHUNK_ENTRIES,
    CLEAN,
    FREE,
    G_STORED,
    GOING_TO_DISK,
    IN_POOL,
    MEMCG_FREE,
    MEMCG_ONLINE,
    NO_MEMCG,
    NR_LEVELS,
    NR_NODES,
    ON_DISK,
    ROOT,
    SHARED,
    WRITING,
    owner_of,
)
from cython.cimports.uzswap.core.store.pool import pool_check
from cython.cimports.uzswap.core.store.state import whole_pages

# Of C_METADATA a part is paged memory's, which this room does not know.
LEVELS = ("resident", "zswap", "zswapped", "zswap_incomp", "swap", "disk", "clean copies", "swapcached")


TEXTS = (
    "entry {0} is at {1}, outside the device",
    "entry {0} is in free segment {1}",
    "entry {0} is free but has generation {1}",
    "{0} entries live, {1} counted",
    "memcg {0}: {1} references, {2} counted",
    "memcg {0}: {1} entries in the pool, {2} counted",
    "memcg {0}: {level} is {2}, {3} counted",
    "memcg {0}: entry {1} does not belong on the list of clean copies",
    "memcg {0}: {1} clean copies, {2} counted, {3} should be",
    "memcg {0} node {1}: entry {2} does not belong on the LRU",
    "memcg {0} node {1}: entry {2} is another memcg's",
    "memcg {0} node {1}: {2} on the LRU, {3} counted, {4} should be",
    "{level} is {0} in all, {2} counted",
    "{0} pages stored, {1} counted",
    "codec {0}: {1} entries and {2} references, {3} and {4} counted",
    "the pool breaks {0} of its invariants with {1} objects",
    "segment {0}: {1} bytes live, {2} counted",
    "device: {0} live and {1} free, {2} and {3} counted",
    "device: {0} segments on the free list, {1} counted",
    "memcg {0}: {1} does not belong on the list of active children",
    "memcg {0}: {1} active children, {2} counted",
    "memcg {0}: active is {1}",
    "file {0} of a parent: {1} bytes live, {2} counted",
    "swap cache: {0} entries, {1} listed, {2} counted; {3} bytes, {4} counted",
)


def check_core(c):
    """What is wrong, in words.  Called with the GIL and without the lock."""
    findings = cython.cast(cython.pointer(Findings), calloc(1, cython.sizeof(Findings)))
    r: Recount
    no_memory: cython.bint = findings == cython.NULL
    if not no_memory:
        with cython.nogil:
            pthread_mutex_lock(cython.address(c.lock))
            no_memory = recount_alloc(cython.address(r), c.t.next_memcg, c.device.nr)
            if not no_memory:
                check_all(c, cython.address(r), findings)
            pthread_mutex_unlock(cython.address(c.lock))
            recount_free(cython.address(r))
    if no_memory:
        free(findings)
        raise MemoryError
    wrong = []
    i: cython.int
    for i in range(findings.n):
        f = cython.address(findings.found[i])
        numbers = [f.numbers[k] for k in range(5)]
        level = LEVELS[numbers[1]] if f.what in (W_LEVEL, W_TOTAL) else ""
        wrong.append(TEXTS[f.what].format(*numbers, level=level))
    free(findings)
    return wrong


def note(f, what, a, b, c, d, e):
    if f.n < MOST_FINDINGS:
        finding = cython.address(f.found[f.n])
        finding.what = what
        finding.numbers[0] = a
        finding.numbers[1] = b
        finding.numbers[2] = c
        finding.numbers[3] = d
        finding.numbers[4] = e
        f.n += 1


def recount_alloc(r, nr_memcgs, nr_segments):
    """0, or -1 without memory."""
    memset(r, 0, cython.sizeof(Recount))
    word = cython.sizeof(int64_t)
    r.levels = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs * NR_LEVELS, word))
    r.refs = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, word))
    r.stored = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, word))
    r.on_clean = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, word))
    r.on_lru = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs * NR_NODES, word))
    r.live = cython.cast(cython.pointer(int64_t), calloc(nr_segments + 1, word))
    return 0 if r.levels and r.refs and r.stored and r.on_clean and r.on_lru and r.live else -1


def recount_free(r):
    free(r.levels)
    free(r.refs)
    free(r.stored)
    free(r.on_clean)
    free(r.on_lru)
    free(r.live)


def check_all(c, r, f):
    """Compare every count with what it stands for.  Called with the lock."""
    t = cython.address(c.t)
    d = cython.address(c.device)
    totals: int64_t[NR_LEVELS]
    codec_entries: int64_t[NR_CODECS]
    codec_refs: int64_t[NR_CODECS]
    k: cython.int
    for k in range(NR_LEVELS):
        totals[k] = 0
    for k in range(NR_CODECS):
        codec_entries[k] = codec_refs[k] = 0
    found: int64_t = 0
    pooled: int64_t = 0
    stored_pages: int64_t = 0
    i: uint32_t
    m: uint32_t
    lengths: int64_t[NR_LEVELS]
    cached: int64_t = 0
    cached_bytes: int64_t = 0
    for i in range(1, t.next_chunk * CHUNK_ENTRIES):
        e = cython.address(t.entries[i])
        if e.gen == 0:
            continue
        found += 1
        owner = owner_of(t, e)
        r.refs[e.memcg] += 1
        pages = whole_pages(e.size_1 + 1)
        length = e.length_1 + 1
        for k in range(NR_LEVELS):
            lengths[k] = 0
        lengths[C_SWAP] = pages * (1 + e.stamp) if e.flags & SHARED else pages
        if e.state == IN_POOL:
            pooled += 1
            stored_pages += pages >> 12
            r.stored[owner] += 1
            codec_entries[e.codec] += 1
            lengths[C_ZSWAP] = length
            lengths[C_ZSWAPPED] = pages
            if length == e.size_1 + 1:
                lengths[C_INCOMP] = pages
            if e.flags & CLEAN:
                lengths[C_CLEAN] = length
                lengths[C_SWAPCACHED] = pages
                r.on_clean[owner] += 1
            elif not e.flags & WRITING:
                r.on_lru[owner * NR_NODES + e.node] += 1
        elif e.state == ON_DISK:
            lengths[C_DISK] = length
            if e.flags & CLEAN:
                lengths[C_SWAPCACHED] = pages
                cached += 1
                cached_bytes += length
            s = cython.cast(uint32_t, offset_of(e.data) >> SEGMENT_SHIFT)
            if e.data >> FILE_SHIFT != d.file >> FILE_SHIFT:
                r.in_files[e.data >> FILE_SHIFT] += record_bytes(length)
            elif s >= d.nr:
                note(f, W_OUTSIDE, i, e.data, 0, 0, 0)
            else:
                r.live[s] += record_bytes(length)
                if d.segments[s].state == SEG_FREE or d.segments[s].state == SEG_TRIMMING:
                    note(f, W_FREE_SEGMENT, i, s, 0, 0, 0)
        elif e.state == FREE:
            note(f, W_FREE_ENTRY, i, e.gen, 0, 0, 0)
        if e.state == IN_POOL or e.state == ON_DISK or e.state == GOING_TO_DISK:
            codec_refs[e.codec] += 1
        for k in range(NR_LEVELS):
            totals[k] += lengths[k]
        m = owner
        while m != NO_MEMCG:
            if owner != ROOT:
                for k in range(NR_LEVELS):
                    r.levels[m * NR_LEVELS + k] += lengths[k]
            m = t.memcgs[m].parent
    if found != t.live:
        note(f, W_LIVE, found, t.live, 0, 0, 0)
    for k in range(1, C_METADATA):
        if totals[k] != t.totals[k]:
            note(f, W_TOTAL, totals[k], k, t.totals[k], 0, 0)
    if stored_pages != t.totals[G_STORED]:
        note(f, W_PAGES, stored_pages, t.totals[G_STORED], 0, 0, 0)
    for k in range(NR_CODECS):
        p = cython.address(c.codecs[k])
        if codec_entries[k] != p.entries or codec_refs[k] != p.refs:
            note(f, W_CODEC, k, codec_entries[k], codec_refs[k], p.entries, p.refs)
    broken = pool_check(cython.address(c.pool), pooled)
    if broken:
        note(f, W_POOL, broken, pooled, 0, 0, 0)
    i = c.cached.head
    linked: int64_t = 0
    while i and linked <= c.cached.length:
        linked += t.entries[i].state == ON_DISK and t.entries[i].flags & CLEAN != 0
        i = t.entries[i].next
    if linked != cached or cached != c.cached.length or cached_bytes != c.cached_bytes:
        note(f, W_CACHED, cached, linked, c.cached.length, cached_bytes, c.cached_bytes)
    check_memcgs(c, r, f)
    check_device(c, r, f)


def check_memcgs(c, r, f):
    t = cython.address(c.t)
    i: uint32_t
    m: uint32_t
    k: cython.int
    node: cython.int
    for m in range(t.next_memcg):
        g = cython.address(t.memcgs[m])
        if g.state == MEMCG_FREE:
            continue
        r.refs[m] += g.state == MEMCG_ONLINE
        if g.parent != NO_MEMCG:
            r.refs[g.parent] += 1
    for m in range(t.next_memcg):
        g = cython.address(t.memcgs[m])
        if g.state == MEMCG_FREE:
            continue
        if r.refs[m] + g.pins != g.refs:
            note(f, W_REFS, m, r.refs[m], g.refs, 0, 0)
        if r.stored[m] != g.stored:
            note(f, W_STORED, m, r.stored[m], g.stored, 0, 0)
        for k in range(1, C_METADATA):
            if g.state == MEMCG_ONLINE and g.counters[k] != r.levels[m * NR_LEVELS + k]:
                note(f, W_LEVEL, m, k, r.levels[m * NR_LEVELS + k], g.counters[k], 0)
        check_active(c, m, f)
        n: int64_t = 0
        i = g.clean.head
        while i and n <= g.clean.length:
            if not t.entries[i].flags & CLEAN or owner_of(t, cython.address(t.entries[i])) != m:
                note(f, W_NOT_CLEAN, m, i, 0, 0, 0)
            i = t.entries[i].next
            n += 1
        if n != g.clean.length or n != r.on_clean[m]:
            note(f, W_CLEAN, m, n, g.clean.length, r.on_clean[m], 0)
        for node in range(NR_NODES):
            lru = cython.address(g.lru[node])
            n = 0
            previous: uint32_t = 0
            i = lru.head
            while i and n <= lru.length:
                e = cython.address(t.entries[i])
                if e.prev != previous or e.state != IN_POOL or e.flags & (WRITING | CLEAN) or e.node != node:
                    note(f, W_NOT_LRU, m, node, i, 0, 0)
                if owner_of(t, e) != m:
                    note(f, W_OTHERS, m, node, i, 0, 0)
                previous = i
                i = e.next
                n += 1
            if n != lru.length or previous != lru.tail or n != r.on_lru[m * NR_NODES + node]:
                note(f, W_LRU, m, node, n, lru.length, r.on_lru[m * NR_NODES + node])


def check_active(c, m, f):
    """Whether a memcg is on its parent's list of active children as it should be, and those on its own."""
    t = cython.address(c.t)
    g = cython.address(t.memcgs[m])
    listed: int64_t = 0
    child: uint32_t = g.first_active
    while child and listed <= g.nr_active:
        if t.memcgs[child].parent != m or not t.memcgs[child].active:
            note(f, W_NOT_ACTIVE, m, child, 0, 0, 0)
        listed += 1
        child = t.memcgs[child].next_active
    if listed != g.nr_active:
        note(f, W_NR_ACTIVE, m, listed, g.nr_active, 0, 0)
    current = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
    if m != ROOT and g.active != (g.state == MEMCG_ONLINE and current != 0):
        note(f, W_ACTIVE, m, g.active, 0, 0, 0)


def check_device(c, r, f):
    d = cython.address(c.device)
    live: int64_t = 0
    nr_free: int64_t = 0
    s: uint32_t
    for s in range(d.nr):
        live += r.live[s]
        nr_free += d.segments[s].state == SEG_FREE
        if r.live[s] != d.segments[s].live:
            note(f, W_SEGMENT, s, r.live[s], d.segments[s].live, 0, 0)
    for s in range(NR_FILES):
        if c.files[s] != cython.NULL and r.in_files[s] != c.files[s].live:
            note(f, W_FILE, s, c.files[s].live, r.in_files[s], 0, 0)
    if live != d.live_bytes or nr_free != d.nr_free:
        note(f, W_DEVICE, live, nr_free, d.live_bytes, d.nr_free, 0)
    chain: int64_t = 0
    s = d.free_head if d.nr else NO_SEGMENT
    while s != NO_SEGMENT and chain <= d.nr:
        chain += 1
        s = d.segments[s].next
    if chain != d.nr_free:
        note(f, W_FREE_LIST, chain, d.nr_free, 0, 0, 0)
