"""Bringing pages in and evicting them.

A fault is served by the first fault thread to read it.  There is one pinned to each CPU: the one on the faulting
thread's CPU runs as soon as that thread sleeps, without an interrupt to another CPU (measured against a single
unpinned thread: half the time of a fault, and the same as a SIGBUS handler in the faulting thread, at 1 % of useless
wake-ups; Linux 6.18, 2 CPUs, 2026-11).  Threads that serve faults hold no GIL and touch no paged memory.

Pager.lock protects the page table and is never held across compression or I/O: pages on their way are P_COMING or
P_GOING, and whoever needs one of them waits for ``changed``.  The order of locks is Pager.lock, then Core.lock.
"""

import cython
from cython.cimports.libc.errno import EAGAIN, EBUSY, EEXIST, EINVAL, EIO, ENODEV, ENOENT, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import write
from cython.cimports.uzswap.core.codec import Codec, compress
from cython.cimports.uzswap.core.entries import (
    C_PGFAULT,
    C_RESIDENT,
    C_ZSWAP,
    MEMCG_ONLINE,
    NO_MEMCG,
    ROOT,
    Delta,
    delta_add,
    delta_apply,
)
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DONTNEED,
    madvise,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.pagetable import (
    B_BUSY,
    B_EMPTY,
    B_STOCK,
    BATCH_PAGES,
    E_HIGH,
    E_MAX,
    E_OOM,
    E_POOL_FULL,
    MOST_THREADS,
    NR_BATCHES,
    NR_TRACKERS,
    P_ACTIVE,
    P_COMING,
    P_GOING,
    P_KEPT,
    P_LISTED,
    P_LOST,
    P_NONE,
    P_RESIDENT,
    P_STUCK,
    P_SWAPPED,
    PAGE_BYTES,
    area_put,
    balance,
    list_add,
    list_add_oldest,
    list_del,
    memcg_of,
    work_get,
    work_put,
)
from cython.cimports.uzswap.core.state import core_charge, may_write_back, worker_get, worker_put
from cython.cimports.uzswap.core.stream import stream_finish, stream_get, stream_put
from cython.cimports.uzswap.core.swap_in import free_entries, swap_in
from cython.cimports.uzswap.core.swap_out import (
    STORE_OVER_LIMIT,
    STORE_OVER_SWAP,
    STORE_POOL_FULL,
    STORE_REFUSE,
    STORE_SKIP_LIMIT,
    swap_out,
)
from cython.cimports.uzswap.core.uffd import (
    pthread_cond_broadcast,
    pthread_cond_wait,
    pthread_join,
    uz_allowed_cpus,
    uz_say_lost,
    uz_thread_start,
    uz_uffd_copy,
    uz_uffd_move,
    uz_uffd_poison,
    uz_uffd_wait,
    uz_uffd_wake,
    uz_uffd_zero,
)
from cython.cimports.uzswap.core.walk import Walk, walk

# How often memory.max is tried before a fault is served over the limit: MAX_RECLAIM_RETRIES of mm/internal.h.
RECLAIM_RETRIES = cython.declare(cython.int, 16)

# A window that has found its stream grows by this factor to at most BATCH_PAGES (PAGING: x4, adaptive).
WINDOW_GROWTH = cython.declare(uint32_t, 4)

# How far beyond the expected page a stream may continue, over pages that are resident already.
STREAM_SKIP = cython.declare(uint64_t, 256)

# A sample costs FILTER_SAMPLE pages compressed twice, in FILTER_BATCHES times BATCH_PAGES pages compressed once: 1 %.
FILTER_SAMPLE = cython.declare(cython.int, 4)
FILTER_BATCHES = cython.declare(uint32_t, 16)

# Evictions of a page that the kernel would not move, before it is tried again: doubles up to 2 ** this.
STUCK_MOST = cython.declare(cython.int, 12)


# Threads


