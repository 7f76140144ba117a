"""Bringing pages in: charged first, then loaded into frames and put in place, which wakes whoever waits for them."""

import cython
from cython.cimports.libc.errno import EAGAIN, EBADMSG, EBUSY, EEXIST, EILSEQ, EINVAL, ENOMEM, ESTALE
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import count, touched, uncharge
from cython.cimports.uzswap.core.paging.frames import (
    lift,
    poison,
    put_copy,
    put_pages,
    put_zeros,
    stock_used,
    take_stock,
)
from cython.cimports.uzswap.core.paging.make_room import make_room, want_shrinking
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    E_HIGH,
    E_MAX,
    E_OOM,
    HOLD_PAGES,
    NO_PLACE,
    P_ACTIVE,
    P_COMING,
    P_KEPT,
    P_LOST,
    P_NONE,
    P_RESIDENT,
    P_SQUEEZED,
    P_STUCK,
    P_SWAPPED,
    P_WANTED,
    PAGE_BYTES,
    address_of,
    failed_add,
    failed_del,
    handle_at,
    memcg_of,
    tell,
)
from cython.cimports.uzswap.core.paging.stalls import arrived_all, squeezed, who_waits
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_broadcast, pthread_cond_wait, uz_say_lost, uz_uffd_wake
from cython.cimports.uzswap.core.paging.workingset import comes_back, list_add, settles
from cython.cimports.uzswap.core.store.clean import clean_keep
from cython.cimports.uzswap.core.store.entries import C_PGFAULT, NO_MEMCG
from cython.cimports.uzswap.core.store.state import core_charge
from cython.cimports.uzswap.core.store.swap_in import free_entries, swap_in

# How often memory.max is tried before a fault is served over the limit: MAX_RECLAIM_RETRIES of mm/internal.h.
RECLAIM_RETRIES = cython.declare(cython.int, 16)

# Fewer pages are copied into new frames: moving one flushes the TLBs of all CPUs that run the program.  Measured on
# random reads of single pages, 2 virtual CPUs: 0.72 of the time that moving takes (2026-11).  Where the faulting thread
# serves itself no other CPU runs the program for that, and moving takes 0.90 of the CPU time of copying, 0.94 with a
# busy thread beside it.
LEAST_MOVED = cython.declare(uint64_t, 8)

# Pages that a server evicts for a fault of a few: so many take about as long as a fault.  Measured on random reads of
# single pages, 2 virtual CPUs, 16 MiB of 64 resident: 0.65 of the time that they take where a worker, which is on
# another CPU as often as not, evicts as much (2026-11).
ON_THE_SPOT = cython.declare(int64_t, 8)

# How often a page is read before its bytes count as lost: whoever waits for it most often dies of that.
READ_TRIES = cython.declare(cython.int, 2)

# Of an array whose copies were stale when it was last evicted, one run in this many keeps them, to see whether that
# has changed.
KEEP_SAMPLE = cython.declare(uint32_t, 16)


