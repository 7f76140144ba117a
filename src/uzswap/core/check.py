"""Verifies every invariant of the data plane by counting everything again.  Takes the lock for the whole of it."""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.uzswap.core.codec import NR_CODECS
from cython.cimports.uzswap.core.device import (
    NO_SEGMENT,
    SEG_FREE,
    SEG_TRIMMING,
    SEGMENT_SHIFT,
    record_bytes,
)
from cython.cimports.uzswap.core.entries import (
    C_CLEAN,
    C_DISK,
    C_INCOMP,
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
    WRITING,
    owner_of,
)
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.pool import pool_check
from cython.cimports.uzswap.core.state import whole_pages

LEVELS = ("resident", "zswap", "zswapped", "zswap_incomp", "swap", "disk", "clean copies", "swapcached")


def check_core(c, wrong):
    with cython.nogil:
        pthread_mutex_lock(cython.address(c.lock))
    t = cython.address(c.t)
    d = cython.address(c.device)
    nr_memcgs: cython.Py_ssize_t = t.next_memcg
    levels = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs * NR_LEVELS, cython.sizeof(int64_t)))
    refs = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, cython.sizeof(int64_t)))
    stored = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, cython.sizeof(int64_t)))
    on_clean = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs, cython.sizeof(int64_t)))
    on_lru = cython.cast(cython.pointer(int64_t), calloc(nr_memcgs * NR_NODES, cython.sizeof(int64_t)))
    live = cython.cast(cython.pointer(int64_t), calloc(d.nr + 1, cython.sizeof(int64_t)))
    try:
        if not (levels and refs and stored and on_clean and on_lru and live):
            raise MemoryError
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
        node: cython.int
        lengths: int64_t[NR_LEVELS]
        for i in range(1, t.next_chunk * CHUNK_ENTRIES):
            e = cython.address(t.entries[i])
            if e.gen == 0:
                continue
            found += 1
            owner = owner_of(t, e)
            refs[e.memcg] += 1
            pages = whole_pages(e.size_1 + 1)
            length = e.length_1 + 1
            for k in range(NR_LEVELS):
                lengths[k] = 0
            lengths[C_SWAP] = pages
            if e.state == IN_POOL:
                pooled += 1
                stored_pages += pages >> 12
                stored[owner] += 1
                codec_entries[e.codec] += 1
                lengths[C_ZSWAP] = length
                lengths[C_ZSWAPPED] = pages
                if length == e.size_1 + 1:
                    lengths[C_INCOMP] = pages
                if e.flags & CLEAN:
                    lengths[C_CLEAN] = length
                    lengths[C_SWAPCACHED] = pages
                    on_clean[owner] += 1
                elif not e.flags & WRITING:
                    on_lru[owner * NR_NODES + e.node] += 1
            elif e.state == ON_DISK:
                lengths[C_DISK] = length
                s = cython.cast(uint32_t, e.data >> SEGMENT_SHIFT)
                if s >= d.nr:
                    wrong.append(f"entry {i} is at {e.data}, outside the device")
                else:
                    live[s] += record_bytes(length)
                    if d.segments[s].state == SEG_FREE or d.segments[s].state == SEG_TRIMMING:
                        wrong.append(f"entry {i} is in free segment {s}")
            elif e.state == FREE:
                wrong.append(f"entry {i} is free but has generation {e.gen}")
            if e.state in (IN_POOL, ON_DISK, GOING_TO_DISK):
                codec_refs[e.codec] += 1
            for k in range(NR_LEVELS):
                totals[k] += lengths[k]
            m = owner
            while m != NO_MEMCG:
                if owner != ROOT:
                    for k in range(NR_LEVELS):
                        levels[m * NR_LEVELS + k] += lengths[k]
                m = t.memcgs[m].parent
        if found != t.live:
            wrong.append(f"{found} entries live, {t.live} counted")
        for m in range(t.next_memcg):
            g = cython.address(t.memcgs[m])
            if g.state == MEMCG_FREE:
                continue
            refs[m] += g.state == MEMCG_ONLINE
            if g.parent != NO_MEMCG:
                refs[g.parent] += 1
        for m in range(t.next_memcg):
            g = cython.address(t.memcgs[m])
            if g.state == MEMCG_FREE:
                continue
            if refs[m] + g.pins != g.refs:
                wrong.append(f"memcg {m}: {refs[m]} references, {g.refs} counted")
            if stored[m] != g.stored:
                wrong.append(f"memcg {m}: {stored[m]} entries in the pool, {g.stored} counted")
            for k in range(1, NR_LEVELS):
                if g.state == MEMCG_ONLINE and g.counters[k] != levels[m * NR_LEVELS + k]:
                    wrong.append(f"memcg {m}: {LEVELS[k]} is {levels[m * NR_LEVELS + k]}, {g.counters[k]} counted")
            listed: int64_t = 0
            child: uint32_t = g.first_active
            while child and listed <= g.nr_active:
                if t.memcgs[child].parent != m or not t.memcgs[child].active:
                    wrong.append(f"memcg {m}: {child} does not belong on the list of active children")
                listed += 1
                child = t.memcgs[child].next_active
            if listed != g.nr_active:
                wrong.append(f"memcg {m}: {listed} active children, {g.nr_active} counted")
            current = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
            if m != ROOT and g.active != (g.state == MEMCG_ONLINE and current != 0):
                wrong.append(f"memcg {m}: active is {g.active}")
            n: int64_t = 0
            i = g.clean.head
            while i and n <= g.clean.length:
                if not t.entries[i].flags & CLEAN or owner_of(t, cython.address(t.entries[i])) != m:
                    wrong.append(f"memcg {m}: entry {i} does not belong on the list of clean copies")
                i = t.entries[i].next
                n += 1
            if n != g.clean.length or n != on_clean[m]:
                wrong.append(f"memcg {m}: {n} clean copies, {g.clean.length} counted, {on_clean[m]} should be")
            for node in range(NR_NODES):
                lru = cython.address(g.lru[node])
                n = 0
                previous: uint32_t = 0
                i = lru.head
                while i and n <= lru.length:
                    e = cython.address(t.entries[i])
                    if e.prev != previous or e.state != IN_POOL or e.flags & (WRITING | CLEAN) or e.node != node:
                        wrong.append(f"memcg {m} node {node}: entry {i} does not belong on the LRU")
                    if owner_of(t, e) != m:
                        wrong.append(f"memcg {m} node {node}: entry {i} is another memcg's")
                    previous = i
                    i = e.next
                    n += 1
                if n != lru.length or previous != lru.tail or n != on_lru[m * NR_NODES + node]:
                    should = on_lru[m * NR_NODES + node]
                    wrong.append(f"memcg {m} node {node}: {n} on the LRU, {lru.length} counted, {should} should be")
        for k in range(1, NR_LEVELS):
            if totals[k] != t.totals[k]:
                wrong.append(f"{LEVELS[k]} is {totals[k]} in all, {t.totals[k]} counted")
        if stored_pages != t.totals[G_STORED]:
            wrong.append(f"{stored_pages} pages stored, {t.totals[G_STORED]} counted")
        for k in range(NR_CODECS):
            if codec_entries[k] != c.codecs[k].entries or codec_refs[k] > c.codecs[k].refs:
                wrong.append(
                    f"codec {k}: {codec_entries[k]} entries and {codec_refs[k]} references, "
                    f"{c.codecs[k].entries} and {c.codecs[k].refs} counted"
                )
        broken = pool_check(cython.address(c.pool), pooled)
        if broken:
            wrong.append(f"the pool breaks {broken} of its invariants with {pooled} objects")
        total_live: int64_t = 0
        nr_free: int64_t = 0
        for m in range(d.nr):
            total_live += live[m]
            nr_free += d.segments[m].state == SEG_FREE
            if live[m] != d.segments[m].live:
                wrong.append(f"segment {m}: {live[m]} bytes live, {d.segments[m].live} counted")
        if total_live != d.live_bytes or nr_free != d.nr_free:
            wrong.append(f"device: {total_live} live and {nr_free} free, {d.live_bytes} and {d.nr_free} counted")
        chain: int64_t = 0
        m = d.free_head if d.nr else NO_SEGMENT
        while m != NO_SEGMENT and chain <= d.nr:
            chain += 1
            m = d.segments[m].next
        if chain != d.nr_free:
            wrong.append(f"device: {chain} segments on the free list, {d.nr_free} counted")
        return 0
    finally:
        free(levels)
        free(refs)
        free(stored)
        free(on_clean)
        free(on_lru)
        free(live)
        pthread_mutex_unlock(cython.address(c.lock))
