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
    E_LOW,
    E_POOL_FULL,
    E_SWAP,
    P_GOING,
    P_NONE,
    P_RESIDENT,
    P_STUCK,
    P_SWAPPED,
    P_WANTED,
    PAGE_BYTES,
    address_of,
    balance,
    list_add,
    list_del,
    memcg_of,
    tell,
)
from cython.cimports.uzswap.core.paging.stalls import arrived
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_signal,
    pthread_cond_wait,
    uz_pause,
    uz_uffd_wake,
)
from cython.cimports.uzswap.core.store.active import HAS_LRU, HAS_RESIDENT, Round, active_coldest, active_turn
from cython.cimports.uzswap.core.store.clean import clean_drop, clean_forget, clean_settle
from cython.cimports.uzswap.core.store.codec import Codec, compress
from cython.cimports.uzswap.core.store.entries import (
    C_RESIDENT,
    C_SWAP,
    C_ZSWAP,
    MEMCG_ONLINE,
    NO_MEMCG,
    ROOT,
    Delta,
)
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.protection import LOW_BREACHED, LOW_SPARED, unprotected
from cython.cimports.uzswap.core.store.state import (
    WRITE_COLDEST,
    WRITE_NOTHING,
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

# Compressed bytes that are written back at once: as many as a batch of pages takes that do not compress.
WRITE_BACK_BYTES = cython.declare(int64_t, BATCH_PAGES * PAGE_BYTES)

# Evictions of a page that the kernel would not move, before it is tried again: doubles up to 2 ** this.
STUCK_MOST = cython.declare(cython.int, 12)

# Between tries to find a place for a page that has none.
PAUSE_MS = cython.declare(cython.int, 10)

# Area.clean_score goes down by 2 for a batch whose copies were mostly stale, up by 1 for one with good ones; while it
# is not positive no copies are kept but now and then (page_in.keep_copies).  Bounds: an array that was written for a
# long time is worth copies again after as many batches as it takes to read 4 MiB.
SCORE_LEAST = cython.declare(cython.int, -8)
SCORE_MOST = cython.declare(cython.int, 8)


def want_shrinking(p, memcg):
    """Have workers evict from a memcg until room_in() says that there is room.  Called with the lock."""
    m = cython.address(p.memcgs[memcg])
    if m.shrinking or not p.nr_workers:
        return
    m.shrinking = 1
    m.next_shrinking = 0
    if p.first_shrinking:
        p.memcgs[p.last_shrinking].next_shrinking = memcg
    else:
        p.first_shrinking = memcg
    p.last_shrinking = memcg
    pthread_cond_signal(cython.address(p.work))


def uncharge(p, memcg, n):
    count(p, memcg, C_RESIDENT, -n * PAGE_BYTES)


def count(p, memcg, counter, n):
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(p.c.lock))
    delta_add(cython.address(p.c.t), cython.address(d), memcg, counter, n)
    delta_apply(cython.address(p.c.t), cython.address(d))
    pthread_mutex_unlock(cython.address(p.c.lock))


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


def has_gone(p, page):
    """A page is P_GOING no longer: who has met it while it was comes round again.  Called with the lock."""
    x = cython.address(p.pages[page])
    if x.flags & P_WANTED:
        x.flags &= ~P_WANTED
        arrived(p, page, 1)
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
        clean_forget(p.c, cython.address(x.handle), cython.address(owner), 1)
        x.state = P_NONE
        x.handle = 0
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
    w.since = c.t.last_stamp
    w.youngest = 0xFFFFFFFF
    # Twice round a batch: the first meeting may only take the reference.
    w.nr_to_scan = 2 * BATCH_PAGES
    w.budget = most
    if may_write_back(c, memcg):
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
    step = (n - i + FILTER_SAMPLE - 1) // FILTER_SAMPLE
    while i < n:
        src = staging + i * PAGE_BYTES
        plain_bytes += packed_bytes(compress(worker, cython.address(plain), src, PAGE_BYTES, worker.scratch))
        shuffled_bytes += packed_bytes(compress(worker, cython.address(shuffled), src, PAGE_BYTES, worker.scratch))
        i += step
    worker_put(p.c, worker)
    pthread_mutex_lock(cython.address(p.lock))
    area.filter_on = shuffled_bytes < plain_bytes
    chosen = area.item if area.filter_on else 0
    pthread_mutex_unlock(cython.address(p.lock))
    return chosen


