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
from cython.cimports.libc.errno import EAGAIN, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.posix.unistd import write
from cython.cimports.uzswap.core.device.device import NR_FILES
from cython.cimports.uzswap.core.device.device_io import still_ours
from cython.cimports.uzswap.core.gate import (
    uz_enter,
    uz_enter_anyway,
    uz_gate_tell,
    uz_leave,
    uz_open,
    uz_try_enter,
)
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DONTFORK,
    pthread_mutex_lock,
    pthread_mutex_trylock,
    pthread_mutex_unlock,
    uz_is_still,
    uz_monotonic_ns,
)
from cython.cimports.uzswap.core.paging.areas import touched
from cython.cimports.uzswap.core.paging.frames import each_run, poison, protect, put_copy, put_zeros, take_message
from cython.cimports.uzswap.core.paging.handlers import look
from cython.cimports.uzswap.core.paging.make_room import make_room, want_shrinking
from cython.cimports.uzswap.core.paging.page_in import AHEAD, TO_WRITE, bring_run, try_failed_again
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    MOST_THREADS,
    MOST_WORKERS,
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
    work_new,
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
    pthread_join,
    uz_allowed_cpus,
    uz_cond_wait_ms,
    uz_kill_self_with_sigbus,
    uz_own_descriptors,
    uz_pause,
    uz_say_broken,
    uz_thread_id,
    uz_thread_lives,
    uz_thread_runs,
    uz_thread_start,
    uz_uffd_poison,
    uz_uffd_wait,
    uz_uffd_wait_ms,
    uz_uffd_wake,
)
from cython.cimports.uzswap.core.store.entries import MEMCG_ONLINE, NO_MEMCG, ON_DISK
from cython.cimports.uzswap.core.store.state import reserve_below, room_in

# Longer than a fork takes where there is a CPU for it.
RELENT_NS = cython.declare(int64_t, 1_000_000_000)

# Who forks sleeps for a moment now and then, for a lock: it waits for somebody when it is met asleep so often.
LOOKS = cython.declare(cython.int, 5)
LOOK_MS = cython.declare(cython.int, 10)

# Between two tries to start the first thread of a child.
RETRY_MS = cython.declare(cython.int, 10)

# How often the keeper looks whether all threads live: nothing tells it, and nobody should wait much longer than this.
WATCH_MS = cython.declare(cython.int, 1000)


# Beginning and end


def pager_start(p):
    """Start all threads.  0 or -errno."""
    failed = keeper_start(p)
    if failed:
        return failed
    pthread_mutex_lock(cython.address(p.lock))
    while not p.started:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    if p.started < 0:
        pager_close(p)
        pager_stop(p)
        return p.started
    return 0


def keeper_start(p):
    """Start the keeper; when it has a table of descriptors of its own the program may close its own.  0 or -errno."""
    failed = uz_thread_start(cython.address(p.keeper), watch, p, -1)
    if failed:
        return failed
    pthread_mutex_lock(cython.address(p.lock))
    while not p.keeper_ready:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return 0


def pager_close(p):
    """Send away all who wait for what the pager does."""
    pthread_mutex_lock(cython.address(p.watching))
    pthread_mutex_lock(cython.address(p.lock))
    p.closing = 1
    pthread_cond_broadcast(cython.address(p.told))
    pthread_cond_broadcast(cython.address(p.work))
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    pthread_cond_broadcast(cython.address(p.watch))
    pthread_mutex_unlock(cython.address(p.watching))
    if p.lazy and uz_is_still(p.stop_write, p.identities[2]):
        write(p.stop_write, b"x", 1)


def pager_stop(p):
    """End all threads; after pager_close(), when nobody uses the pager any more."""
    pthread_join(p.keeper, cython.NULL)


def own_table(p):
    """Called in the keeper: what it starts shares its descriptors."""
    keep: cython.int[260]  # as many as there are files, and four
    i: cython.int
    j: cython.int
    k: cython.int = 3
    keep[0] = p.fd
    keep[1] = p.stop_read
    keep[2] = p.stop_write
    # So that those who serve faults need not ask for what they read; where the program has closed it they do.
    if p.c.has_device and p.c.device.nr and still_ours(cython.address(p.c.device.io)):
        keep[k] = p.c.device.io.fd
        k += 1
    for i in range(NR_FILES):
        if p.c.files[i] != cython.NULL and still_ours(cython.address(p.c.files[i].io)):
            keep[k] = p.c.files[i].io.fd
            k += 1
    for i in range(1, k):
        j = i
        while j > 0 and keep[j - 1] > keep[j]:
            kept = keep[j]
            keep[j] = keep[j - 1]
            keep[j - 1] = kept
            j -= 1
    # Refused by old kernels and by some filters; then the descriptors are everybody's.
    uz_own_descriptors(keep, k)
    pthread_mutex_lock(cython.address(p.lock))
    p.keeper_ready = 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))


