"""A fork: the child has the arrays as they were, and serves its own faults.

For the length of the fork nothing is on its way, and the reservation is inherited as any memory is: what is resident is
shared until somebody writes, what is not is a hole.  A hole of memory that was registered reads as zeros in a child, so
before any other code of it runs the child registers all of it with a userfaultfd of its own; where it cannot, all of it
becomes inaccessible.  The page table is private memory, so it says in the child what it said in the parent.

Pages that are shared cannot be moved: frames.take_pages() makes them ours first.
"""

import cython
from cython.cimports.libc.errno import EINVAL
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.gate import uz_is_empty, uz_shut, uz_wait_empty
from cython.cimports.uzswap.core.libc_ext import (
    MADV_DOFORK,
    MADV_DONTFORK,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    uz_close_ours,
    uz_identity,
    uz_keep_away,
    uz_monotonic_ns,
)
from cython.cimports.uzswap.core.paging.frames import FORBID, REGISTER, each_run
from cython.cimports.uzswap.core.paging.keeper import keeper_start, open_again
from cython.cimports.uzswap.core.paging.pagetable import (
    B_EMPTY,
    NR_BATCHES,
    NR_TRACKERS,
    P_KEPT,
    P_LISTED,
    P_RESIDENT,
    PAGE_BYTES,
    locks_init,
    pipe_open,
    staging_open,
)
from cython.cimports.uzswap.core.paging.trap import arena_close
from cython.cimports.uzswap.core.paging.uffd import (
    UFFD_FEATURE_EVENT_UNMAP,
    UFFD_FEATURE_SIGBUS,
    UZ_FEATURE_MOVE,
    UZ_FEATURE_POISON,
    close,
    pthread_cond_broadcast,
    uz_pause,
    uz_say_away,
    uz_thread_id,
    uz_uffd_open,
)
from cython.cimports.uzswap.core.paging.workingset import list_add

# In the parent


def pager_shut(p):
    """Let nobody begin anything, and wait until nothing is on its way; not when a thread of ours was killed."""
    left: cython.bint = True
    uz_shut(cython.address(p.gate))
    while left and not p.broken:
        uz_wait_empty(cython.address(p.gate), cython.address(p.broken))
        pthread_mutex_lock(cython.address(p.lock))
        left = p.first_run != 0
        if left:
            pthread_cond_broadcast(cython.address(p.work))
        left = left or not uz_is_empty(cython.address(p.gate))
        pthread_mutex_unlock(cython.address(p.lock))
        if left:
            uz_pause(0)


def pager_lend(p):
    """All is at rest: have the child inherit it."""
    pthread_mutex_lock(cython.address(p.watching))
    p.forked = 1
    each_run(p, MADV_DOFORK, 0)
    # Last: from here on it may be taken back.
    p.forker = uz_thread_id()
    p.rested = uz_monotonic_ns()
    pthread_mutex_unlock(cython.address(p.watching))


def pager_keep(p):
    """After the fork."""
    pthread_mutex_lock(cython.address(p.watching))
    each_run(p, MADV_DONTFORK, 0)
    p.rested = 0
    p.relented = 0
    pthread_mutex_unlock(cython.address(p.watching))
    open_again(p)


# In the child


def pager_inherit(p):
    """Serve its faults from now on.  0 or -errno: then nothing of it is accessible."""
    failed: cython.int = own_userfaultfd(p)
    if not failed:
        as_new(p)
        each_run(p, MADV_DONTFORK, 0)
        failed = pipe_open(p)
    if not failed:
        failed = staging_open(p)
    if not failed:
        failed = keeper_start(p)
    if failed:
        uz_say_away(-failed)
        pager_away(p, 1)
    else:
        p.pid = getpid()
    return failed


def own_userfaultfd(p):
    """Before anything else."""
    only: cython.int = 0
    features: uint64_t = 0
    use: uint64_t = (UZ_FEATURE_MOVE if p.can_move else 0) | (UZ_FEATURE_POISON if p.can_poison else 0)
    if p.by_signal:
        use |= UFFD_FEATURE_SIGBUS
    fd = uz_uffd_open(p.user_only, use, cython.address(only), cython.address(features))
    failed: cython.int = fd if fd < 0 else 0
    told: cython.bint = features & UFFD_FEATURE_EVENT_UNMAP != 0
    if not failed and (only != p.user_only or features & use != use or told != p.is_told):
        failed = -EINVAL
    if not failed:
        failed = each_run(p, REGISTER, fd)
    if failed:
        if fd >= 0:
            close(fd)
        return failed
    let_go(p)
    p.fd = fd
    uz_identity(fd, p.identities[0])
    return 0


def let_go(p):
    """Of what is the parent's."""
    uz_close_ours(p.fd, p.identities[0])
    uz_close_ours(p.stop_read, p.identities[1])
    uz_close_ours(p.stop_write, p.identities[2])
    p.fd = p.stop_read = p.stop_write = -1


def as_new(p):
    """Forget the threads that are not here, and what they were at."""
    i: cython.int
    x: uint64_t
    m: uint32_t
    locks_init(p)
    p.rested = p.relented = 0
    p.roused = p.fd_lost = 0
    p.forked = 1
    p.lazy = 1
    p.started = p.keeper_ready = p.nr_servers = p.nr_workers = p.nr_begun = p.serving = p.busy = p.settling = 0
    memset(cython.address(p.thread_ids[0]), 0, cython.sizeof(p.thread_ids))
    p.nr_evicting = p.nr_arriving = 0
    for i in range(NR_BATCHES):
        p.batches[i].state = B_EMPTY
        p.batches[i].first = p.batches[i].last = 0
    # What threads had to work with: none of it is in use.
    w = p.all_works
    p.works = cython.NULL
    while w != cython.NULL:
        w.next = p.works
        w.may_breathe = 0
        p.works = w
        w = w.other
    # Work ahead of faults is asked for again by the next ones.
    for i in range(NR_TRACKERS):
        p.trackers[i].queued = 0
    p.nr_queued = 0
    m = p.first_shrinking
    while m:
        p.memcgs[m].shrinking = 0
        m = p.memcgs[m].next_shrinking
    p.first_shrinking = 0
    # Nobody waits yet.
    p.nr_waiters = p.nr_waiting = 0
    for m in range(p.c.t.next_memcg):
        if p.memcgs[m].members:
            p.memcgs[m].members = p.memcgs[m].stalled = 0
        p.memcgs[m].leaving = 0
    if p.nr_held:
        for x in range(1, p.top):
            page = cython.address(p.pages[x])
            if page.held:
                page.held = 0
                if page.state == P_RESIDENT and not page.flags & (P_KEPT | P_LISTED):
                    list_add(p, cython.cast(uint32_t, x))
        p.nr_held = 0


def pager_away(p, mapped):
    """Nothing of it is here: an access is SIGSEGV, and malloc is given nothing of its addresses.

    Else its memory there would be taken for an array of the parent's, which is not freed here.  Where calls are trapped
    the kernel gives them to nobody by itself.
    """
    p.away = 1
    let_go(p)
    if mapped:
        each_run(p, FORBID, 0)
    elif p.trapped <= 0:
        uz_keep_away(p.base, p.nr_pages * PAGE_BYTES)
    arena_close(p)