def charge_run(p, w, area, n, flags):
    """Charge n pages of an area, evicting first where a hard limit asks for it.  Called without the lock.

    A fault cannot fail as an allocation can, and nobody is killed here: when nothing more can go the charge is forced.
    What nobody has asked for yet is not brought in then.  Returns the memcg that was charged, or NO_MEMCG.
    """
    met = cython.address(w.charge)
    tries: cython.int = 0
    force: cython.bint = False
    nbytes = cython.cast(int64_t, n) * PAGE_BYTES
    pthread_mutex_lock(cython.address(p.lock))
    memcg = memcg_of(p, area)
    pthread_mutex_unlock(cython.address(p.lock))
    while True:
        if core_charge(p.c, memcg, nbytes, force, met):
            # The cgroup was removed just now: its arrays are its parent's, whose limits nobody has met yet.
            force = False
            tries = 0
            pthread_mutex_lock(cython.address(p.lock))
            memcg = memcg_of(p, area)
            pthread_mutex_unlock(cython.address(p.lock))
            continue
        if met.over_max == NO_MEMCG:
            break
        limited = cython.address(p.c.t.memcgs[met.over_max])
        pthread_mutex_lock(cython.address(p.c.lock))
        fits: cython.bint = nbytes <= (limited.resident_max if met.resident else limited.memory_max)
        pthread_mutex_unlock(cython.address(p.c.lock))
        if flags & AHEAD and not fits:
            return NO_MEMCG
        pthread_mutex_lock(cython.address(p.lock))
        tell(p, met.over_max, E_MAX)
        squeezed(p, w.run, n)
        pthread_mutex_unlock(cython.address(p.lock))
        if make_room(p, w, met.over_max, BATCH_PAGES, met.resident):
            continue
        if flags & AHEAD:
            return NO_MEMCG
        pthread_mutex_lock(cython.address(p.lock))
        tries += 1
        if fits and tries < RECLAIM_RETRIES and (p.nr_evicting or p.nr_arriving):
            # What others have under way can be evicted, or makes room, when it is there or gone.
            pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
        else:
            force = True
            tell(p, met.over_max, E_OOM)
        pthread_mutex_unlock(cython.address(p.lock))
    pthread_mutex_lock(cython.address(p.lock))
    p.nr_arriving += 1
    pthread_mutex_unlock(cython.address(p.lock))
    return memcg


def shrink_on_the_spot(p, w, n):
    """Evict some pages of a memcg that is close to its limit, here and now; whether any went.

    To take a page out of its place interrupts all CPUs that run the program, and holds up whoever reads of the next
    fault: for pages that come one by one this costs least while the program waits.  What may have to wait for the
    device is left to workers: all that a limit of all memory asks for, and the pages that meet the last free server.
    Called without the lock.
    """
    if w.charge.near == NO_MEMCG or (p.c.has_device and not w.charge.resident):
        return 0
    pthread_mutex_lock(cython.address(p.lock))
    may: cython.bint = p.by_signal or not p.c.has_device or p.serving < p.nr_servers
    if may:
        squeezed(p, w.run, n)
    pthread_mutex_unlock(cython.address(p.lock))
    most = cython.cast(int64_t, n) if n > ON_THE_SPOT else ON_THE_SPOT
    return may and make_room(p, w, w.charge.near, most, w.charge.resident) > 0


def leave_run(p, w, n):
    """A run does not come in after all: whoever waits for a page of it asks again.  Called with the lock."""
    i: uint64_t
    for i in range(n):
        page = cython.address(p.pages[w.run[i]])
        page.state = P_SWAPPED if page.entry else P_NONE
        page.flags &= ~(P_SQUEEZED | P_WANTED)
        uz_uffd_wake(p.fd, p.base + cython.cast(uint64_t, w.run[i]) * PAGE_BYTES, PAGE_BYTES)
    arrived_all(p, w.run, n)
    pthread_cond_broadcast(cython.address(p.changed))


def keep_copies(p, w, area, flags):
    """Whether pages that come in keep their compressed copies: not when these would be stale, or the first to go."""
    if flags & TO_WRITE or (w.charge.near != NO_MEMCG and not w.charge.resident) or w.charge.over_high != NO_MEMCG:
        return 0
    x = cython.address(p.areas[area])
    pthread_mutex_lock(cython.address(p.lock))
    x.unkept += 1
    keep: cython.bint = x.clean_score > 0 or x.unkept >= KEEP_SAMPLE
    if keep:
        x.unkept = 0
    pthread_mutex_unlock(cython.address(p.lock))
    return keep


def bring_run(p, w, first, n, flags):
    """bring_pages() of n neighbours from `first` on."""
    i: uint64_t
    for i in range(n):
        w.run[i] = cython.cast(uint32_t, first + i)
    bring_pages(p, w, n, flags)


