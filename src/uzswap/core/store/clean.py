"""Clean copies: what the pool keeps of pages that are in memory again.

A page that was loaded and not written to since need not be compressed when it is evicted the next time: its copy is
still good.  Whether it was written to is found out by comparing, which is exact and has no races, since the page is
nobody's when it is on its way out.  (Measured against write protection, Linux 6.18, 2026-11: see docs/benchmarks.md.)

A copy is the first to go: it is off the LRU, no walk meets it, and whoever is short of pool or memory drops copies,
oldest first, before anything is evicted or written back.  Its page then names an entry that may be another's; a copy
names the page that it belongs to in ``Entry.stamp``, so the two cannot be mistaken, and an index is enough of a name.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memset
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.active import HAS_COPIES, Round, active_turn
from cython.cimports.uzswap.core.store.codec import decompress
from cython.cimports.uzswap.core.store.entries import (
    C_CLEAN,
    C_SWAPCACHED,
    C_ZSWPOUT,
    CLEAN,
    HELD,
    IN_POOL,
    NO_MEMCG,
    REFERENCED,
    ROOT,
    WRITING,
    Delta,
    lru_add_tail,
    lru_del,
    lru_link,
    lru_unlink,
    owner_of,
)
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.protection import unprotected
from cython.cimports.uzswap.core.store.state import (
    born_units,
    clean_leave,
    core_now,
    entry_drop,
    give_back,
    has_to_give,
    whole_pages,
    worker_get,
    worker_put,
)

# Copies that one memcg gives up before the next one's turn.
DROP_BATCH = cython.declare(cython.int, 64)


def clean_keep(c, handles, n, owner):
    """Entries of the pages from address `owner` on, just loaded: those in the pool become their clean copies.

    All others are freed, and their handles set to 0.  The entries are the caller's alone.
    """
    t = cython.address(c.t)
    d: Delta
    i: cython.int
    dropped: cython.bint = False
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(c.lock))
    # A pool that is nearly full has better use for the room.
    keep: cython.bint = c.pool.pages < c.pool_accept and not c.reached_full
    for i in range(n):
        index = cython.cast(uint32_t, handles[i])
        e = cython.address(t.entries[index])
        if keep and e.state == IN_POOL and not e.flags & WRITING:
            memcg = owner_of(t, e)
            lru_del(t, index, memcg)
            lru_link(t, cython.address(t.memcgs[memcg].clean), index)
            e.flags = CLEAN
            e.stamp = owner + cython.cast(uint64_t, i) * 4096
            delta_add(t, cython.address(d), memcg, C_CLEAN, cython.cast(int64_t, e.length_1) + 1)
            delta_add(t, cython.address(d), memcg, C_SWAPCACHED, whole_pages(cython.cast(uint32_t, e.size_1) + 1))
            continue
        entry_drop(c, cython.address(d), index)
        handles[i] = 0
        dropped = True
    delta_apply(t, cython.address(d))
    gives: cython.bint = dropped and has_to_give(c)
    pthread_mutex_unlock(cython.address(c.lock))
    if gives:
        give_back(c)


def copy_of(t, index, owner):
    """The entry of this index, if it is the copy of a page at that address; else NULL."""
    e = cython.address(t.entries[index])
    return e if index and e.flags & CLEAN and e.stamp == owner else cython.NULL


def clean_settle(c, copies, owners, n, frames):
    """Pages on their way out, in frames: whose copy is as they are, is stored by that, as if it had just been.

    Their copies are given by index.  Those of all others are set to 0, and what they had is freed.  Returns how many
    were stored.
    """
    t = cython.address(c.t)
    d: Delta
    i: cython.int
    held: cython.int = 0
    stored: cython.int = 0
    same: cython.bint[CLEAN_PAGES]
    worker = worker_get(c)
    pthread_mutex_lock(cython.address(c.lock))
    for i in range(n):
        same[i] = False
        e = copy_of(t, cython.cast(uint32_t, copies[i]), owners[i])
        if e == cython.NULL:
            copies[i] = 0
            continue
        e.flags |= HELD
        held += 1
    pthread_mutex_unlock(cython.address(c.lock))
    if held and worker != cython.NULL:
        for i in range(n):
            if not copies[i]:
                continue
            # HELD: nobody frees it, nothing in it changes.
            e = cython.address(t.entries[cython.cast(uint32_t, copies[i])])
            size = cython.cast(uint32_t, e.size_1) + 1
            length = cython.cast(uint32_t, e.length_1) + 1
            copy = cython.cast(cython.p_char, e.data)
            if length < size:
                if decompress(worker, cython.address(c.codecs[e.codec]), copy, length, worker.scratch, size):
                    continue
                copy = worker.scratch
            same[i] = memcmp(copy, frames + cython.cast(uint64_t, i) * 4096, size) == 0
    if worker != cython.NULL:
        worker_put(c, worker)
    if not held:
        return 0
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(c.lock))
    born = born_units(core_now(c))
    for i in range(n):
        if not copies[i]:
            continue
        index = cython.cast(uint32_t, copies[i])
        e = cython.address(t.entries[index])
        e.flags &= ~HELD
        memcg = owner_of(t, e)
        if not same[i]:
            entry_drop(c, cython.address(d), index)
            copies[i] = 0
            continue
        clean_leave(c, cython.address(d), index, memcg)
        e.flags = REFERENCED
        e.born = born
        lru_add_tail(t, index, memcg)
        delta_add(t, cython.address(d), memcg, C_ZSWPOUT, 1)
        stored += 1
    delta_apply(t, cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))
    return stored


def clean_forget(c, copies, owners, n):
    """Free the copies of pages that are no longer what they were; the indices may be others' by now, or 0."""
    t = cython.address(c.t)
    d: Delta
    i: cython.int
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(c.lock))
    for i in range(n):
        if copy_of(t, copies[i], owners[i]) != cython.NULL:
            entry_drop(c, cython.address(d), copies[i])
    delta_apply(t, cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))