def serve(arg):
    p = cython.cast(cython.pointer(Pager), arg)
    address: uint64_t = 0
    is_write: cython.int = 0
    pthread_mutex_lock(cython.address(p.lock))
    w = work_get(p)
    pthread_mutex_unlock(cython.address(p.lock))
    while w != cython.NULL:
        got = uz_uffd_wait(p.fd, p.stop_read, cython.address(address), cython.address(is_write))
        if got < 0:
            break
        if got:
            fault(p, w, (address - cython.cast(uint64_t, cython.cast(cython.size_t, p.base))) // PAGE_BYTES, is_write)
    if w != cython.NULL:
        pthread_mutex_lock(cython.address(p.lock))
        work_put(p, w)
        pthread_mutex_unlock(cython.address(p.lock))
    return cython.NULL


def pager_start(p):
    """Start the fault threads.  0 or -errno."""
    cpus: cython.int[MOST_THREADS]
    allowed = uz_allowed_cpus(cpus, MOST_THREADS)
    n: cython.int = allowed if 0 < allowed <= MOST_THREADS else 1
    i: cython.int
    for i in range(n):
        # With more CPUs than threads none is pinned: waking all of them for each fault would cost more than it saves.
        failed = uz_thread_start(cython.address(p.threads[i]), serve, p, cpus[i] if n == allowed else -1)
        if failed:
            return failed if i == 0 else 0
        p.nr_threads += 1
    return 0


def pager_stop(p):
    i: cython.int
    pthread_mutex_lock(cython.address(p.lock))
    p.closing = 1
    pthread_cond_broadcast(cython.address(p.told))
    while p.waiting:
        pthread_cond_wait(cython.address(p.told), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    if p.nr_threads:
        write(p.stop_write, b"x", 1)
    for i in range(p.nr_threads):
        pthread_join(p.threads[i], cython.NULL)
    p.nr_threads = 0


def tell(p, memcg, events):
    """Note events for the layer above.  Called with the lock."""
    p.memcgs[memcg].events |= events
    p.events |= events
    pthread_cond_broadcast(cython.address(p.told))


def wait_events(p):
    """Wait for events; their union, or 0 when the pager closes."""
    pthread_mutex_lock(cython.address(p.lock))
    p.waiting += 1
    while not p.events and not p.closing:
        pthread_cond_wait(cython.address(p.told), cython.address(p.lock))
    events = 0 if p.closing else p.events
    p.events = 0
    p.waiting -= 1
    pthread_cond_broadcast(cython.address(p.told))
    pthread_mutex_unlock(cython.address(p.lock))
    return events


# Faults


def find_run(p, page, first, n):
    """The pages to bring in for a fault at `page`: itself alone, or as far as a stream that it continues is trusted."""
    area = cython.address(p.areas[p.pages[page].area])
    i: cython.int
    best: cython.int = -1
    oldest: cython.int = 0
    down: cython.bint = False
    x: uint64_t
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if t.used < p.trackers[oldest].used:
            oldest = i
        if not t.used:
            continue
        if t.up <= page and page - t.up < STREAM_SKIP:
            x = t.up
            while x < page and p.pages[x].state == P_RESIDENT:
                x += 1
            if x == page:
                best = i
                down = False
                break
        if t.down >= page and t.down - page < STREAM_SKIP:
            x = t.down
            while x > page and p.pages[x].state == P_RESIDENT:
                x -= 1
            if x == page:
                best = i
                down = True
                break
    p.ticks += 1
    t = cython.address(p.trackers[best if best >= 0 else oldest])
    window: uint32_t = 1
    if best >= 0:
        window = t.window * WINDOW_GROWTH if t.window * WINDOW_GROWTH < BATCH_PAGES else BATCH_PAGES
    count: uint64_t = 1
    while count < window:
        x = page - count if down else page + count
        if x < area.first or x >= area.first + area.pages:
            break
        if p.pages[x].state != P_NONE and p.pages[x].state != P_SWAPPED:
            break
        count += 1
    first[0] = page - count + 1 if down else page
    n[0] = count
    t.used = p.ticks
    t.window = window
    t.up = first[0] + count
    t.down = first[0] - 1


def fault(p, w, page, is_write):
    first: uint64_t = 0
    n: uint64_t = 0
    x: uint64_t
    at = p.base + page * PAGE_BYTES
    pthread_mutex_lock(cython.address(p.lock))
    p.faults += 1
    while page < p.nr_pages and p.pages[page].state == P_GOING:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    if page >= p.nr_pages or not p.pages[page].area or p.pages[page].state == P_LOST:
        # Beyond an array, in one that was freed, or lost before: loud, and only here.
        pthread_mutex_unlock(cython.address(p.lock))
        uz_uffd_poison(p.fd, at, PAGE_BYTES)
        uz_uffd_wake(p.fd, at, PAGE_BYTES)
        return
    state = p.pages[page].state
    p.areas[p.pages[page].area].faults += 1
    if state == P_COMING:
        # Whoever brings it in wakes all who wait for it.
        pthread_mutex_unlock(cython.address(p.lock))
        return
    if state == P_RESIDENT:
        # It came in since this fault was raised; or the program dropped it with madvise: then it reads as zero, as in
        # any anonymous memory.
        if uz_uffd_copy(p.fd, at, p.zeros, PAGE_BYTES) == -EEXIST:
            uz_uffd_wake(p.fd, at, PAGE_BYTES)
        pthread_mutex_unlock(cython.address(p.lock))
        return
    find_run(p, page, cython.address(first), cython.address(n))
    for x in range(first, first + n):
        p.pages[x].flags &= ~P_STUCK
    bring_run(p, w, first, n, is_write, 0)
    if w.over_high != NO_MEMCG:
        tell(p, w.over_high, E_HIGH)
    pthread_mutex_unlock(cython.address(p.lock))
    if w.over_high != NO_MEMCG:
        # The faulter runs again already: this is the eviction in the background that memory.high asks for.
        make_room(p, w, w.over_high)


def charge_run(p, w, memcg, n):
    """Charge n pages, evicting first where memory.max asks for it.  Called without the lock.

    A fault cannot fail as an allocation can, and nobody is killed here: when nothing more can go the charge is forced.
    """
    over_max: uint32_t = NO_MEMCG
    tries: cython.int = 0
    nbytes = cython.cast(int64_t, n) * PAGE_BYTES
    while True:
        while core_charge(p.c, memcg, nbytes, 0, cython.address(over_max), cython.address(w.over_high)) == -ENODEV:
            memcg = p.c.t.memcgs[memcg].parent  # removed since the fault began
        if over_max == NO_MEMCG:
            return
        hopeless: cython.bint = tries == RECLAIM_RETRIES or make_room(p, w, over_max) == 0
        pthread_mutex_lock(cython.address(p.lock))
        tell(p, over_max, E_MAX | E_OOM if hopeless else E_MAX)
        pthread_mutex_unlock(cython.address(p.lock))
        if hopeless:
            core_charge(p.c, memcg, nbytes, 1, cython.address(over_max), cython.address(w.over_high))
            return
        tries += 1


def uncharge(p, memcg, n):
    count(p, memcg, C_RESIDENT, -n * PAGE_BYTES)


def count(p, memcg, counter, n):
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(p.c.lock))
    delta_add(cython.address(p.c.t), cython.address(d), memcg, counter, n)
    delta_apply(cython.address(p.c.t), cython.address(d))
    pthread_mutex_unlock(cython.address(p.c.lock))


def bring_run(p, w, first, n, is_write, flags):
    """Bring in n pages from `first` on, all P_NONE or P_SWAPPED, of one area.  Called, and returns, with the lock."""
    i: uint64_t
    k: uint64_t
    missing: int64_t = 0
    memcg = memcg_of(p, p.pages[first].area)
    for i in range(n):
        p.pages[first + i].state = P_COMING
    pthread_mutex_unlock(cython.address(p.lock))
    charge_run(p, w, memcg, n)
    i = 0
    while i < n:
        k = 1
        while i + k < n and (p.pages[first + i + k].handle == 0) == (p.pages[first + i].handle == 0):
            k += 1
        if p.pages[first + i].handle:
            load_swapped(p, w, first, i, k)
        else:
            fill_empty(p, w, first, i, k, is_write)
            count(p, memcg, C_PGFAULT, k)
        i += k
    pthread_mutex_lock(cython.address(p.lock))
    m = cython.address(p.memcgs[memcg])
    for i in range(n):
        page = cython.address(p.pages[first + i])
        if w.result[i] == 0:
            page.state = P_RESIDENT
            page.flags &= ~(P_ACTIVE | P_STUCK)
            page.stuck = 0
            if page.handle:
                # mm/workingset.c: evicted less than a list's length ago means that it was evicted too early.
                if m.evictions - page.shadow <= m.active.length + m.inactive.length:
                    page.flags |= P_ACTIVE
                page.handle = 0
                p.areas[page.area].loads += 1
            p.areas[page.area].resident += 1
            p.resident += 1
            if flags & KEEP:
                page.flags |= P_KEPT
            else:
                list_add(p, cython.cast(uint32_t, first + i))
            continue
        missing += 1
        page.state = P_SWAPPED if page.handle else P_NONE
        if w.result[i] > 0:
            page.state = P_LOST
            lose(p, first + i, w.result[i])
        uz_uffd_wake(p.fd, p.base + (first + i) * PAGE_BYTES, PAGE_BYTES)
    if missing:
        uncharge(p, memcg, missing)
    pthread_cond_broadcast(cython.address(p.changed))


def fill_empty(p, w, first, at, n, is_write):
    """First touch: the zero page, or pages of zeros where a write would only have to copy it."""
    done: uint64_t = 0
    i: uint64_t
    for i in range(n):
        w.result[at + i] = -1
    while done < n:
        to = p.base + (first + at + done) * PAGE_BYTES
        if is_write:
            got = uz_uffd_copy(p.fd, to, p.zeros, (n - done) * PAGE_BYTES)
        else:
            got = uz_uffd_zero(p.fd, to, (n - done) * PAGE_BYTES)
        if got == -EEXIST:
            # The program put something there itself (madvise, mmap over it): it is what the program sees.
            got = PAGE_BYTES
            uz_uffd_wake(p.fd, to, PAGE_BYTES)
        elif got == -EAGAIN:
            continue
        elif got < 0:
            break
        for i in range(done, done + got // PAGE_BYTES):
            w.result[at + i] = 0
        done += got // PAGE_BYTES


def place_pages(p, to, frames, n, may_move):
    """Put n filled pages in place; whether all could be.  Their bytes stay where they are when it fails."""
    done: uint64_t = 0
    while done < n:
        got: int64_t = -EINVAL
        if may_move:
            got = uz_uffd_move(p.fd, to + done * PAGE_BYTES, frames + done * PAGE_BYTES, (n - done) * PAGE_BYTES)
        if got < 0 and got != -EAGAIN:
            got = uz_uffd_copy(p.fd, to + done * PAGE_BYTES, frames + done * PAGE_BYTES, (n - done) * PAGE_BYTES)
        if got == -EAGAIN:
            continue
        if got < 0:
            return 0
        done += got // PAGE_BYTES
    return 1


def load_swapped(p, w, first, at, n):
    """Load n swapped pages into place; w.result says for each whether it is there, lost, or to be tried again."""
    i: uint64_t
    b: cython.int
    stock: cython.int = -1
    frames = w.scratch
    if p.can_move:
        pthread_mutex_lock(cython.address(p.lock))
        for b in range(NR_BATCHES):
            if p.batches[b].state == B_STOCK and p.batches[b].last - p.batches[b].first >= n:
                stock = b
                frames = p.staging + (b * BATCH_PAGES + p.batches[b].first) * PAGE_BYTES
                p.batches[b].state = B_BUSY
                break
        pthread_mutex_unlock(cython.address(p.lock))
    for i in range(n):
        w.handles[i] = p.pages[first + at + i].handle
    load = cython.address(w.load)
    load.handles = w.handles
    load.n = n
    load.out = frames
    load.nbytes = n * PAGE_BYTES
    load.page = PAGE_BYTES
    load.consume = 0
    swap_in(p.c, load)
    error: cython.int = load.error
    if not error and not place_pages(p, p.base + (first + at) * PAGE_BYTES, frames, n, stock >= 0):
        error = EAGAIN
    if stock >= 0:
        # What could not be moved was copied: its frame must go before the slot is a place to move to again.
        madvise(frames, n * PAGE_BYTES, MADV_DONTNEED)
        pthread_mutex_lock(cython.address(p.lock))
        p.batches[stock].first += n
        p.batches[stock].state = B_STOCK if p.batches[stock].first < p.batches[stock].last else B_EMPTY
        pthread_mutex_unlock(cython.address(p.lock))
    if not error:
        free_entries(p.c, w.handles, n, cython.address(error))
        for i in range(n):
            w.result[at + i] = 0
    elif n > 1:
        # One of them is in the way of all: the others must not suffer.
        for i in range(n):
            load_swapped(p, w, first, at + i, 1)
    else:
        w.result[at] = -1 if error in (EAGAIN, ENOMEM, EBUSY) else error


def lose(p, page, error):
    """The bytes of a page cannot be had: SIGBUS for whoever reads it, and a line that says why."""
    at = p.base + page * PAGE_BYTES
    uz_uffd_poison(p.fd, at, PAGE_BYTES)
    uz_say_lost(
        cython.cast(uint64_t, cython.cast(cython.size_t, at)),
        p.pages[page].area,
        memcg_of(p, p.pages[page].area),
        error,
    )


# Eviction


def pick(p, w, memcg, most):
    """Take the oldest resident pages of a memcg off their list, in the order of their addresses.  How many."""
    m = cython.address(p.memcgs[memcg])
    balance(p, m)
    n: cython.int = 0
    left = m.inactive.length
    while n < most and left > 0:
        left -= 1
        page = m.inactive.head
        x = cython.address(p.pages[page])
        list_del(p, page)
        if x.flags & P_STUCK and x.stuck:
            # It comes round again once for each step of its back-off.
            x.stuck -= 1
            list_add(p, page)
            continue
        x.state = P_GOING
        i = n
        while i > 0 and w.picks[i - 1] > page:
            w.picks[i] = w.picks[i - 1]
            i -= 1
        w.picks[i] = page
        n += 1
    return n


def take_batch(p):
    """A batch of empty staging slots, now busy, or -1.  Called, and returns, with the lock."""
    b: cython.int
    while True:
        for b in range(NR_BATCHES):
            if p.batches[b].state == B_EMPTY:
                p.batches[b].state = B_BUSY
                return b
        for b in range(NR_BATCHES):
            if p.batches[b].state == B_STOCK:
                p.batches[b].state = B_BUSY
                madvise(p.staging + b * BATCH_PAGES * PAGE_BYTES, BATCH_PAGES * PAGE_BYTES, MADV_DONTNEED)
                return b
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))


