"""What a program asks for ranges of pages: bring in, keep, cool, evict, drop; and freeing an array."""

import cython
from cython.cimports.libc.errno import EEXIST, EIO, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.clean import clean_forget
from cython.cimports.uzswap.core.frames import put_zeros
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DONTNEED,
    madvise,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.page_in import KEEP, bring_run
from cython.cimports.uzswap.core.page_out import evict_picked, pick, uncharge
from cython.cimports.uzswap.core.pagetable import (
    BATCH_PAGES,
    NO_PLACE,
    P_COMING,
    P_GOING,
    P_KEPT,
    P_LISTED,
    P_LOST,
    P_NONE,
    P_RESIDENT,
    P_SWAPPED,
    PAGE_BYTES,
    address_of,
    area_put,
    list_add,
    list_add_oldest,
    list_del,
    make_fresh,
    memcg_of,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.readahead import forget_streams
from cython.cimports.uzswap.core.stalls import arrived, waits
from cython.cimports.uzswap.core.swap_in import free_entries
from cython.cimports.uzswap.core.uffd import pthread_cond_wait, uz_thread_id


def settled(p, page):
    """Wait until a page is on its way no longer.  Called, and returns, with the lock."""
    while p.pages[page].state == P_COMING or p.pages[page].state == P_GOING:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))


def bring_range(p, w, first, n, flags):
    """Bring pages in.  0, or -EIO when one of them is lost."""
    x: uint64_t = first
    k: uint64_t
    lost: cython.int = 0
    thread: cython.int = uz_thread_id()
    pthread_mutex_lock(cython.address(p.lock))
    while x < first + n:
        if p.pages[x].state not in (P_RESIDENT, P_LOST):
            waits(p, thread, x)
        settled(p, x)
        arrived(p, x, 1)
        page = cython.address(p.pages[x])
        if page.state == P_RESIDENT:
            if flags & KEEP and not page.flags & P_KEPT:
                list_del(p, cython.cast(uint32_t, x))
                page.flags |= P_KEPT
            x += 1
            continue
        if page.state == P_LOST:
            lost = -EIO
            x += 1
            continue
        k = 1
        while k < BATCH_PAGES and x + k < first + n and p.pages[x + k].state in (P_NONE, P_SWAPPED):
            k += 1
        waits(p, thread, x)
        bring_run(p, w, x, k, flags)
        if w.result[0] == NO_PLACE:
            lost = -EIO
            x += 1
    pthread_mutex_unlock(cython.address(p.lock))
    return lost


def unkeep_range(p, first, n):
    x: uint64_t
    pthread_mutex_lock(cython.address(p.lock))
    for x in range(first, first + n):
        page = cython.address(p.pages[x])
        if page.flags & P_KEPT:
            page.flags &= ~P_KEPT
            if page.state == P_RESIDENT:
                list_add(p, cython.cast(uint32_t, x))
    pthread_mutex_unlock(cython.address(p.lock))


def cool_range(p, first, n):
    """Make what is resident of a range the next to go: MADV_COLD."""
    x: uint64_t = first + n
    pthread_mutex_lock(cython.address(p.lock))
    while x > first:
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
    pthread_mutex_lock(cython.address(p.lock))
    while x < first + n:
        k = 0
        while x < first + n and k < BATCH_PAGES:
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
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def evict_own(p, w, memcg, most):
    """Evict up to `most` of the oldest resident pages of one memcg, its children's not.  How many went."""
    gone: int64_t = 0
    n: cython.int = 1
    pthread_mutex_lock(cython.address(p.lock))
    while n and gone < most:
        n = pick(p, w, memcg, BATCH_PAGES if most - gone > BATCH_PAGES else cython.cast(cython.int, most - gone))
        if n:
            n = evict_picked(p, w, n)
            gone += n
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def clear(p, first, n):
    """Take pages out of memory, as far as what is mapped there is still ours.  Called with the lock."""
    x: uint64_t
    at = p.base + first * PAGE_BYTES
    if not n:
        return
    if not p.areas[p.pages[first].area].punched:
        madvise(at, n * PAGE_BYTES, MADV_DONTNEED)
        return
    for x in range(first, first + n):
        at = p.base + x * PAGE_BYTES
        got = put_zeros(p, at, PAGE_BYTES)
        # Anything else says that no userfaultfd of ours is behind the page.
        if got > 0 or got == -EEXIST:
            madvise(at, PAGE_BYTES, MADV_DONTNEED)


def drop_range(p, w, first, n):
    """Forget the contents of pages: they read as zero.  Their memory, pool objects and disk bytes go back at once."""
    x: uint64_t = first
    run: uint64_t = first
    k: cython.int
    copies: cython.int
    error: cython.int = 0
    dropped: int64_t = 0
    pthread_mutex_lock(cython.address(p.lock))
    while x < first + n:
        k = copies = 0
        while x < first + n and k < BATCH_PAGES and copies < BATCH_PAGES:
            page = cython.address(p.pages[x])
            if page.state == P_COMING or page.state == P_GOING:
                # The wait lets go of the lock: what was dropped so far must be gone before anybody sees it.
                clear(p, run, x - run)
                run = x
                settled(p, x)
                continue
            if page.state == P_RESIDENT:
                list_del(p, cython.cast(uint32_t, x))
                p.areas[page.area].resident -= 1
                p.resident -= 1
                dropped += 1
                if page.handle:
                    w.kept[copies] = page.handle
                    w.owners[copies] = address_of(p, x)
                    copies += 1
            elif page.handle:
                w.handles[k] = page.handle
                k += 1
            if page.state == P_LOST and not p.can_poison:
                make_fresh(p, x, 1)
            page.state = P_NONE
            page.handle = 0
            page.flags = 0
            x += 1
        if k:
            free_entries(p.c, w.handles, k, cython.address(error))
        if copies:
            clean_forget(p.c, w.kept, w.owners, copies)
    clear(p, run, x - run)
    if dropped:
        uncharge(p, memcg_of(p, p.pages[first].area), dropped)
    pthread_mutex_unlock(cython.address(p.lock))


def area_free(p, a):
    """Free an array's pages, and its address space.  0 or -errno."""
    if p.broken:
        # Who knows what is locked: the process keeps it.
        return 0
    pthread_mutex_lock(cython.address(p.lock))
    w = work_get(p)
    # What is under way is waited for; what would begin between dropping a page and freeing it is nobody's to see.
    forget_streams(p, a)
    pthread_mutex_unlock(cython.address(p.lock))
    if w == cython.NULL:
        return -ENOMEM
    drop_range(p, w, p.areas[a].first, p.areas[a].pages)
    pthread_mutex_lock(cython.address(p.lock))
    area_put(p, a)
    work_put(p, w)
    pthread_mutex_unlock(cython.address(p.lock))
    return 0
