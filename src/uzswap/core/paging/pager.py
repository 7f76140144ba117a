"""The threads of paged memory: those that serve faults, those that work ahead of them, and the one that watches.

A fault is served by the first thread to read it.  There is one pinned to each CPU: the one on the faulting thread's
CPU runs as soon as that thread sleeps, without an interrupt to another CPU (benchmarks/bench_arrays measures this
against one unpinned thread, and against serving in a SIGBUS handler of the faulting thread).  Workers, pinned nowhere,
read ahead of streams and evict below the limits, so that a fault seldom waits for more than its own page.

None of these threads takes the GIL, since a thread that holds it may be the one waiting for them; none touches paged
memory, and all signals are blocked in them.  They have a table of descriptors of their own: whatever the program closes
(``os.closerange`` when it becomes a daemon, say), it cannot close the userfaultfd, without which every page that is not
resident would read as zero.

Pager.lock protects the page table and is never held across compression or I/O: pages on their way are P_COMING or
P_GOING, and whoever needs one of them waits for ``changed``.  The order of locks is Pager.lock, then Core.lock.
"""

import cython
from cython.cimports.libc.stdint import uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.uzswap.core.gate import uz_enter, uz_enter_anyway, uz_leave, uz_try_enter
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import touched
from cython.cimports.uzswap.core.paging.frames import poison, protect, put_copy, put_zeros, take_message
from cython.cimports.uzswap.core.paging.make_room import make_room, want_shrinking
from cython.cimports.uzswap.core.paging.page_in import AHEAD, TO_WRITE, are_neighbours, bring_pages, bring_run
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    NR_TRACKERS,
    P_COMING,
    P_GOING,
    P_LOST,
    P_RESIDENT,
    P_STUCK,
    P_WANTED,
    PAGE_BYTES,
    address_of,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.paging.readahead import claim, stream_at, stream_over, want_reading
from cython.cimports.uzswap.core.paging.stalls import arrived, waits
from cython.cimports.uzswap.core.paging.uffd import (
    UZ_NOTHING,
    UZ_PROTECTED,
    UZ_WRITE,
    pthread_cond_broadcast,
    pthread_cond_signal,
    pthread_cond_wait,
    uz_thread_id,
    uz_uffd_wait,
    uz_uffd_wake,
)
from cython.cimports.uzswap.core.store.entries import MEMCG_ONLINE, NO_MEMCG, ON_DISK
from cython.cimports.uzswap.core.store.state import reserve_below, room_in


def thread_begins(p):
    """Working memory for a thread; its number is noted for the keeper."""
    pthread_mutex_lock(cython.address(p.lock))
    w = work_get(p)
    p.thread_ids[p.nr_begun] = uz_thread_id()
    p.nr_begun += 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    return w


def wait_events(p):
    """Wait for events; their union, or 0 when the pager closes."""
    pthread_mutex_lock(cython.address(p.lock))
    while not p.events and not p.closing and not p.broken:
        pthread_cond_wait(cython.address(p.told), cython.address(p.lock))
    events = 0 if p.closing or p.broken else p.events
    p.events = 0
    pthread_mutex_unlock(cython.address(p.lock))
    return events


# Faults


def serve(arg):
    p = cython.cast(cython.pointer(Pager), arg)
    address: uint64_t = 0
    nbytes: uint64_t = 0
    w = thread_begins(p)
    while not p.broken and uz_uffd_wait(p.fd, p.stop_read) == 0:
        kind = take_message(p, cython.address(address), cython.address(nbytes))
        if kind < 0:
            break
        if kind != UZ_NOTHING:
            uz_enter(cython.address(p.gate))
            at_work(p, 1)
            fault(p, w, address, kind, cython.cast(cython.int, nbytes))
            at_work(p, -1)
            uz_leave(cython.address(p.gate))
    if not p.broken:
        pthread_mutex_lock(cython.address(p.lock))
        work_put(p, w)
        pthread_mutex_unlock(cython.address(p.lock))
    return cython.NULL