def back_on_list(p, page, stuck):
    """A page that was to go stays.  Called with the lock."""
    x = cython.address(p.pages[page])
    x.state = P_RESIDENT
    if stuck:
        back_off: cython.int = x.backoff + 1 if x.backoff < STUCK_MOST else STUCK_MOST
        x.backoff = back_off
        x.stuck = cython.cast(uint16_t, 1 << back_off)
        x.flags |= P_STUCK
    list_add(p, page)


def move_out(p, w, n, staging):
    """Move the picked pages to staging, without the lock.  How many went: w.picks holds these, in order."""
    i: cython.int = 0
    j: cython.int
    k: cython.int
    moved: cython.int = 0
    while i < n:
        k = 1
        while i + k < n and w.picks[i + k] == w.picks[i] + k:
            k += 1
        got = uz_uffd_move(
            p.fd,
            staging + moved * PAGE_BYTES,
            p.base + cython.cast(uint64_t, w.picks[i]) * PAGE_BYTES,
            cython.cast(cython.size_t, k) * PAGE_BYTES,
        )
        if got == -EAGAIN:
            continue
        if got > 0:
            for j in range(cython.cast(cython.int, got // PAGE_BYTES)):
                w.picks[moved] = w.picks[i]
                moved += 1
                i += 1
            continue
        pthread_mutex_lock(cython.address(p.lock))
        if got == -ENOENT:
            # The program dropped it (madvise, munmap): it reads as zero from now on.
            p.pages[w.picks[i]].state = P_NONE
            p.areas[p.pages[w.picks[i]].area].resident -= 1
            p.resident -= 1
            uncharge(p, memcg_of(p, p.pages[w.picks[i]].area), 1)
        else:
            back_on_list(p, w.picks[i], 1)
        pthread_cond_broadcast(cython.address(p.changed))
        pthread_mutex_unlock(cython.address(p.lock))
        i += 1
    return moved


def make_room_in_zswap(p, memcg):
    """memory.zswap.max is reached: write the oldest of the memcg's own entries back.  Whether anything was written."""
    c = p.c
    lru: uint64_t = cython.cast(uint64_t, memcg) << 8
    position: uint64_t = 0
    heap: uint32_t = 0
    w: Walk
    if not c.has_device:
        return 0
    s = stream_get(c)
    if s == cython.NULL:
        return 0
    memset(cython.address(w), 0, cython.sizeof(Walk))
    w.lrus = cython.address(lru)
    w.positions = cython.address(position)
    w.heap = cython.address(heap)
    w.nr_lrus = 1
    w.since = c.t.last_stamp
    w.youngest = 0xFFFFFFFF
    # Twice round a batch: the first meeting may only take the reference.
    w.nr_to_scan = 2 * BATCH_PAGES
    w.budget = BATCH_PAGES * PAGE_BYTES
    if may_write_back(c, memcg):
        walk(c, s, cython.address(w))
    stream_finish(c, s)
    wrote: cython.bint = s.entries > 0
    stream_put(c, s)
    return wrote


def write_back_from(p, root):
    """Write some of the oldest entries of a memcg of root's subtree back, its memcgs in turn.  Whether any were."""
    tried: uint32_t
    nr: uint32_t = p.c.t.next_memcg
    for tried in range(nr):
        pthread_mutex_lock(cython.address(p.lock))
        p.write_back_cursor = (p.write_back_cursor + 1) % nr
        memcg = p.write_back_cursor
        found: cython.bint = (
            p.c.t.memcgs[memcg].state == MEMCG_ONLINE and p.c.t.memcgs[memcg].stored != 0 and below(p, memcg, root)
        )
        pthread_mutex_unlock(cython.address(p.lock))
        if found and make_room_in_zswap(p, memcg):
            return 1
    return 0


def make_room(p, w, root):
    """Bring a memcg that is over a limit a batch down.  0 when nothing more can go.

    What is compressed counts as well.  If it could only grow, a budget would end up all compressed, and every fault
    would evict what the one before had brought; so it takes no more than half.
    """
    counters = cython.address(p.c.t.memcgs[root].counters[0])
    if counters[C_ZSWAP] > counters[C_RESIDENT] and write_back_from(p, root):
        return 1
    gone = evict_from(p, w, root, BATCH_PAGES)
    return gone if gone else write_back_from(p, root)


def choose_filter(p, w, n, staging):
    """The byte shuffle for a batch: the one of the array's items where a sample of its own pages says that it pays.

    The answer is kept for the area's next FILTER_BATCHES batches.  A batch of several arrays goes by its first page.
    """
    a = p.pages[w.picks[0]].area
    area = cython.address(p.areas[a])
    if not area.item:
        return 0
    pthread_mutex_lock(cython.address(p.lock))
    due: cython.bint = area.filter_left == 0
    if due:
        area.filter_left = FILTER_BATCHES
    area.filter_left -= 1
    chosen: cython.int = area.item if area.filter_on else 0
    pthread_mutex_unlock(cython.address(p.lock))
    if not due:
        return chosen
    worker = worker_get(p.c)
    if worker == cython.NULL:
        return 0
    plain: Codec
    pthread_mutex_lock(cython.address(p.c.lock))
    plain = p.c.codecs[p.c.codec]
    pthread_mutex_unlock(cython.address(p.c.lock))
    shuffled = plain
    shuffled.filter = area.item
    plain_bytes: int64_t = 0
    shuffled_bytes: int64_t = 0
    i: cython.int = 0
    while i < n:
        src = staging + i * PAGE_BYTES
        plain_bytes += packed_bytes(compress(worker, cython.address(plain), src, PAGE_BYTES, worker.scratch))
        shuffled_bytes += packed_bytes(compress(worker, cython.address(shuffled), src, PAGE_BYTES, worker.scratch))
        i += (n + FILTER_SAMPLE - 1) // FILTER_SAMPLE
    worker_put(p.c, worker)
    pthread_mutex_lock(cython.address(p.lock))
    area.filter_on = shuffled_bytes < plain_bytes
    chosen = area.item if area.filter_on else 0
    pthread_mutex_unlock(cython.address(p.lock))
    return chosen


def packed_bytes(length):
    return length if 0 < length < PAGE_BYTES else PAGE_BYTES


def store_batch(p, w, n, memcg, staging):
    """Store n pages from staging; w.handles says what became of each."""
    s = cython.address(w.store)
    s.data = staging
    s.nbytes = cython.cast(uint64_t, n) * PAGE_BYTES
    s.page = PAGE_BYTES
    s.memcg = memcg
    s.node = 0
    s.handles = w.handles
    s.start = 0
    s.n = n
    s.folio = 1
    s.flags = 0
    s.filter = choose_filter(p, w, n, staging)
    memset(w.handles, 0, cython.sizeof(uint64_t) * BATCH_PAGES)
    while s.start < n:
        swap_out(p.c, s)
        s.start = s.next
        s.flags = 0
        if s.reason == STORE_OVER_LIMIT:
            s.flags = STORE_SKIP_LIMIT if make_room_in_zswap(p, memcg) else STORE_REFUSE
        elif s.reason == STORE_OVER_SWAP:
            s.start += 1
        elif s.reason == STORE_POOL_FULL:
            pthread_mutex_lock(cython.address(p.lock))
            tell(p, memcg, E_POOL_FULL)
            pthread_mutex_unlock(cython.address(p.lock))
        elif s.next < n:
            break  # no memory to work with: the rest stays


def evict_picked(p, w, n, memcg):
    """Evict the n pages in w.picks, all P_GOING.  How many went.  Called, and returns, with the lock."""
    i: cython.int
    gone: cython.int = 0
    b = take_batch(p)
    staging = p.staging + b * BATCH_PAGES * PAGE_BYTES
    pthread_mutex_unlock(cython.address(p.lock))
    n = move_out(p, w, n, staging)
    if n:
        store_batch(p, w, n, memcg, staging)
    pthread_mutex_lock(cython.address(p.lock))
    m = cython.address(p.memcgs[memcg])
    for i in range(n):
        page = w.picks[i]
        x = cython.address(p.pages[page])
        if w.handles[i]:
            m.evictions += 1
            x.shadow = m.evictions
            x.handle = w.handles[i]
            x.state = P_SWAPPED
            p.areas[x.area].resident -= 1
            gone += 1
            continue
        # Refused by zswap and by the device: it stays in memory.
        place_pages(p, p.base + cython.cast(uint64_t, page) * PAGE_BYTES, staging + i * PAGE_BYTES, 1, 1)
        back_on_list(p, page, 1)
    p.resident -= gone
    p.evicted += gone
    if gone:
        uncharge(p, memcg, gone)
    if gone < n or n == 0:
        madvise(staging, BATCH_PAGES * PAGE_BYTES, MADV_DONTNEED)
        p.batches[b].state = B_EMPTY
    else:
        p.batches[b].first = 0
        p.batches[b].last = n
        p.batches[b].state = B_STOCK
    pthread_cond_broadcast(cython.address(p.changed))
    return gone


def below(p, memcg, root):
    while memcg != root:
        if memcg == ROOT:
            return 0
        memcg = p.c.t.memcgs[memcg].parent
    return 1


def evict_own(p, w, memcg, most):
    """Evict up to `most` of the oldest resident pages of one memcg, its children's not.  How many went."""
    gone: int64_t = 0
    n: cython.int = 1
    pthread_mutex_lock(cython.address(p.lock))
    while n and gone < most:
        n = pick(p, w, memcg, BATCH_PAGES if most - gone > BATCH_PAGES else cython.cast(cython.int, most - gone))
        if n:
            n = evict_picked(p, w, n, memcg)
            gone += n
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def evict_from(p, w, root, most):
    """Evict up to `most` of the oldest resident pages of root's subtree, its memcgs in turn.  How many went."""
    gone: int64_t = 0
    tried: uint32_t = 0
    pthread_mutex_lock(cython.address(p.lock))
    nr: uint32_t = p.c.t.next_memcg
    while gone < most and tried < nr:
        p.reclaim_cursor = (p.reclaim_cursor + 1) % nr
        memcg = p.reclaim_cursor
        m = cython.address(p.memcgs[memcg])
        tried += 1
        if m.inactive.length + m.active.length == 0 or p.c.t.memcgs[memcg].state != MEMCG_ONLINE:
            continue
        if not below(p, memcg, root):
            continue
        n = pick(p, w, memcg, BATCH_PAGES if most - gone > BATCH_PAGES else cython.cast(cython.int, most - gone))
        if n:
            n = evict_picked(p, w, n, memcg)
        if n:
            gone += n
            tried = 0
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


# Ranges


def settled(p, page):
    """Wait until a page is on its way no longer.  Called, and returns, with the lock."""
    while p.pages[page].state == P_COMING or p.pages[page].state == P_GOING:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))


