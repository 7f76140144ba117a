"""Eviction: the oldest resident pages go into zswap.

Pages are picked from the inactive list, moved to staging in the order of their addresses, and compressed there: from
the move on nobody sees them but this thread.  Where the kernel has no UFFDIO_MOVE (before 6.8) they are
write-protected, copied and dropped instead.
"""

import cython
from cython.cimports.libc.errno import EEXIST, ENOENT, ENOSPC
from cython.cimports.libc.stdint import int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.gate import uz_breathe, uz_is_shut
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import uncharge
from cython.cimports.uzswap.core.paging.frames import (
    discard,
    protect,
    put_batch,
    put_pages,
    put_zeros,
    staging_of,
    take_batch,
    take_pages,
)
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    E_POOL_FULL,
    E_SWAP,
    P_NONE,
    P_RESIDENT,
    P_STUCK,
    P_SWAPPED,
    P_WANTED,
    PAGE_BYTES,
    address_of,
    handle_at,
    memcg_of,
    tell,
)
from cython.cimports.uzswap.core.paging.stalls import arrived
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    uz_pause,
    uz_uffd_wake,
)
from cython.cimports.uzswap.core.paging.workingset import evicted, list_add
from cython.cimports.uzswap.core.store.clean import clean_forget, clean_settle
from cython.cimports.uzswap.core.store.codec import Codec, compress
from cython.cimports.uzswap.core.store.entries import (
    C_SWAP,
    ROOT,
)
from cython.cimports.uzswap.core.store.state import (
    may_write_back,
    worker_get,
    worker_put,
)
from cython.cimports.uzswap.core.store.stream import stream_finish, stream_get, stream_put
from cython.cimports.uzswap.core.store.swap_in import free_entries
from cython.cimports.uzswap.core.store.swap_out import (
    STORE_FORCE,
    STORE_OVER_LIMIT,
    STORE_OVER_SWAP,
    STORE_POOL_FULL,
    STORE_REFUSE,
    STORE_SKIP_LIMIT,
    swap_out,
)
from cython.cimports.uzswap.core.store.walk import Walk, walk

# A sample costs FILTER_SAMPLE pages compressed twice, in FILTER_BATCHES times BATCH_PAGES pages compressed once: 1 %.
FILTER_SAMPLE = cython.declare(cython.int, 4)
FILTER_BATCHES = cython.declare(uint32_t, 16)

# Evictions of a page that the kernel would not move, before it is tried again: doubles up to 2 ** this.
STUCK_MOST = cython.declare(cython.int, 12)

# Between tries to find a place for a page that has none.
PAUSE_MS = cython.declare(cython.int, 10)

# Area.clean_score goes down by 2 for a batch whose copies were mostly stale, up by 1 for one with good ones; while it
# is not positive no copies are kept but now and then (page_in.keep_copies).  Bounds: an array that was written for a
# long time is worth copies again after as many batches as it takes to read 4 MiB.
SCORE_LEAST = cython.declare(cython.int, -8)
SCORE_MOST = cython.declare(cython.int, 8)


def has_gone(p, page):
    """A page is P_GOING no longer: who has met it while it was comes round again.  Called with the lock."""
    x = cython.address(p.pages[page])
    if x.flags & P_WANTED:
        x.flags &= ~P_WANTED
        arrived(p, page)
        uz_uffd_wake(p.fd, p.base + page * PAGE_BYTES, PAGE_BYTES)


def back_on_list(p, page, stuck):
    """A page that was to go stays.  Called with the lock."""
    x = cython.address(p.pages[page])
    x.state = P_RESIDENT
    has_gone(p, page)
    if stuck:
        back_off: cython.int = x.backoff + 1 if x.backoff < STUCK_MOST else STUCK_MOST
        x.backoff = back_off
        x.stuck = cython.cast(uint16_t, 1 << back_off)
        x.flags |= P_STUCK
    list_add(p, page)


def run_of(w, i, n):
    """How many picks from i on are neighbours."""
    k: cython.int = 1
    while i + k < n and w.picks[i + k] == w.picks[i] + k:
        k += 1
    return k


