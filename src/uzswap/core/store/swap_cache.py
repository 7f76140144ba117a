"""What the device keeps of values that are in memory again, and do not change: going out again writes nothing.

The kernel leaves the slot of a page that it read with the page, as swap cache, unless swap is more than half full
(vm_swap_full() of mm/swap.h, mem_cgroup_swap_full() of mm/memcontrol.c).  So it is here, for owners who know that a
value does not change.  Such an entry is ON_DISK and CLEAN, on Core.cached, oldest first.

It is its owner's in name only: whoever finds no free segment drops some, the oldest first, and the owner is not told.
He finds out by the handles, which are nobody else's afterwards, when the value is to go out again.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.device.device import SEGMENT_SHIFT
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.entries import (
    C_SWAP,
    C_SWAPCACHED,
    CLEAN,
    DOOMED,
    HELD,
    NO_MEMCG,
    ON_DISK,
    ROOT,
    SHARED,
    Delta,
    entry_at,
    lru_link,
    owner_of,
)
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.state import cached_leave, entry_drop, give_back, has_to_give, whole_pages

# Entries in one hold of the lock.
STEP = cython.declare(cython.int, 64)


def swap_full(c, memcg):
    """Whether more than half of the device, or of a memcg's swap, is used.  Called with the lock."""
    t = cython.address(c.t)
    if c.device.live_bytes * 2 > cython.cast(int64_t, c.device.nr) << SEGMENT_SHIFT:
        return 1
    while memcg != NO_MEMCG and memcg != ROOT:
        g = cython.address(t.memcgs[memcg])
        usage = g.counters[C_SWAP] * 2
        if usage >= g.swap_high or usage >= g.swap_max:
            return 1
        memcg = g.parent
    return 0


def swap_cache_add(c, handles, n):
    """Entries of a value that was loaded and is to be in memory: they stay, if all of them are on the device.

    1 when they do.  Else 0, and they are as they were.  The entries are the caller's alone.
    """
    t = cython.address(c.t)
    d: Delta
    i: int64_t = 0
    stays: cython.bint = n > 0
    while i < n and stays:
        end = i + STEP if i + STEP < n else n
        pthread_mutex_lock(cython.address(c.lock))
        while i < end and stays:
            e = entry_at(t, handles[i])
            stays = e != cython.NULL and e.state == ON_DISK and not e.flags & (HELD | SHARED | CLEAN)
            if stays and i == 0:
                stays = not swap_full(c, owner_of(t, e))
            i += 1
        pthread_mutex_unlock(cython.address(c.lock))
    if not stays:
        return 0
    # What is on the device stays there until its owner says otherwise.
    i = 0
    while i < n:
        end = i + STEP if i + STEP < n else n
        memset(cython.address(d), 0, cython.sizeof(Delta))
        pthread_mutex_lock(cython.address(c.lock))
        while i < end:
            index = cython.cast(uint32_t, handles[i])
            e = cython.address(t.entries[index])
            e.flags |= CLEAN
            lru_link(t, cython.address(c.cached), index)
            c.cached_bytes += cython.cast(int64_t, e.length_1) + 1
            pages = whole_pages(cython.cast(uint32_t, e.size_1) + 1)
            delta_add(t, cython.address(d), owner_of(t, e), C_SWAPCACHED, pages)
            i += 1
        delta_apply(t, cython.address(d))
        pthread_mutex_unlock(cython.address(c.lock))
    return 1


def swap_cache_take(c, handles, n):
    """The value goes out again: its entries are ordinary ones from now on, if all of them are there still.

    1 when they are.  Else 0, and the others are freed.
    """
    t = cython.address(c.t)
    d: Delta
    i: int64_t = 0
    there: cython.bint = 1
    while i < n and there:
        end = i + STEP if i + STEP < n else n
        memset(cython.address(d), 0, cython.sizeof(Delta))
        pthread_mutex_lock(cython.address(c.lock))
        while i < end and there:
            e = entry_at(t, handles[i])
            there = e != cython.NULL
            if there:
                cached_leave(c, cython.address(d), cython.cast(uint32_t, handles[i]), owner_of(t, e))
                i += 1
        delta_apply(t, cython.address(d))
        pthread_mutex_unlock(cython.address(c.lock))
    if there:
        return 1
    swap_cache_drop(c, handles, n)
    return 0


def swap_cache_drop(c, handles, n):
    """Free those of the entries of a value that are there still."""
    t = cython.address(c.t)
    d: Delta
    i: int64_t = 0
    gives: cython.bint = False
    while i < n:
        end = i + STEP if i + STEP < n else n
        memset(cython.address(d), 0, cython.sizeof(Delta))
        pthread_mutex_lock(cython.address(c.lock))
        while i < end:
            if entry_at(t, handles[i]) != cython.NULL:
                entry_drop(c, cython.address(d), cython.cast(uint32_t, handles[i]))
            i += 1
        delta_apply(t, cython.address(d))
        gives = has_to_give(c)
        pthread_mutex_unlock(cython.address(c.lock))
    if gives:
        give_back(c)


def swap_cache_shrink(c):
    """Free some of what is cached, the oldest first; how many entries.  Called with the lock, by who needs room."""
    t = cython.address(c.t)
    d: Delta
    freed: cython.int = 0
    memset(cython.address(d), 0, cython.sizeof(Delta))
    while freed < STEP and c.cached.head and not t.entries[c.cached.head].flags & (HELD | DOOMED):
        entry_drop(c, cython.address(d), c.cached.head)
        freed += 1
    delta_apply(t, cython.address(d))
    return freed