def bring_range(p, w, first, n, flags):
    """Bring pages in.  0, or -EIO when one of them is lost."""
    x: uint64_t = first
    k: uint64_t
    lost: cython.int = 0
    pthread_mutex_lock(cython.address(p.lock))
    while x < first + n:
        settled(p, x)
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
        bring_run(p, w, x, k, 1, flags)
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
            gone += evict_picked(p, w, k, memcg_of(p, p.pages[w.picks[0]].area))
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def drop_range(p, w, first, n):
    """Forget the contents of pages: they read as zero.  Their memory, pool objects and disk bytes go back at once."""
    x: uint64_t = first
    k: cython.int
    error: cython.int = 0
    pthread_mutex_lock(cython.address(p.lock))
    memcg = memcg_of(p, p.pages[first].area)
    dropped: int64_t = 0
    while x < first + n:
        k = 0
        while x < first + n and k < BATCH_PAGES:
            settled(p, x)
            page = cython.address(p.pages[x])
            if page.state == P_RESIDENT:
                list_del(p, cython.cast(uint32_t, x))
                p.areas[page.area].resident -= 1
                p.resident -= 1
                dropped += 1
            if page.handle:
                w.handles[k] = page.handle
                k += 1
            page.state = P_NONE
            page.handle = 0
            page.flags = 0
            x += 1
        if k:
            free_entries(p.c, w.handles, k, cython.address(error))
    madvise(p.base + first * PAGE_BYTES, n * PAGE_BYTES, MADV_DONTNEED)
    if dropped:
        uncharge(p, memcg, dropped)
    pthread_mutex_unlock(cython.address(p.lock))


def area_free(p, a):
    """Free an array's pages, and its address space."""
    pthread_mutex_lock(cython.address(p.lock))
    w = work_get(p)
    pthread_mutex_unlock(cython.address(p.lock))
    if w == cython.NULL:
        return -ENOMEM
    drop_range(p, w, p.areas[a].first, p.areas[a].pages)
    pthread_mutex_lock(cython.address(p.lock))
    area_put(p, a)
    work_put(p, w)
    pthread_mutex_unlock(cython.address(p.lock))
    return 0