def bring_pages(p, w, n, flags):
    """Bring in the n pages of w.run, all P_NONE or P_SWAPPED, of one area.  Called, and returns, with the lock."""
    i: uint64_t
    k: uint64_t
    thread: cython.int
    missing: int64_t = 0
    for i in range(n):
        touched(p, w.run[i], 1)
        p.pages[w.run[i]].state = P_COMING
    a = p.pages[w.run[0]].area
    # Now: as soon as its page is in place it may wait for another.
    thread = 0 if flags & AHEAD else who_waits(p, w.run, n)
    pthread_mutex_unlock(cython.address(p.lock))
    memcg = charge_run(p, w, a, n, flags)
    if memcg == NO_MEMCG:
        pthread_mutex_lock(cython.address(p.lock))
        leave_run(p, w, n)
        return
    scattered: cython.bint = not are_neighbours(w.run, n)
    shrunk: cython.bint = (n < LEAST_MOVED or scattered) and not flags & AHEAD and shrink_on_the_spot(p, w, n)
    keep: cython.int = keep_copies(p, w, a, flags)
    i = 0
    while i < n:
        k = 1
        while i + k < n and continues(p, w, i, k):
            k += 1
        if p.pages[w.run[i]].entry:
            load_swapped(p, w, i, k, keep, 1)
        else:
            fill_empty(p, w, i, k, flags & TO_WRITE)
            count(p, memcg, C_PGFAULT, k)
        i += k
    pthread_mutex_lock(cython.address(p.lock))
    memcg = memcg_of(p, a)
    m = cython.address(p.memcgs[memcg])
    area = cython.address(p.areas[a])
    for i in range(n):
        page = cython.address(p.pages[w.run[i]])
        place = p.base + cython.cast(uint64_t, w.run[i]) * PAGE_BYTES
        if w.result[i] == 0 and page.flags & P_WANTED:
            # Whom it woke when it was put in place may have dropped it since, and wait for it anew.
            uz_uffd_wake(p.fd, place, PAGE_BYTES)
        page.flags &= ~(P_SQUEEZED | P_WANTED)
        if w.result[i] == 0:
            page.state = P_RESIDENT
            page.flags &= ~(P_ACTIVE | P_STUCK)
            page.stuck = 0
            if page.entry:
                comes_back(p, m, w.run[i], flags & AHEAD, thread)
                page.entry = cython.cast(uint32_t, w.kept[i])
                area.loads += 1
            area.resident += 1
            p.resident += 1
            settles(m, page, w.run[i], n < LEAST_MOVED or scattered)
            if flags & KEEP:
                page.flags |= P_KEPT
            else:
                list_add(p, w.run[i])
            continue
        missing += 1
        page.state = P_SWAPPED if page.entry else P_NONE
        if w.result[i] > 0:
            lose(p, w.run[i], w.result[i])
        uz_uffd_wake(p.fd, place, PAGE_BYTES)
    if missing:
        uncharge(p, memcg, missing)
    p.nr_arriving -= 1
    arrived_all(p, w.run, n)
    if w.charge.near != NO_MEMCG and not shrunk:
        want_shrinking(p, w.charge.near)
    if w.charge.over_high != NO_MEMCG:
        want_shrinking(p, w.charge.over_high)
        tell(p, w.charge.over_high, E_HIGH)
    pthread_cond_broadcast(cython.address(p.changed))


def are_neighbours(run, n):
    """Whether pages follow each other upwards.  The ends alone don't tell: a stream that leaves out pages downwards may
    have them as far apart as they are many."""
    i: uint64_t
    for i in range(1, n):
        if run[i] != run[0] + i:
            return 0
    return 1


def continues(p, w, i, k):
    """Whether the page k behind the i-th of a run is to be treated with it: next to it, and swapped out like it."""
    page: uint64_t = w.run[i + k]
    return page == w.run[i] + k and (p.pages[page].entry == 0) == (p.pages[w.run[i]].entry == 0)


