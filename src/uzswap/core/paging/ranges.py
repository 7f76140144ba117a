"""What a program asks for ranges of pages: bring in, keep, cool, evict, drop; and freeing an array."""

import cython
from cython.cimports.libc.errno import EIO
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.gate import uz_breathe
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_rwlock_unlock,
    uz_brief_lock,
)
from cython.cimports.uzswap.core.paging.areas import any_gone, area_put, leaf_end, leaves_put, touched, uncharge
from cython.cimports.uzswap.core.paging.frames import discard, lift
from cython.cimports.uzswap.core.paging.page_in import KEEP, again, bring_run
from cython.cimports.uzswap.core.paging.page_out import breathe, evict_picked
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    HOLD_PAGES,
    LEAF_PAGES,
    NO_PLACE,
    P_COMING,
    P_GOING,
    P_KEPT,
    P_LISTED,
    P_LOST,
    P_NONE,
    P_RESIDENT,
    PAGE_BYTES,
    address_of,
    failed_del,
    handle_at,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.readahead import forget_streams, may_come
from cython.cimports.uzswap.core.paging.stalls import arrived, waits
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_wait, uz_as_reserved, uz_thread_id
from cython.cimports.uzswap.core.paging.workingset import list_add, list_add_oldest, list_del, pick
from cython.cimports.uzswap.core.store.clean import clean_forget
from cython.cimports.uzswap.core.store.swap_in import free_entries


def on_its_way(p, page):
    return p.pages[page].state == P_COMING or p.pages[page].state == P_GOING


def settled(p, page):
    """Wait until a page is on its way no longer.  Called, and returns, with the lock."""
    while on_its_way(p, page):
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))


def part(p, x, end):
    """Pass over an untouched leaf that a page is in; where what can be looked at in one hold of the lock ends."""
    beyond = leaf_end(p, x[0])
    if beyond > x[0]:
        x[0] = beyond if beyond < end else end
        return x[0]
    return x[0] + HOLD_PAGES if end - x[0] > HOLD_PAGES else end


def bring_range(p, w, first, n, flags):
    """Bring pages in.  0, or -EIO when one of them is lost.  Those that were lost before are tried again."""
    x: uint64_t = first
    k: uint64_t
    lost: cython.int = 0
    thread: cython.int = uz_thread_id()
    # Not while it evicts for a run that is on its way.
    may_breathe: cython.bint = w.may_breathe
    w.may_breathe = 0
    pthread_mutex_lock(cython.address(p.lock))
    while x < first + n:
        if may_breathe:
            breathe(p)
        touched(p, x, 1)
        if p.pages[x].state not in (P_RESIDENT, P_LOST):
            waits(p, thread, x)
        settled(p, x)
        arrived(p, x)
        page = cython.address(p.pages[x])
        if page.state == P_RESIDENT:
            if flags & KEEP and not page.flags & P_KEPT:
                list_del(p, cython.cast(uint32_t, x))
                page.flags |= P_KEPT
            x += 1
            continue
        if page.gone or (page.state == P_LOST and again(p, x)):
            lost = -EIO
            x += 1
            continue
        k = 1
        while k < BATCH_PAGES and x + k < first + n and may_come(p, x + k, page.area):
            k += 1
        waits(p, thread, x)
        bring_run(p, w, x, k, flags)
        if w.result[0] == NO_PLACE or w.result[0] > 0:
            lost = -EIO
            x += 1
    pthread_mutex_unlock(cython.address(p.lock))
    return lost


def unkeep_range(p, first, n):
    x: uint64_t = first
    while x < first + n:
        pthread_mutex_lock(cython.address(p.lock))
        end = part(p, cython.address(x), first + n)
        while x < end:
            page = cython.address(p.pages[x])
            if page.flags & P_KEPT:
                page.flags &= ~P_KEPT
                if page.state == P_RESIDENT:
                    list_add(p, cython.cast(uint32_t, x))
            x += 1
        pthread_mutex_unlock(cython.address(p.lock))


def cool_range(p, first, n):
    """Make what is resident of a range the next to go: MADV_COLD."""
    x: uint64_t = first + n
    while x > first:
        begin = x - HOLD_PAGES if x - first > HOLD_PAGES else first
        pthread_mutex_lock(cython.address(p.lock))
        if leaf_end(p, x - 1) >= x:
            leaf: uint64_t = (x - 1) // LEAF_PAGES * LEAF_PAGES
            x = begin = leaf if leaf > first else first
        while x > begin:
            x -= 1
            page = cython.address(p.pages[x])
            if page.state == P_RESIDENT and page.flags & P_LISTED:
                list_del(p, cython.cast(uint32_t, x))
                list_add_oldest(p, cython.cast(uint32_t, x))
        pthread_mutex_unlock(cython.address(p.lock))