def fault(p, w, address, kind, thread):
    run: uint32_t[BATCH_PAGES]
    n: uint64_t = 0
    x: uint64_t
    page: uint64_t = (address - address_of(p, 0)) // PAGE_BYTES
    at = p.base + page * PAGE_BYTES
    pthread_mutex_lock(cython.address(p.lock))
    p.faults += 1
    if page < p.nr_pages:
        touched(p, page, 1)
    if page < p.nr_pages and p.pages[page].area and p.pages[page].state not in (P_LOST, P_RESIDENT):
        waits(p, thread, page)
    if page < p.nr_pages and p.pages[page].state == P_GOING:
        if not p.can_move and kind != UZ_PROTECTED:
            # It is still in its place until it is stored, so the program has dropped it: it reads as zero.
            if put_zeros(p, at, PAGE_BYTES) < 0:
                uz_uffd_wake(p.fd, at, PAGE_BYTES)
            arrived(p, page)
        else:
            # Whoever evicts it may be waiting for the device: nobody who serves others waits for that.
            p.pages[page].flags |= P_WANTED
        pthread_mutex_unlock(cython.address(p.lock))
        return
    if page >= p.nr_pages or not p.pages[page].area or p.pages[page].gone or p.pages[page].state == P_LOST:
        # Beyond an array, in one that was freed, moved away by mremap, or lost before: loud, and only here.
        if page < p.nr_pages and not p.pages[page].area:
            p.strays = 1
        arrived(p, page)
        poison(p, page)
        pthread_mutex_unlock(cython.address(p.lock))
        return
    state = p.pages[page].state
    area = cython.address(p.areas[p.pages[page].area])
    area.faults += 1
    if state == P_COMING:
        # Whoever brings it in wakes all who wait for it; who only reads it, by the mark.
        p.pages[page].flags |= P_WANTED
        help_ahead(p, w, page)
        pthread_mutex_unlock(cython.address(p.lock))
        return
    if state == P_RESIDENT:
        arrived(p, page)
        # It came in since this fault was raised; or the program dropped it with madvise: then it reads as zero, as in
        # any anonymous memory.
        if kind == UZ_PROTECTED:
            if protect(p, at, PAGE_BYTES, 0):
                uz_uffd_wake(p.fd, at, PAGE_BYTES)
        elif put_copy(p, at, p.zeros, PAGE_BYTES) < 0:
            # It is there already, or there was no memory for it: then whoever waits faults again.
            uz_uffd_wake(p.fd, at, PAGE_BYTES)
        pthread_mutex_unlock(cython.address(p.lock))
        return
    t = stream_at(p, address - address_of(p, 0), kind == UZ_WRITE, run, cython.address(n))
    want_reading(p, t)
    for x in range(n):
        p.pages[run[x]].flags &= ~P_STUCK
    w.charge.over_high = NO_MEMCG
    bring_or_leave(p, w, run, n, TO_WRITE if kind == UZ_WRITE else 0)
    behind = w.charge.over_high
    far: cython.bint = False
    if behind != NO_MEMCG:
        pthread_mutex_lock(cython.address(p.c.lock))
        far = w.charge.excess > reserve_below(p.c.t.memcgs[behind].memory_high)
        pthread_mutex_unlock(cython.address(p.c.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    if far or (behind != NO_MEMCG and not p.nr_workers):
        # The faulter runs again already, but the workers do not keep up with it.
        make_room(p, w, behind, BATCH_PAGES, 0)


def on_disk(p, run, n):
    """Whether one of these pages has to be read from the device."""
    x: uint64_t
    found: cython.bint = False
    pthread_mutex_lock(cython.address(p.c.lock))
    for x in range(n):
        entry: uint32_t = p.pages[run[x]].entry
        found = found or (entry != 0 and p.c.t.entries[entry].state == ON_DISK)
    pthread_mutex_unlock(cython.address(p.c.lock))
    return found


def bring_or_leave(p, w, run, n, flags):
    """bring_pages(), unless nobody else could serve faults and this would wait for the device: workers do that then.

    However slow a device is, and however many wait for it, there is somebody for pages that are elsewhere.
    """
    if p.serving >= p.nr_servers and p.nr_workers and on_disk(p, run, n):
        leave(p, run, n, flags)
    else:
        memcpy(w.run, run, n * cython.sizeof(uint32_t))
        bring_pages(p, w, n, flags)


def leave(p, run, n, flags):
    """Leave a run to the workers; of pages that are not neighbours the last one, which somebody waits for.

    The queue is linked by the first pages of runs, whose successor and back-off mean nothing while they are P_COMING.
    """
    x: uint64_t
    first: uint32_t = run[0]
    if not are_neighbours(run, n):
        first = run[n - 1]
        n = 1
    touched(p, first, n)
    for x in range(first, first + n):
        p.pages[x].state = P_COMING
    page = cython.address(p.pages[first])
    page.next = 0
    page.stuck = cython.cast(uint16_t, n)
    page.backoff = cython.cast(uint8_t, flags)
    if p.first_run:
        p.pages[p.last_run].next = first
    else:
        p.first_run = first
    p.last_run = first
    pthread_cond_signal(cython.address(p.work))


def bring_left(p, w):
    """Bring in a run that was left; whether there was one.  Called, and returns, with the lock."""
    first = p.first_run
    if not first:
        return 0
    page = cython.address(p.pages[first])
    p.first_run = page.next
    flags: cython.int = page.backoff
    n: uint64_t = page.stuck
    page.backoff = 0
    page.stuck = 0
    bring_run(p, w, first, n, flags)
    return 1


def help_ahead(p, w, page):
    """A stream has caught up with the workers ahead of it: this thread brings in the next window meanwhile."""
    run: uint32_t[BATCH_PAGES]
    first: uint64_t = 0
    n: uint64_t = 0
    x: uint64_t
    t = stream_over(p, page)
    if t == cython.NULL:
        return
    want_reading(p, t)
    if claim(p, t, cython.address(first), cython.address(n)):
        p.read_ahead += n
        for x in range(n):
            run[x] = cython.cast(uint32_t, first + x)
        bring_or_leave(p, w, run, n, AHEAD | TO_WRITE if t.is_write else AHEAD)


# Work ahead of faults


def at_work(p, n):
    pthread_mutex_lock(cython.address(p.lock))
    p.busy += n
    p.serving += n
    if p.settling:
        pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))


