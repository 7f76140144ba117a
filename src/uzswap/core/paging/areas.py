"""Areas, one an array: address space, the part of the page table that is theirs, and what of it is charged to whom.

The page table has 24 bytes a page.  An array may have many more pages than are ever touched, so a leaf of the table
(LEAF_PAGES) that is wholly one array's is left alone until one of its pages is: ``Pager.untouched`` says whose it is.
Its memory goes back with the array.
"""

import cython
from cython.cimports.libc.errno import ENOMEM
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, realloc
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_rwlock_unlock,
    uz_brief_lock,
    uz_discard,
)
from cython.cimports.uzswap.core.paging.pagetable import (
    HOLD_PAGES,
    LEAF_PAGES,
    PAGE_BYTES,
    Area,
    Page,
    Range,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.uffd import uz_map_again
from cython.cimports.uzswap.core.store.entries import C_METADATA, C_RESIDENT, Delta
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply

LEAF_BYTES = cython.declare(int64_t, LEAF_PAGES * cython.sizeof(Page))


def space_open(p):
    """All address space is free.  0 or -errno."""
    return range_put(p, 1, p.nr_pages - 1)


# Free address space


def range_take(p, n, first):
    """First fit.  0, or -ENOMEM."""
    i: uint32_t
    j: uint32_t
    for i in range(p.nr_ranges):
        r = cython.address(p.ranges[i])
        if r.pages < n:
            continue
        first[0] = r.first
        r.first += n
        r.pages -= n
        if r.pages == 0:
            p.nr_ranges -= 1
            for j in range(i, p.nr_ranges):
                p.ranges[j] = p.ranges[j + 1]
        return 0
    return -ENOMEM


def range_put(p, first, n):
    i: uint32_t = 0
    j: uint32_t
    while i < p.nr_ranges and p.ranges[i].first < first:
        i += 1
    if i > 0 and p.ranges[i - 1].first + p.ranges[i - 1].pages == first:
        p.ranges[i - 1].pages += n
        if i < p.nr_ranges and p.ranges[i - 1].first + p.ranges[i - 1].pages == p.ranges[i].first:
            p.ranges[i - 1].pages += p.ranges[i].pages
            p.nr_ranges -= 1
            for j in range(i, p.nr_ranges):
                p.ranges[j] = p.ranges[j + 1]
        return 0
    if i < p.nr_ranges and first + n == p.ranges[i].first:
        p.ranges[i].first = first
        p.ranges[i].pages += n
        return 0
    if p.nr_ranges == p.max_ranges:
        most = p.max_ranges * 2 if p.max_ranges else 64
        grown = cython.cast(cython.pointer(Range), realloc(p.ranges, most * cython.sizeof(Range)))
        if grown == cython.NULL:
            return -ENOMEM  # the address space is lost until the pager closes; nothing else is
        p.ranges = grown
        p.max_ranges = most
    j = p.nr_ranges
    while j > i:
        p.ranges[j] = p.ranges[j - 1]
        j -= 1
    p.ranges[i].first = first
    p.ranges[i].pages = n
    p.nr_ranges += 1
    return 0


def area_new(p, nbytes, memcg, item):
    """A new area of whole pages, all of them zero; 0 without address space.  Called without the lock."""
    first: uint64_t = 0
    n = (nbytes + PAGE_BYTES - 1) // PAGE_BYTES
    a: uint32_t = 0
    found: cython.int = 0
    if n == 0:
        n = 1
    pthread_mutex_lock(cython.address(p.lock))
    # One page between areas is never theirs: an access beyond the end of an array is found, not another array's data.
    while not found and not range_take(p, n + 1, cython.address(first)):
        pthread_mutex_unlock(cython.address(p.lock))
        found = area_vacate(p, first, n + 1)
        pthread_mutex_lock(cython.address(p.lock))
    if found > 0 and p.free_area:
        a = p.free_area
        p.free_area = p.areas[a].next_free
    elif found > 0 and p.next_area < p.max_areas:
        a = p.next_area
        p.next_area += 1
    elif found:
        range_put(p, first, n + 1)
    if a:
        if first + n + 1 > p.top:
            p.top = first + n + 1
        area = cython.address(p.areas[a])
        memset(area, 0, cython.sizeof(Area))
        area.first = first
        area.pages = n
        area.memcg = memcg
        area.item = item
        area.used = 1
        area.clean_score = 1
        p.live_areas += 1
    pthread_mutex_unlock(cython.address(p.lock))
    if a:
        pthread_mutex_lock(cython.address(p.lock))
        area_claim(p, a, first, first + n)
        pthread_mutex_unlock(cython.address(p.lock))
    return a


# The page table


def leaves_of(n):
    return (n + LEAF_PAGES - 1) // LEAF_PAGES


def area_claim(p, a, first, end):
    """Make free pages an area's.  Of leaves that are wholly its own, the page table is touched when they are."""
    i: uint64_t
    begin = leaves_of(first)
    after = end // LEAF_PAGES
    if begin >= after:
        begin = after = leaves_of(end)
    # All else in a page of nobody is 0: ranges.drop_some() sees to that.
    for i in range(first, begin * LEAF_PAGES if begin * LEAF_PAGES < end else end):
        p.pages[i].area = a
    for i in range(begin, after):
        p.untouched[i] = a
    for i in range(after * LEAF_PAGES, end):
        p.pages[i].area = a
    charge_table(p, a, cython.cast(int64_t, (end - first) - (after - begin) * LEAF_PAGES) * cython.sizeof(Page))


def area_of(p, page):
    """Whose a page is; 0 when it is nobody's."""
    a = p.pages[page].area
    return a if a else p.untouched[page // LEAF_PAGES]


def touched(p, first, n):
    """Pages come into use: their leaves of the page table do.  Called with the lock."""
    leaf: uint64_t
    i: uint64_t
    for leaf in range(first // LEAF_PAGES, (first + n - 1) // LEAF_PAGES + 1):
        a = p.untouched[leaf]
        if a:
            p.untouched[leaf] = 0
            charge_table(p, a, LEAF_BYTES)
            for i in range(leaf * LEAF_PAGES, (leaf + 1) * LEAF_PAGES):
                p.pages[i].area = a


def charge_table(p, a, nbytes):
    p.areas[a].table_bytes += nbytes
    count(p, memcg_of(p, a), C_METADATA, nbytes)


def leaf_end(p, page):
    """Where an untouched leaf ends that a page is in; the page itself when it is in none."""
    return (page // LEAF_PAGES + 1) * LEAF_PAGES if p.untouched[page // LEAF_PAGES] else page


def leaves_put(p, first, n):
    """Give back the memory of the page table of pages that are nobody's: its leaves are all 0, but for holes."""
    leaf: uint64_t = leaves_of(first)
    end: uint64_t = (first + n) // LEAF_PAGES
    k: uint64_t
    while leaf < end:
        k = end - leaf if not p.holes else 1
        uz_brief_lock(cython.address(p.marks), 1)
        if not any_gone(p, leaf * LEAF_PAGES, k * LEAF_PAGES):
            # What it does not give back is used again.
            uz_discard(p.pages + leaf * LEAF_PAGES, k * LEAF_PAGES * cython.sizeof(Page))
        pthread_rwlock_unlock(cython.address(p.marks))
        leaf += k


def area_vacate(p, first, n):
    """Make free pages fit for a new area: 1, or -1 when that failed.  0 where the program has unmapped one of them."""
    end: uint64_t = first + n
    k: uint64_t
    found: cython.int = 1
    while first < end and found > 0 and (p.holes or p.strays):
        k = end - first if end - first < HOLD_PAGES else HOLD_PAGES
        uz_brief_lock(cython.address(p.marks), 1)
        if any_gone(p, first, k):
            # Whoever has mapped something there keeps it: this address space is never an array's again.
            found = 0
        elif p.strays and make_fresh(p, first, k):
            found = -1
        pthread_rwlock_unlock(cython.address(p.marks))
        first += k
    return found


def any_gone(p, first, n):
    i: uint64_t
    if p.holes:
        for i in range(first, first + n):
            if p.pages[i].gone:
                return 1
    return 0


def area_put(p, a, usable):
    """Give back an area whose pages are nobody's already, and its address space where that can be used again."""
    area = cython.address(p.areas[a])
    if usable and not any_gone(p, area.first, area.pages + 1):
        range_put(p, area.first, area.pages + 1)
    charge_table(p, a, -area.table_bytes)
    free(area.label)
    area.label = cython.NULL
    area.used = 0
    area.next_free = p.free_area
    p.free_area = a
    p.live_areas -= 1


def make_fresh(p, first, n):
    """Clear poison.  0 or -errno.  Called with Pager.marks held, for pages that are not gone."""
    at = p.base + first * PAGE_BYTES
    nbytes = n * PAGE_BYTES
    if p.can_poison:
        return uz_discard(at, nbytes)
    return uz_map_again(p.fd, at, nbytes, not p.can_move)


# Counters


def uncharge(p, memcg, n):
    count(p, memcg, C_RESIDENT, -n * PAGE_BYTES)


def count(p, memcg, counter, n):
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(p.c.lock))
    delta_add(cython.address(p.c.t), cython.address(d), memcg, counter, n)
    delta_apply(cython.address(p.c.t), cython.address(d))
    pthread_mutex_unlock(cython.address(p.c.lock))