def packed_bytes(length):
    return length if 0 < length < PAGE_BYTES else PAGE_BYTES


def prepare_store(w, first, end, memcg, staging):
    """What to store: pages first .. end - 1 of staging; w.handles says what became of each."""
    s = cython.address(w.store)
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
    while m != ROOT:
        g = cython.address(p.c.t.memcgs[m])
        if g.counters[C_SWAP] > g.swap_high:
            p.memcgs[m].nr_swap_high += 1
            tell(p, m, E_SWAP)
        m = g.parent
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
        w.handles[i] = p.pages[w.picks[i]].handle
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
        free_entries(p.c, cython.address(x.handle), 1, cython.address(ignored))
        x.handle = 0
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
        x.handle = w.handles[i]
        if w.handles[i]:
            if not p.can_move and drop_copied(p, page):
                continue
            m.evictions += 1
            x.shadow = m.evictions
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


def evict_from(p, w, root, most, copies):
    """Evict up to `most` of the oldest resident pages of root's subtree, its memcgs in turn.  How many went.

    With copies, clean copies of the subtree go first: pages only when there are none.  What memory.low protects goes
    when there is nothing else.
    """
    said: cython.int = 0
    gone = evict_some(p, w, root, most, copies, 0, cython.address(said))
    if not gone and said & LOW_SPARED and others_land(p):
        gone = evict_some(p, w, root, most, copies, 0, cython.address(said))
    if not gone and said & LOW_SPARED:
        gone = evict_some(p, w, root, most, copies, 1, cython.address(said))
    return gone


def online(p, memcg):
    """Whom something belongs to that was a memcg's when that was online.  Called with the lock."""
    while p.c.t.memcgs[memcg].state != MEMCG_ONLINE:
        memcg = p.c.t.memcgs[memcg].parent
    return memcg


def others_land(p):
    """Wait for an eviction of another thread, if any is under way: whether there was.

    Where all that may go is on its way, nothing is left, but not for long: it is too early for what is protected.
    """
    pthread_mutex_lock(cython.address(p.lock))
    under_way: cython.bint = p.nr_evicting != 0
    if under_way:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return under_way


def may_go(p, memcg, root, n, take_low, said):
    """How much of `n` that a memcg has, pages or bytes, may go for root now; counts when memory.low is not kept.

    Called with the lock.
    """
    now: cython.int = 0
    pthread_mutex_lock(cython.address(p.c.lock))
    leaving = p.memcgs[memcg].leaving
    n = unprotected(cython.address(p.c.t), memcg, root, n, leaving, take_low, cython.address(now))
    pthread_mutex_unlock(cython.address(p.c.lock))
    if now & LOW_BREACHED and n:
        tell(p, memcg, E_LOW)
    said[0] |= now
    return n


def breathe(p):
    """Between two batches: let a fork go first.  Called, and returns, with the lock."""
    if uz_is_shut(cython.address(p.gate)):
        pthread_mutex_unlock(cython.address(p.lock))
        uz_breathe(cython.address(p.gate))
        pthread_mutex_lock(cython.address(p.lock))


def evict_some(p, w, root, most, copies, take_low, said):
    """evict_from() but for the second try; adds to `said` whether memory.low has spared anything."""
    gone: int64_t = 0
    round: Round
    pages: int64_t
    if copies:
        gone = (clean_drop(p.c, root, most * PAGE_BYTES, take_low) + PAGE_BYTES - 1) // PAGE_BYTES
        if gone:
            return gone
    round.began = 0
    pthread_mutex_lock(cython.address(p.lock))
    while gone < most:
        if w.may_breathe:
            breathe(p)
        memcg = turn(p, root, HAS_RESIDENT, cython.address(p.evicted_after), cython.address(round))
        if memcg == NO_MEMCG:
            break
        m = cython.address(p.memcgs[memcg])
        if m.inactive.length + m.active.length == 0:
            continue
        pages = may_go(p, memcg, root, cython.cast(int64_t, m.inactive.length) + m.active.length, take_low, said)
        if pages > most - gone:
            pages = most - gone
        n = pick(p, w, memcg, BATCH_PAGES if pages > BATCH_PAGES else cython.cast(cython.int, pages))
        if n:
            n = evict_picked(p, w, n)
        if n:
            gone += n
            round.began = 0
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def turn(p, root, which, after, round):
    """active_turn() under the lock of the data plane, which Pager.lock is no substitute for."""
    c = p.c
    pthread_mutex_lock(cython.address(c.lock))
    memcg = active_turn(cython.address(c.t), root, which, which == HAS_LRU and c.enabled, after, round)
    pthread_mutex_unlock(cython.address(c.lock))
    return memcg


