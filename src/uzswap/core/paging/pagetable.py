"""Paged memory: the page table, the areas (one an array) and the lists of resident pages.

All areas of an engine lie in one reservation that is registered with one userfaultfd, so an address gives its page by a
subtraction.  Pages are numbered from 1; number 0 is nobody.
Which of them are on what list workingset.py says.  The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.errno import ENOMEM, EOPNOTSUPP
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.gate import uz_gate_destroy, uz_gate_init
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_NOHUGEPAGE,
    madvise,
    munmap,
    posix_memalign,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_rwlock_destroy,
    pthread_rwlock_init,
    uz_close_ours,
    uz_identity,
    uz_private,
    uz_private_free,
    uz_ram_bytes,
    uz_reserve,
    uz_wipe,
)
from cython.cimports.uzswap.core.paging.trap import arena_close, arena_open, trap_open
from cython.cimports.uzswap.core.paging.uffd import (
    UFFD_FEATURE_EVENT_UNMAP,
    UFFD_FEATURE_SIGBUS,
    UZ_FEATURE_MOVE,
    UZ_FEATURE_POISON,
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    uz_cond_init,
    uz_pipe,
    uz_uffd_open,
    uz_uffd_register,
    uz_uffd_unregister,
)
from cython.cimports.uzswap.core.store.entries import handle_of

# Address space for arrays, in times the machine's memory: an array may be much larger than memory, and address space is
# free (24 bytes of page table a page, touched only where pages of arrays are).
RESERVE_TIMES = cython.declare(uint64_t, 16)
MAX_AREAS = cython.declare(uint32_t, 1 << 20)


def table_open(p, want_user_only, old_kernel, by_signal, serve):
    """0 or -errno; on failure table_close() cleans up.

    With old_kernel nothing is used that kernels before 6.8 lack.  In user mode only, `serve` makes the program's system
    calls on paged memory, where they can be trapped.  By signal the kernel itself never waits, so -EOPNOTSUPP where
    they cannot; and on kernels without UFFDIO_MOVE.
    """
    use: uint64_t = 0 if old_kernel else UZ_FEATURE_MOVE | UZ_FEATURE_POISON
    features: uint64_t = 0
    n: uint64_t = RESERVE_TIMES * (uz_ram_bytes() // PAGE_BYTES)
    memory: cython.p_void = cython.NULL
    p.fd = p.stop_read = p.stop_write = -1
    if by_signal:
        use |= UFFD_FEATURE_SIGBUS
        want_user_only = 1
    p.by_signal = by_signal
    p.fd = uz_uffd_open(want_user_only, use, cython.address(p.user_only), cython.address(features))
    if p.fd < 0:
        return p.fd
    uz_identity(p.fd, p.identities[0])
    if p.user_only:
        failed = trap_open(serve)
        p.trapped = failed if failed else 1
    p.can_move = (features & UZ_FEATURE_MOVE) != 0
    p.can_poison = (features & UZ_FEATURE_POISON) != 0
    p.is_told = (features & UFFD_FEATURE_EVENT_UNMAP) != 0
    if by_signal and (features & use != use or not p.can_move or p.trapped <= 0):
        return -EOPNOTSUPP
    failed = pipe_open(p)
    if failed:
        return failed
    while True:
        p.base = reserve(p, n * PAGE_BYTES)
        if p.base != cython.NULL or n < 1 << 14:
            break
        n >>= 1
    p.nr_pages = n
    p.pages = cython.cast(cython.pointer(Page), uz_reserve(n * cython.sizeof(Page)))
    p.untouched = cython.cast(cython.pointer(uint32_t), uz_reserve((n // LEAF_PAGES + 1) * cython.sizeof(uint32_t)))
    p.came_back_for = cython.cast(cython.p_int, uz_reserve((n // LEAF_PAGES + 1) * cython.sizeof(cython.int)))
    p.areas = cython.cast(cython.pointer(Area), uz_reserve(MAX_AREAS * cython.sizeof(Area)))
    p.memcgs_bytes = p.c.t.max_memcgs * cython.sizeof(MemcgPages)
    p.memcgs = cython.cast(cython.pointer(MemcgPages), uz_reserve(p.memcgs_bytes))
    if posix_memalign(cython.address(memory), PAGE_BYTES, BATCH_PAGES * PAGE_BYTES):
        return -ENOMEM
    p.zeros = cython.cast(cython.p_char, memory)
    memset(p.zeros, 0, BATCH_PAGES * PAGE_BYTES)
    if not (p.base and p.pages and p.untouched and p.came_back_for and p.areas and p.memcgs):
        return -ENOMEM
    # A child would read zeros where pages are swapped out: not mapped at all there is a SIGSEGV, which is better.
    # Where it has a userfaultfd of its own it is mapped (inheriting.py).
    madvise(p.base, n * PAGE_BYTES, MADV_DONTFORK)
    madvise(p.base, n * PAGE_BYTES, MADV_DONTDUMP)
    madvise(p.base, n * PAGE_BYTES, MADV_NOHUGEPAGE)
    failed = uz_uffd_register(p.fd, p.base, n * PAGE_BYTES, not p.can_move)
    if not failed:
        failed = staging_open(p)
    if failed:
        return failed
    p.max_areas = MAX_AREAS
    p.next_area = 1
    p.pid = getpid()
    locks_init(p)
    p.initialised = 1
    return 0


def pipe_open(p):
    """Who writes to it ends the threads that serve faults.  0 or -errno."""
    ends: cython.int[2]
    failed = uz_pipe(ends)
    if failed:
        return failed
    p.stop_read = ends[0]
    p.stop_write = ends[1]
    uz_identity(p.stop_read, p.identities[1])
    uz_identity(p.stop_write, p.identities[2])
    return 0


def staging_open(p):
    """0 or -errno.  No child has it: its frames stay ours alone, and can be moved."""
    nbytes: uint64_t = NR_BATCHES * BATCH_PAGES * PAGE_BYTES
    p.staging = cython.cast(cython.p_char, uz_reserve(nbytes))
    if p.staging == cython.NULL:
        return -ENOMEM
    madvise(p.staging, nbytes, MADV_DONTFORK)
    madvise(p.staging, nbytes, MADV_NOHUGEPAGE)
    return uz_uffd_register(p.fd, p.staging, nbytes, 0) if p.can_move else 0


def locks_init(p):
    """Make all locks, or make them anew in a child: there only the thread that forked is left."""
    pthread_mutex_init(cython.address(p.lock), cython.NULL)
    pthread_mutex_init(cython.address(p.watching), cython.NULL)
    pthread_rwlock_init(cython.address(p.marks), cython.NULL)
    pthread_cond_init(cython.address(p.changed), cython.NULL)
    pthread_cond_init(cython.address(p.told), cython.NULL)
    pthread_cond_init(cython.address(p.work), cython.NULL)
    uz_cond_init(cython.address(p.watch))
    uz_gate_init(cython.address(p.gate))


def reserve(p, nbytes):
    """Address space for all arrays; where calls are trapped it is the filter that knows the place."""
    if p.trapped > 0:
        return cython.cast(cython.p_char, arena_open(nbytes, p))
    return cython.cast(cython.p_char, uz_reserve(nbytes))


def table_close(p):
    m: uint32_t
    # The reservation goes before the descriptor: a registered page whose descriptor is closed reads as zero.  It is
    # unregistered first, or unmapping would wait for somebody to read of it.
    if p.base != cython.NULL:
        arena_close(p)
        uz_uffd_unregister(p.fd, p.base, p.nr_pages * PAGE_BYTES)
        munmap(p.base, p.nr_pages * PAGE_BYTES)
    if p.staging != cython.NULL:
        uz_uffd_unregister(p.fd, p.staging, NR_BATCHES * BATCH_PAGES * PAGE_BYTES)
        uz_wipe(p.staging, NR_BATCHES * BATCH_PAGES * PAGE_BYTES)
        munmap(p.staging, NR_BATCHES * BATCH_PAGES * PAGE_BYTES)
    if p.pages != cython.NULL:
        munmap(p.pages, p.nr_pages * cython.sizeof(Page))
    if p.untouched != cython.NULL:
        munmap(p.untouched, (p.nr_pages // LEAF_PAGES + 1) * cython.sizeof(uint32_t))
    if p.came_back_for != cython.NULL:
        munmap(p.came_back_for, (p.nr_pages // LEAF_PAGES + 1) * cython.sizeof(cython.int))
    if p.areas != cython.NULL:
        munmap(p.areas, MAX_AREAS * cython.sizeof(Area))
    if p.memcgs != cython.NULL:
        for m in range(p.c.t.next_memcg):
            free(p.memcgs[m].label)
        munmap(p.memcgs, p.memcgs_bytes)
    free(p.zeros)
    free(p.ranges)
    while p.all_works != cython.NULL:
        w = p.all_works
        p.all_works = w.other
        uz_private_free(w.scratch, BATCH_PAGES * PAGE_BYTES)
        free(w)
    uz_close_ours(p.fd, p.identities[0])
    uz_close_ours(p.stop_read, p.identities[1])
    uz_close_ours(p.stop_write, p.identities[2])
    if p.initialised:
        pthread_mutex_destroy(cython.address(p.lock))
        pthread_mutex_destroy(cython.address(p.watching))
        pthread_rwlock_destroy(cython.address(p.marks))
        pthread_cond_destroy(cython.address(p.changed))
        pthread_cond_destroy(cython.address(p.told))
        pthread_cond_destroy(cython.address(p.work))
        pthread_cond_destroy(cython.address(p.watch))
        uz_gate_destroy(cython.address(p.gate))


def address_of(p, page):
    return cython.cast(uint64_t, cython.cast(cython.size_t, p.base)) + page * PAGE_BYTES


def handle_at(p, page):
    """The handle of a page's own entry, 0 when it has none; not of its clean copy, which may be gone.

    What a page has in common with others, or for itself, nobody else gives up: its generation stays what it is.
    """
    index = p.pages[page].entry
    return handle_of(cython.address(p.c.t), index) if index else 0


def memcg_of(p, a):
    """The online memcg that an area belongs to now: pages_reparent() sees to that."""
    return p.areas[a].memcg


def length_of(of):
    """Pages on both of its lists."""
    return of.inactive.length + of.active.length


def failed_add(p, page):
    """A page is P_LOST for the time being."""
    x = cython.address(p.pages[page])
    x.flags |= P_AGAIN
    x.prev = p.failed.tail
    x.next = 0
    if p.failed.tail:
        p.pages[p.failed.tail].next = page
    else:
        p.failed.head = page
    p.failed.tail = page
    p.failed.length += 1


def failed_del(p, page):
    x = cython.address(p.pages[page])
    if not x.flags & P_AGAIN:
        return
    if x.prev:
        p.pages[x.prev].next = x.next
    else:
        p.failed.head = x.next
    if x.next:
        p.pages[x.next].prev = x.prev
    else:
        p.failed.tail = x.prev
    p.failed.length -= 1
    x.flags &= ~P_AGAIN
    x.prev = 0  # nobody knows any more when it was evicted


def tell(p, memcg, events):
    """Note events for the layer above.  Called with the lock."""
    m = cython.address(p.memcgs[memcg])
    m.nr_low += (events & E_LOW) != 0
    m.nr_high += (events & E_HIGH) != 0
    m.nr_max += (events & E_MAX) != 0
    m.nr_oom += (events & E_OOM) != 0
    news = events & ~m.events
    m.events |= events
    p.events |= events
    if news:
        pthread_cond_broadcast(cython.address(p.told))


# Working memory


def work_get(p):
    """Called with the lock.  NULL without memory."""
    w = p.works
    if w != cython.NULL:
        p.works = w.next
        return w
    return work_new(p)


def work_new(p):
    """Called with the lock."""
    w = cython.cast(cython.pointer(Work), calloc(1, cython.sizeof(Work)))
    if w == cython.NULL:
        return cython.NULL
    w.scratch = cython.cast(cython.p_char, uz_private(BATCH_PAGES * PAGE_BYTES))
    if w.scratch == cython.NULL:
        free(w)
        return cython.NULL
    w.other = p.all_works
    p.all_works = w
    return w


def work_put(p, w):
    w.may_breathe = 0
    w.next = p.works
    p.works = w