def evict_range(p, w, first, n):
    """Evict what is resident of a range and may go.  How many pages went."""
    x: uint64_t = first
    k: cython.int
    gone: int64_t = 0
    while x < first + n:
        k = 0
        pthread_mutex_lock(cython.address(p.lock))
        end = part(p, cython.address(x), first + n)
        while x < end and k < BATCH_PAGES:
            # Pages of this very batch are P_GOING already: only what others have under way is waited for.
            if p.pages[x].state == P_COMING:
                settled(p, x)
            page = cython.address(p.pages[x])
            if page.state == P_RESIDENT and page.flags & P_LISTED:
                list_del(p, cython.cast(uint32_t, x))
                page.state = P_GOING
                w.picks[k] = cython.cast(uint32_t, x)
                k += 1
            x += 1
        if k:
            gone += evict_picked(p, w, k)
        if w.may_breathe:
            breathe(p)
        pthread_mutex_unlock(cython.address(p.lock))
    return gone


def evict_own(p, w, memcg, most):
    """Evict up to `most` of the oldest resident pages of one memcg, its children's not.  How many went."""
    gone: int64_t = 0
    n: cython.int = 1
    pthread_mutex_lock(cython.address(p.lock))
    while n and gone < most:
        n = pick(p, w, memcg, BATCH_PAGES if most - gone > BATCH_PAGES else cython.cast(cython.int, most - gone), 0)
        if n:
            n = evict_picked(p, w, n)
            gone += n
        if w.may_breathe:
            breathe(p)
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def drop_range(p, first, n, a):
    """Forget the contents of pages: they read as zero.  Their memory, pool objects and disk bytes go back at once.

    0, or -errno when the kernel keeps some of it: what was not dropped is as it was.  With a != 0 the pages are that
    area's no longer, and what cannot be dropped is left as nobody's.  Needs no memory; nothing long is done with a lock
    held.
    """
    d: Dropped
    x: uint64_t = first
    ignored: cython.int = 0
    error: cython.int = 0
    while x < first + n and (a or not error):
        d.nr_handles = d.nr_copies = 0
        got = drop_some(p, cython.address(d), cython.address(x), first + n, a)
        error = got if got else error
        if d.nr_handles:
            free_entries(p.c, d.handles, d.nr_handles, cython.address(ignored))
        if d.nr_copies:
            clean_forget(p.c, d.copies, d.owners, d.nr_copies)
        # A child has the rest of it, which nobody there knows of.
        uz_breathe(cython.address(p.gate))
    return error


def drop_some(p, d, x, end, a):
    """drop_range() of as much as one hold of the lock is for; x goes on."""
    pthread_mutex_lock(cython.address(p.lock))
    first = x[0]
    i: uint64_t
    dropped: int64_t = 0
    beyond = leaf_end(p, first)
    if beyond > first:
        # Nothing was ever there.
        if a:
            p.untouched[first // LEAF_PAGES] = 0
        x[0] = beyond if beyond < end else end
        pthread_mutex_unlock(cython.address(p.lock))
        return 0
    settled(p, first)
    area = cython.address(p.areas[p.pages[first].area])
    memcg = memcg_of(p, p.pages[first].area)
    # One more hold for what is on its way; and a copy or a handle is one of each at most.
    n: uint64_t = 1
    while first + n < end and n < DROP_PAGES and p.pages[first + n].area and not on_its_way(p, first + n):
        n += 1
    x[0] = first + n
    for i in range(first, first + n):
        if p.pages[i].state == P_LOST and not p.can_poison:
            lift(p, i)
    error = discard(p, first, n, 1)
    if error and not a:
        pthread_mutex_unlock(cython.address(p.lock))
        return error
    for i in range(first, first + n):
        page = cython.address(p.pages[i])
        if page.state == P_RESIDENT:
            list_del(p, cython.cast(uint32_t, i))
            area.resident -= 1
            p.resident -= 1
            dropped += 1
            if page.entry:
                d.copies[d.nr_copies] = page.entry
                d.owners[d.nr_copies] = address_of(p, i)
                d.nr_copies += 1
        elif page.entry:
            d.handles[d.nr_handles] = handle_at(p, i)
            d.nr_handles += 1
        failed_del(p, cython.cast(uint32_t, i))
        page.state = P_NONE
        page.entry = page.prev = page.next = 0
        page.flags = page.stuck = page.backoff = 0
        if a:
            page.area = 0
    if dropped:
        uncharge(p, memcg, dropped)
    pthread_mutex_unlock(cython.address(p.lock))
    return error


def area_free(p, a):
    """Free an array's pages, and its address space."""
    if p.broken:
        # Who knows what is locked: the process keeps it.
        return
    pthread_mutex_lock(cython.address(p.lock))
    # What is under way is waited for; what would begin between dropping a page and freeing it is nobody's to see.
    forget_streams(p, a)
    first: uint64_t = p.areas[a].first
    n: uint64_t = p.areas[a].pages
    pthread_mutex_unlock(cython.address(p.lock))
    usable: cython.bint = drop_range(p, first, n, a) == 0 and restore(p, first, n) == 0
    leaves_put(p, first, n)
    pthread_mutex_lock(cython.address(p.lock))
    area_put(p, a, usable)
    pthread_mutex_unlock(cython.address(p.lock))


def restore(p, first, n):
    """Undo what a program did to the memory of its array (mlock, mprotect, madvise).  0 or -errno."""
    error: cython.int = 0
    uz_brief_lock(cython.address(p.marks), 1)
    if not any_gone(p, first, n):
        error = uz_as_reserved(p.base + first * PAGE_BYTES, n * PAGE_BYTES)
    pthread_rwlock_unlock(cython.address(p.marks))
    return error