def start_threads(p):
    """Called in the keeper.  0 or -errno."""
    cpus: cython.int[MOST_THREADS]
    i: cython.int
    allowed = uz_allowed_cpus(cpus, MOST_THREADS)
    n: cython.int = allowed if 0 < allowed <= MOST_THREADS and not p.by_signal else 1
    for i in range(p.nr_servers, n):
        if not work_ready(p, 1):
            if i == 0:
                return -ENOMEM
            break
        # With more CPUs than threads none is pinned: waking all of them for each fault would cost more than it saves.
        failed = uz_thread_start(cython.address(p.threads[i]), serve, p, cpus[i] if n == allowed else -1)
        if failed:
            if i == 0:
                return failed
            break
        p.nr_servers += 1
    for i in range(allowed if 0 < allowed < MOST_WORKERS else MOST_WORKERS):
        # Without workers everything is done by those that serve.
        if not work_ready(p, 1) or uz_thread_start(cython.address(p.threads[p.nr_servers + i]), toil, p, -1):
            break
        p.nr_workers += 1
    if p.by_signal:
        # Who faults works in this memory, and leaves to workers what is long, or what there is none for.
        work_ready(p, allowed if 0 < allowed < MOST_THREADS else MOST_THREADS)
        return 0 if p.nr_workers else -EAGAIN
    return 0


def work_ready(p, spare):
    """Whether there is working memory for so many more threads, which thread_begins() will find.

    In a child that which its parent had is used again: a fault waits for it, whatever memory there is.
    """
    pthread_mutex_lock(cython.address(p.lock))
    missing: cython.int = spare + p.nr_servers + p.nr_workers - p.nr_begun
    w = p.works
    while w != cython.NULL and missing > 0:
        missing -= 1
        w = w.next
    while missing > 0:
        w = work_new(p)
        if w == cython.NULL:
            break
        work_put(p, w)
        missing -= 1
    pthread_mutex_unlock(cython.address(p.lock))
    return missing <= 0


def thread_begins(p):
    """Working memory for a thread; its number is noted for the keeper."""
    pthread_mutex_lock(cython.address(p.lock))
    w = work_get(p)
    p.thread_ids[p.nr_begun] = uz_thread_id()
    p.nr_begun += 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    return w


def watch(arg):
    """The keeper: starts the other threads, looks after them, and sees them end."""
    p = cython.cast(cython.pointer(Pager), arg)
    i: cython.int
    own_table(p)
    # The parent's were many, and most children need none.
    while p.lazy and not p.closing and not p.roused and uz_uffd_wait_ms(p.fd, p.stop_read, WATCH_MS) == 0:
        relent(p)
    failed: cython.int = 0
    if not p.lazy or not p.closing:
        failed = start_threads(p)
    while failed and p.lazy and not p.closing:
        # Somebody waits already, and a thread can be had again when others have ended.
        uz_pause(RETRY_MS)
        failed = start_threads(p)
    pthread_mutex_lock(cython.address(p.lock))
    # Until all have their working memory nobody else may ask for any.
    while p.nr_begun < p.nr_servers + p.nr_workers:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    p.started = failed if failed else 1
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    while not p.closing and not p.broken:
        # Not Pager.lock: a thread that was killed may have taken it along.
        pthread_mutex_lock(cython.address(p.watching))
        if not p.closing:
            uz_cond_wait_ms(cython.address(p.watch), cython.address(p.watching), WATCH_MS)
        pthread_mutex_unlock(cython.address(p.watching))
        if not p.closing and not all_live(p):
            give_up(p)
            continue
        relent(p)
        if p.by_signal:
            look(p.faults != p.looked_at)
            p.looked_at = p.faults
        if p.failed.length and uz_try_enter(cython.address(p.gate)):
            # Without waiting for it: who holds it may have been killed.
            if pthread_mutex_trylock(cython.address(p.lock)) == 0:
                try_failed_again(p)
                pthread_mutex_unlock(cython.address(p.lock))
            uz_leave(cython.address(p.gate))
    # From here, where the descriptor is still what it was: the program may have closed its own.
    write(p.stop_write, b"x", 1)
    for i in range(p.nr_servers + p.nr_workers):
        if not p.broken:
            pthread_join(p.threads[i], cython.NULL)
    return cython.NULL


def relent(p):
    """Have a fork that does not come be waited for no longer: its child has nothing of this.

    Libraries may end threads of theirs when a process forks (OpenBLAS), and wait for what these are at: a page.
    """
    pthread_mutex_lock(cython.address(p.watching))
    if p.rested and uz_monotonic_ns() >= p.rested + RELENT_NS and waits_for_somebody(p.forker):
        # In this order: a child that has the memory has it at rest.
        each_run(p, MADV_DONTFORK, 0)
        p.relented = 1
        p.rested = 0
        open_again(p)
    pthread_mutex_unlock(cython.address(p.watching))