def clean_drop_locked(c, root, nbytes, spare, take_low):
    """Free copies of root's subtree until nbytes are free.  How many compressed bytes were freed.

    With spare, what memory.min protects is left alone, and what memory.low does unless take_low.
    """
    t = cython.address(c.t)
    freed: int64_t = 0
    round: Round
    most: int64_t
    said: cython.int = 0
    d: Delta
    # The root's counter leaves out what it owns itself.
    if (t.totals[C_CLEAN] if root == ROOT else t.memcgs[root].counters[C_CLEAN]) == 0:
        return 0
    memset(cython.address(d), 0, cython.sizeof(Delta))
    round.began = 0
    while freed < nbytes:
        memcg = active_turn(t, root, HAS_COPIES, 0, cython.address(c.copies_after), cython.address(round))
        if memcg == NO_MEMCG:
            break
        copies = cython.address(t.memcgs[memcg].clean)
        most = copies.length
        if spare:
            delta_apply(t, cython.address(d))
            most = unprotected(t, memcg, root, most, 0, take_low, cython.address(said))
        if most > DROP_BATCH:
            most = DROP_BATCH
        while most > 0 and freed < nbytes and copies.head:
            most -= 1
            index = copies.head
            e = cython.address(t.entries[index])
            if e.flags & HELD:
                # Its page is on its way out: it goes to the end, and somebody else's is taken.
                lru_unlink(t, copies, index)
                lru_link(t, copies, index)
                continue
            freed += cython.cast(int64_t, e.length_1) + 1
            entry_drop(c, cython.address(d), index)
            round.began = 0
    delta_apply(t, cython.address(d))
    return freed


def clean_drop(c, root, nbytes, take_low):
    """clean_drop_locked() for the reclaim of root."""
    pthread_mutex_lock(cython.address(c.lock))
    freed = clean_drop_locked(c, root, nbytes, 1, take_low)
    pthread_mutex_unlock(cython.address(c.lock))
    return freed