def coldest(p, root):
    pthread_mutex_lock(cython.address(p.c.lock))
    memcg = active_coldest(cython.address(p.c.t), root)
    pthread_mutex_unlock(cython.address(p.c.lock))
    return memcg


def write_back_from(p, root, take_low, said):
    """Write some of the oldest entries of a memcg of root's subtree back.  Whether any were.

    Which memcg's, the walk in use says (Core.fault_writeback): the one with the coldest entry first, or all in turn; or
    none.  What memory.min and memory.low protect, zswap included, is spared as by evict_some().
    """
    most: int64_t = 0
    round: Round
    round.began = 0
    if p.c.fault_writeback == WRITE_NOTHING:
        return 0
    first: cython.bint = p.c.fault_writeback == WRITE_COLDEST
    while True:
        pthread_mutex_lock(cython.address(p.lock))
        memcg = coldest(p, root) if first else NO_MEMCG
        if memcg == NO_MEMCG:
            # In turn, too, when what is coldest may not go.
            memcg = turn(p, root, HAS_LRU, cython.address(p.wrote_after), cython.address(round))
        first = False
        if memcg != NO_MEMCG:
            most = may_go(p, memcg, root, p.c.t.memcgs[memcg].counters[C_ZSWAP], take_low, said)
            if most > WRITE_BACK_BYTES:
                most = WRITE_BACK_BYTES
            if most > 0:
                p.nr_evicting += 1
                p.memcgs[memcg].leaving += most
        pthread_mutex_unlock(cython.address(p.lock))
        if memcg == NO_MEMCG:
            return 0
        if most <= 0:
            continue
        wrote = make_room_in_zswap(p, memcg, most)
        pthread_mutex_lock(cython.address(p.lock))
        p.nr_evicting -= 1
        # If it was removed meanwhile, what was on its way is its parent's.
        p.memcgs[online(p, memcg)].leaving -= most
        pthread_cond_broadcast(cython.address(p.changed))
        pthread_mutex_unlock(cython.address(p.lock))
        if wrote:
            return 1


def make_room(p, w, root, most, resident):
    """Bring a memcg that is over a limit, or close to it, about `most` pages down.  0 when nothing more can go.

    Where it is not a limit of resident memory alone, what is compressed counts as well.  If that could only grow, a
    budget would end up all compressed, and every fault would evict what the one before had brought; so it takes no
    more than half.
    """
    said: cython.int = 0
    gone = make_some_room(p, w, root, most, resident, 0, cython.address(said))
    if not gone and said & LOW_SPARED and others_land(p):
        gone = make_some_room(p, w, root, most, resident, 0, cython.address(said))
    if not gone and said & LOW_SPARED:
        gone = make_some_room(p, w, root, most, resident, 1, cython.address(said))
    return gone


def make_some_room(p, w, root, most, resident, take_low, said):
    """make_room() but for the second try, in which what memory.low protects goes too."""
    if not resident:
        counters = cython.address(p.c.t.memcgs[root].counters[0])
        if counters[C_ZSWAP] > counters[C_RESIDENT]:
            gone = (clean_drop(p.c, root, most * PAGE_BYTES, take_low) + PAGE_BYTES - 1) // PAGE_BYTES
            if gone or write_back_from(p, root, take_low, said):
                return gone if gone else 1
    gone = evict_some(p, w, root, most, not resident, take_low, said)
    if gone or resident:
        return gone
    return write_back_from(p, root, take_low, said)