def settle(p):
    """Wait until all is done that faults have set off.  Called without the lock."""
    pthread_mutex_lock(cython.address(p.lock))
    p.settling += 1
    while not p.closing and not p.broken and (p.busy or p.nr_queued or p.first_shrinking or p.first_run):
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    p.settling -= 1
    pthread_mutex_unlock(cython.address(p.lock))


def toil(arg):
    """A worker: brings in what was left to it first, reads ahead second, evicts third, and sleeps otherwise."""
    p = cython.cast(cython.pointer(Pager), arg)
    w = thread_begins(p)
    pthread_mutex_lock(cython.address(p.lock))
    while (not p.closing or p.first_run) and not p.broken:
        if p.first_run:
            # Others within wait for it.
            uz_enter_anyway(cython.address(p.gate))
        elif not uz_try_enter(cython.address(p.gate)):
            pthread_cond_wait(cython.address(p.work), cython.address(p.lock))
            continue
        p.busy += 1
        found: cython.bint = bring_left(p, w) or read_ahead(p, w) or shrink(p, w)
        p.busy -= 1
        uz_leave(cython.address(p.gate))
        if p.settling:
            pthread_cond_broadcast(cython.address(p.changed))
        if not found:
            pthread_cond_wait(cython.address(p.work), cython.address(p.lock))
    work_put(p, w)
    pthread_mutex_unlock(cython.address(p.lock))
    return cython.NULL


def read_ahead(p, w):
    """Bring in one window of a stream; whether there was one.  Called, and returns, with the lock."""
    i: cython.int
    first: uint64_t = 0
    n: uint64_t = 0
    if not p.nr_queued:
        return 0
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if not t.queued:
            continue
        if claim(p, t, cython.address(first), cython.address(n)):
            # Another worker may take the window behind it.
            pthread_cond_signal(cython.address(p.work))
            p.read_ahead += n
            bring_run(p, w, first, n, AHEAD | TO_WRITE if t.is_write else AHEAD)
            return 1
        t.queued = 0
        p.nr_queued -= 1
    return 0


def shrink(p, w):
    """Evict a batch of a memcg close to its limits; whether there was one.  Called, and returns, with the lock."""
    memcg = p.first_shrinking
    if not memcg:
        return 0
    m = cython.address(p.memcgs[memcg])
    p.first_shrinking = m.next_shrinking
    m.shrinking = 0
    if p.c.t.memcgs[memcg].state != MEMCG_ONLINE:
        return 1
    resident: cython.int = 0
    room = room_in(p.c, memcg, cython.address(resident))
    if room >= 0:
        return 1
    pages = -room // PAGE_BYTES + 1
    pthread_mutex_unlock(cython.address(p.lock))
    gone = make_room(p, w, memcg, pages if pages < BATCH_PAGES else BATCH_PAGES, resident)
    pthread_mutex_lock(cython.address(p.lock))
    if gone:
        want_shrinking(p, memcg)
    return 1