def move_out(p, w, n, staging):
    """Move the picked pages to staging, without the lock.  How many went: w.picks holds these, in order."""
    i: cython.int = 0
    j: cython.int
    k: cython.int
    moved: cython.int = 0
    while i < n:
        k = run_of(w, i, n)
        got = take_pages(p, staging + moved * PAGE_BYTES, w.picks[i], k)
        if got <= 0 and k > 1:
            # Over a border of mappings none goes (page_in.fill_empty()): the first one may, by itself.
            got = take_pages(p, staging + moved * PAGE_BYTES, w.picks[i], 1)
        if got > 0:
            for j in range(cython.cast(cython.int, got // PAGE_BYTES)):
                w.picks[moved] = w.picks[i]
                moved += 1
                i += 1
            continue
        stays(p, w.picks[i], got)
        i += 1
    return moved


def stays(p, page, error):
    """A page that was picked could not be taken.  Called without the lock."""
    pthread_mutex_lock(cython.address(p.lock))
    x = cython.address(p.pages[page])
    if error == -ENOENT:
        # The program dropped it: by madvise(), then it reads as zero from now on; or by munmap(), then it is gone.
        owner = address_of(p, page)
        clean_forget(p.c, cython.address(x.entry), cython.address(owner), 1)
        x.state = P_NONE
        x.entry = 0
        has_gone(p, page)
        p.areas[x.area].resident -= 1
        p.resident -= 1
        uncharge(p, memcg_of(p, x.area), 1)
    else:
        # EBUSY: pinned, or shared with a child; EINVAL: mlocked, or made read-only.
        back_on_list(p, page, 1)
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))


def copy_out(p, w, n, staging):
    """move_out() for kernels without UFFDIO_MOVE: the pages stay in place, write-protected, until they are stored."""
    i: cython.int = 0
    k: cython.int
    copied: cython.int = 0
    while i < n:
        at = p.base + cython.cast(uint64_t, w.picks[i]) * PAGE_BYTES
        k = run_of(w, i, n)
        if k > 1 and protect(p, at, cython.cast(uint64_t, k) * PAGE_BYTES, 1):
            k = 1  # one of them is in the way of all
        error: int64_t = protect(p, at, PAGE_BYTES, 1) if k == 1 else 0
        while k:
            at = p.base + cython.cast(uint64_t, w.picks[i]) * PAGE_BYTES
            # A page that the program has dropped would be a fault of this thread's own: it is zero, and made so first.
            # What is mapped in the place of one that it has unmapped is not ours to read.
            got = error if error else put_zeros(p, at, PAGE_BYTES)
            if got > 0:
                got = protect(p, at, PAGE_BYTES, 1)
            if got == 0 or got == -EEXIST:
                memcpy(staging + copied * PAGE_BYTES, at, PAGE_BYTES)
                w.picks[copied] = w.picks[i]
                copied += 1
            else:
                stays(p, w.picks[i], got)
            i += 1
            k -= 1
    return copied


def make_room_in_zswap(p, memcg, most):
    """Write the oldest of a memcg's own entries back, up to `most` compressed bytes.  Whether anything was written."""
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
    pthread_mutex_lock(cython.address(c.lock))
    w.since = c.t.last_stamp
    may: cython.bint = may_write_back(c, memcg)
    pthread_mutex_unlock(cython.address(c.lock))
    w.youngest = 0xFFFFFFFF
    # Twice round a batch: the first meeting may only take the reference.
    w.nr_to_scan = 2 * BATCH_PAGES
    w.budget = most
    if may:
        walk(c, s, cython.address(w))
    stream_finish(c, s)
    wrote: cython.bint = s.entries > 0
    stream_put(c, s)
    if w.nospace:
        pthread_mutex_lock(cython.address(p.lock))
        p.memcgs[memcg].nr_swap_fail += cython.cast(uint32_t, w.nospace)
        tell(p, memcg, E_SWAP)
        pthread_mutex_unlock(cython.address(p.lock))
    return wrote