def fill_empty(p, w, at, n, to_write):
    """First touch: the zero page, or pages of zeros where a write would only have to copy it.

    The kernel refuses all of a run that reaches over a border of mappings, which the program makes by mprotect, mlock
    or madvise on a part of an array; so what is refused is tried page by page.
    """
    done: uint64_t = 0
    most: uint64_t = n
    i: uint64_t
    for i in range(n):
        w.result[at + i] = NO_PLACE
    while done < n:
        to = p.base + (w.run[at] + done) * PAGE_BYTES
        nbytes = (n - done if n - done < most else most) * PAGE_BYTES
        got = put_copy(p, to, p.zeros, nbytes) if to_write else put_zeros(p, to, nbytes)
        if got == -EEXIST:
            # The program put something there itself (madvise, mmap over it): it is what the program sees.
            got = PAGE_BYTES
            uz_uffd_wake(p.fd, to, PAGE_BYTES)
        elif got < 0:
            done += most == 1
            most = 1
            continue
        for i in range(done, done + got // PAGE_BYTES):
            w.result[at + i] = 0
        done += got // PAGE_BYTES


def load_swapped(p, w, at, n, keep, tries):
    """Load n swapped pages into place; w.result says for each whether it is there, lost, or to be tried again."""
    i: uint64_t
    frames: cython.p_char = w.scratch
    stock: cython.int = take_stock(p, n, cython.address(frames)) if n >= LEAST_MOVED or p.by_signal else -1
    for i in range(n):
        w.handles[i] = handle_at(p, w.run[at] + i)
    load = cython.address(w.load)
    load.handles = w.handles
    load.n = n
    load.spans = cython.NULL
    load.out = frames
    load.nbytes = n * PAGE_BYTES
    load.page = PAGE_BYTES
    load.consume = 0
    swap_in(p.c, load)
    error: cython.int = load.error
    how: cython.int = 0
    placeless: cython.bint = 0
    if not error:
        how = put_pages(p, p.base + cython.cast(uint64_t, w.run[at]) * PAGE_BYTES, frames, n, stock >= 0)
        if not how:
            error = EAGAIN
            placeless = 1
    if stock >= 0:
        stock_used(p, stock, frames, n, how)
    if not error:
        if keep:
            clean_keep(p.c, w.handles, cython.cast(cython.int, n), address_of(p, w.run[at]))
        else:
            free_entries(p.c, w.handles, n, cython.address(error))
            memset(w.handles, 0, n * cython.sizeof(uint64_t))
        for i in range(n):
            w.kept[at + i] = w.handles[i]
            w.result[at + i] = 0
    elif n > 1:
        # One of them is in the way of all: the others must not suffer.
        for i in range(n):
            load_swapped(p, w, at + i, 1, keep, 1)
    elif placeless:
        w.result[at] = NO_PLACE
    elif error in (EAGAIN, ENOMEM, EBUSY):
        w.result[at] = -1
    elif tries < READ_TRIES:
        load_swapped(p, w, at, 1, keep, tries + 1)
    else:
        w.result[at] = error


def lose(p, page, error):
    """The bytes of a page cannot be had: SIGBUS for whoever reads it, and a line that says why.

    Its entry is kept, as the kernel keeps it: when it was the device that failed, a later access reads again.  Poison
    has to go for that, and nobody tells when those who wait for the page have met it: the keeper removes it after a
    while.  Who comes too late to meet it reads again, too.
    """
    area = cython.address(p.areas[p.pages[page].area])
    passing: cython.bint = error not in (EBADMSG, EILSEQ, ESTALE, EINVAL)
    uz_say_lost(
        p.memcgs[memcg_of(p, p.pages[page].area)].label,
        area.label,
        area.pages * PAGE_BYTES,
        (page - area.first) * PAGE_BYTES,
        error,
        passing,
    )
    p.pages[page].state = P_LOST
    if passing:
        failed_add(p, cython.cast(uint32_t, page))
    poison(p, page)


def again(p, page):
    """Have a lost page read again when it is asked for next.  0, or -errno when that cannot be."""
    failed_del(p, cython.cast(uint32_t, page))
    error = lift(p, page)
    if not error:
        p.pages[page].state = P_SWAPPED
    return error


def try_failed_again(p):
    """Give every page another chance that was lost to the device.  Called with the lock."""
    left = p.failed.length if p.failed.length < HOLD_PAGES else HOLD_PAGES
    while left:
        left -= 1
        page = p.failed.head
        if again(p, page):
            failed_add(p, page)