def waits_for_somebody(thread):
    """A thread that is only slow is met running: on a busy machine, or where all was stopped for a while."""
    look: cython.int
    for look in range(LOOKS):
        if uz_thread_runs(thread):
            return 0
        uz_pause(LOOK_MS)
    return 1


def open_again(p):
    """Let everybody go on, with what they would have begun."""
    uz_open(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))
    pthread_cond_broadcast(cython.address(p.work))
    pthread_mutex_unlock(cython.address(p.lock))


def all_live(p):
    i: cython.int
    for i in range(MOST_THREADS + MOST_WORKERS):
        if p.thread_ids[i] and not uz_thread_lives(p.thread_ids[i]):
            return 0
    return 1


def give_up(p):
    """A thread was killed in the midst of its work: nobody knows what it held.

    All that is not resident is poisoned, which ends every wait for it; what is resident can be used on.
    """
    a: uint32_t
    p.broken = 1
    uz_say_broken()
    # Who forks waits for nobody here any more.
    uz_gate_tell(cython.address(p.gate))
    uz_gate_tell(cython.address(p.c.gate))
    pthread_cond_broadcast(cython.address(p.told))
    pthread_cond_broadcast(cython.address(p.changed))
    if not p.can_poison:
        uz_kill_self_with_sigbus()
    for a in range(1, p.next_area):
        page: uint64_t = p.areas[a].first
        end: uint64_t = page + p.areas[a].pages
        while p.areas[a].used and page < end:
            done = uz_uffd_poison(p.fd, p.base + page * PAGE_BYTES, (end - page) * PAGE_BYTES)
            page += done // PAGE_BYTES if done > 0 else 1
    uz_uffd_wake(p.fd, p.base, p.nr_pages * PAGE_BYTES)


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
    first: uint64_t = 0
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
            arrived(p, page, 1)
        else:
            # Whoever evicts it may be waiting for the device: nobody who serves others waits for that.
            p.pages[page].flags |= P_WANTED
        pthread_mutex_unlock(cython.address(p.lock))
        return
    if page >= p.nr_pages or not p.pages[page].area or p.pages[page].gone or p.pages[page].state == P_LOST:
        # Beyond an array, in one that was freed, moved away by mremap, or lost before: loud, and only here.
        if page < p.nr_pages and not p.pages[page].area:
            p.strays = 1
        arrived(p, page, 1)
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
        arrived(p, page, 1)
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
    t = stream_at(p, page, kind == UZ_WRITE, cython.address(first), cython.address(n))
    want_reading(p, t)
    for x in range(first, first + n):
        p.pages[x].flags &= ~P_STUCK
    w.charge.over_high = NO_MEMCG
    bring_or_leave(p, w, first, n, TO_WRITE if kind == UZ_WRITE else 0)
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


def on_disk(p, first, n):
    """Whether one of these pages has to be read from the device."""
    x: uint64_t
    found: cython.bint = False
    pthread_mutex_lock(cython.address(p.c.lock))
    for x in range(first, first + n):
        found = found or (p.pages[x].entry != 0 and p.c.t.entries[p.pages[x].entry].state == ON_DISK)
    pthread_mutex_unlock(cython.address(p.c.lock))
    return found


def bring_or_leave(p, w, first, n, flags):
    """bring_run(), unless this is the last thread that can serve faults and would wait for the device: workers do then.

    However slow a device is, and however many wait for it, there is somebody for pages that are elsewhere.
    """
    if p.serving >= p.nr_servers and p.nr_workers and on_disk(p, first, n):
        leave(p, first, n, flags)
    else:
        bring_run(p, w, first, n, flags)


def leave(p, first, n, flags):
    """Leave a run to the workers.

    The queue is linked by the first pages of runs, whose successor and back-off mean nothing while they are P_COMING.
    """
    x: uint64_t
    touched(p, first, n)
    for x in range(first, first + n):
        p.pages[x].state = P_COMING
    page = cython.address(p.pages[first])
    page.next = 0
    page.stuck = cython.cast(uint16_t, n)
    page.backoff = cython.cast(uint8_t, flags)
    if p.first_run:
        p.pages[p.last_run].next = cython.cast(uint32_t, first)
    else:
        p.first_run = cython.cast(uint32_t, first)
    p.last_run = cython.cast(uint32_t, first)
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
    first: uint64_t = 0
    n: uint64_t = 0
    t = stream_over(p, page)
    if t == cython.NULL:
        return
    want_reading(p, t)
    if claim(p, t, cython.address(first), cython.address(n)):
        p.read_ahead += n
        bring_or_leave(p, w, first, n, AHEAD | TO_WRITE if t.is_write else AHEAD)


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