def choose_filter(p, w, i, n, staging):
    """The byte shuffle for a run: the one of the array's items where a sample of its own pages says that it pays.

    The answer is kept for the area's next FILTER_BATCHES batches.  A run of several arrays goes by its first page.
    """
    a = p.pages[w.picks[i]].area
    area = cython.address(p.areas[a])
    pthread_mutex_lock(cython.address(p.lock))
    item: cython.int = area.item
    due: cython.bint = item and area.filter_left == 0
    if due:
        area.filter_left = FILTER_BATCHES
    if item:
        area.filter_left -= 1
    chosen: cython.int = item if area.filter_on else 0
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
    shuffled.filter = item
    plain_bytes: int64_t = 0
    shuffled_bytes: int64_t = 0
    step = (n - i + FILTER_SAMPLE - 1) // FILTER_SAMPLE
    while i < n:
        src = staging + i * PAGE_BYTES
        plain_bytes += packed_bytes(compress(worker, cython.address(plain), src, PAGE_BYTES, worker.scratch))
        shuffled_bytes += packed_bytes(compress(worker, cython.address(shuffled), src, PAGE_BYTES, worker.scratch))
        i += step
    worker_put(p.c, worker)
    pthread_mutex_lock(cython.address(p.lock))
    area.filter_on = shuffled_bytes < plain_bytes
    chosen = item if area.filter_on else 0
    pthread_mutex_unlock(cython.address(p.lock))
    return chosen


def packed_bytes(length):
    return length if 0 < length < PAGE_BYTES else PAGE_BYTES


def prepare_store(w, first, end, memcg, staging):
    """What to store: pages first .. end - 1 of staging; w.handles says what became of each."""
    s = cython.address(w.store)
    s.spans = cython.NULL
    s.data = staging
    s.nbytes = cython.cast(uint64_t, end) * PAGE_BYTES
    s.page = PAGE_BYTES
    s.memcg = memcg
    s.node = 0
    s.handles = w.handles
    s.start = first
    s.n = end
    s.folio = 1
    s.flags = 0
    s.asked = s.small = -1
    s.shares = 1
    s.filter = 0


def store_run(p, w, first, end, memcg, staging):
    prepare_store(w, first, end, memcg, staging)
    s = cython.address(w.store)
    s.filter = choose_filter(p, w, first, end, staging)
    while s.start < end:
        begin = s.start
        swap_out(p.c, s)
        note_refusals(p, s, begin)
        s.start = s.next
        s.flags = 0
        if s.reason == STORE_OVER_LIMIT:
            s.flags = STORE_SKIP_LIMIT if make_room_in_zswap(p, memcg, WRITE_BACK_BYTES) else STORE_REFUSE
        elif s.reason == STORE_OVER_SWAP:
            s.start += 1
        elif s.reason == STORE_POOL_FULL:
            pthread_mutex_lock(cython.address(p.lock))
            tell(p, memcg, E_POOL_FULL)
            pthread_mutex_unlock(cython.address(p.lock))
        elif s.next < end:
            break  # no memory to work with, or the memcg was just removed: the rest stays


def note_refusals(p, s, begin):
    """Count swap space that could not be had for pages begin .. s.next - 1, and the one at which a limit ended it."""
    i: int64_t
    none: uint32_t = 0
    over: uint32_t = s.reason == STORE_OVER_SWAP
    if s.error == ENOSPC:
        for i in range(begin, s.next):
            none += s.handles[i] == 0
    pthread_mutex_lock(cython.address(p.lock))
    if none or over:
        p.memcgs[s.memcg].nr_swap_max += over
        p.memcgs[s.memcg].nr_swap_fail += none + over
        tell(p, s.memcg, E_SWAP)
    m = s.memcg
    pthread_mutex_lock(cython.address(p.c.lock))
    while m != ROOT:
        g = cython.address(p.c.t.memcgs[m])
        if g.counters[C_SWAP] > g.swap_high:
            p.memcgs[m].nr_swap_high += 1
            tell(p, m, E_SWAP)
        m = g.parent
    pthread_mutex_unlock(cython.address(p.c.lock))
    pthread_mutex_unlock(cython.address(p.lock))


def put_back(p, w, i, memcg, staging):
    """A page that neither zswap nor the device would have stays in memory: its place takes it again.

    Where the kernel does not let it go back, for want of memory, zswap has to take it, over all limits.  The bytes are
    nowhere else, so there is no giving up: a fault for this page waits for it.
    """
    page: uint64_t = w.picks[i]
    at = p.base + page * PAGE_BYTES
    while True:
        if not p.can_move:
            # It never left.  Write-protected still, it is let go by the fault of whoever writes to it.
            protect(p, at, PAGE_BYTES, 0)
            return
        if put_pages(p, at, staging + cython.cast(uint64_t, i) * PAGE_BYTES, 1, 1) or p.pages[page].gone:
            return
        prepare_store(w, i, i + 1, memcg, staging)
        w.store.flags = STORE_FORCE
        swap_out(p.c, cython.address(w.store))
        if w.handles[i]:
            return
        uz_pause(PAUSE_MS)
        pthread_mutex_lock(cython.address(p.lock))
        memcg = memcg_of(p, p.pages[page].area)
        pthread_mutex_unlock(cython.address(p.lock))


def score_copies(p, area, copies, good):
    if not copies:
        return
    a = cython.address(p.areas[area])
    score = a.clean_score + 1 if 2 * good >= copies else a.clean_score - 2
    a.clean_score = SCORE_LEAST if score < SCORE_LEAST else SCORE_MOST if score > SCORE_MOST else score


def store_pages(p, w, n, memcg, staging):
    """Store n pages from staging: by their clean copies where these are still good, the others compressed anew."""
    i: cython.int
    end: cython.int
    copies: cython.int = 0
    for i in range(n):
        w.handles[i] = p.pages[w.picks[i]].entry
        w.owners[i] = address_of(p, w.picks[i])
        copies += w.handles[i] != 0
    good: cython.int = clean_settle(p.c, w.handles, w.owners, n, staging) if copies else 0
    pthread_mutex_lock(cython.address(p.lock))
    p.evicted_clean += good
    score_copies(p, p.pages[w.picks[0]].area, copies, good)
    pthread_mutex_unlock(cython.address(p.lock))
    i = 0
    while i < n:
        if w.handles[i]:
            i += 1
            continue
        end = i + 1
        while end < n and not w.handles[end]:
            end += 1
        store_run(p, w, i, end, memcg, staging)
        i = end


def drop_copied(p, page):
    """Take a page that copy_out() copied out of its place.  0, or -errno when it stays after all.

    Called with the lock: a fault that is met while the page is P_GOING is the program's own dropping of it.
    """
    x = cython.address(p.pages[page])
    at = p.base + page * PAGE_BYTES
    ignored: cython.int = 0
    # Anything but EEXIST says that the program has dropped or unmapped it meanwhile.
    error: cython.int = discard(p, page, 1, 0) if put_zeros(p, at, PAGE_BYTES) == -EEXIST else 0
    if error:
        handle = handle_at(p, page)
        free_entries(p.c, cython.address(handle), 1, cython.address(ignored))
        x.entry = 0
        protect(p, at, PAGE_BYTES, 0)
        back_on_list(p, cython.cast(uint32_t, page), 1)
    return error


def evict_picked(p, w, n):
    """Evict the n pages in w.picks, all P_GOING, of one memcg.  How many went.  Called, and returns, with the lock."""
    i: cython.int
    gone: cython.int = 0
    p.nr_evicting += 1
    area = p.pages[w.picks[0]].area
    picked: int64_t = cython.cast(int64_t, n) * PAGE_BYTES
    p.memcgs[memcg_of(p, area)].leaving += picked
    b = take_batch(p)
    staging = staging_of(p, b)
    memcg = memcg_of(p, area)
    pthread_mutex_unlock(cython.address(p.lock))
    n = move_out(p, w, n, staging) if p.can_move else copy_out(p, w, n, staging)
    if n:
        store_pages(p, w, n, memcg, staging)
    for i in range(n):
        if not w.handles[i]:
            put_back(p, w, i, memcg, staging)
    pthread_mutex_lock(cython.address(p.lock))
    memcg = memcg_of(p, area)
    m = cython.address(p.memcgs[memcg])
    m.leaving -= picked
    for i in range(n):
        page = w.picks[i]
        x = cython.address(p.pages[page])
        x.entry = cython.cast(uint32_t, w.handles[i])
        if w.handles[i]:
            if not p.can_move and drop_copied(p, page):
                continue
            evicted(m, x, page)
            x.state = P_SWAPPED
            has_gone(p, page)
            p.areas[x.area].resident -= 1
            gone += 1
            continue
        back_on_list(p, page, 1)
    p.resident -= gone
    p.evicted += gone
    if gone:
        uncharge(p, memcg, gone)
    put_batch(p, b, cython.cast(uint8_t, n) if gone == n and p.can_move else 0)
    p.nr_evicting -= 1
    pthread_cond_broadcast(cython.address(p.changed))
    return gone


def breathe(p):
    """Between two batches: let a fork go first.  Called, and returns, with the lock."""
    if uz_is_shut(cython.address(p.gate)):
        pthread_mutex_unlock(cython.address(p.lock))
        uz_breathe(cython.address(p.gate))
        pthread_mutex_lock(cython.address(p.lock))
