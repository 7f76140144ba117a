"""Faults that are served in the threads that they are in: what the handler of SIGBUS (handlers.py) does for a page.

It saves the two switches of context, and the scheduler, that a serving thread costs.  A thread can only be in this code
because it touched an array, so what has to hold is that nobody touches one with a lock that is taken here, or within a
gate: nothing of the data plane does (gather.py and syscalls.py, which come closest, say how), nor any allocator, whose
memory an array is not.  The GIL is not needed, and the program may hold it.

What waits for the device is left to workers, and so is everything where the program has closed the descriptor of the
userfaultfd in its own table, which those of the engine's threads is not.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import touched
from cython.cimports.uzswap.core.paging.frames import put_copy
from cython.cimports.uzswap.core.paging.handlers import lock_unless, wait_briefly
from cython.cimports.uzswap.core.paging.keeper import rouse
from cython.cimports.uzswap.core.paging.make_room import make_room
from cython.cimports.uzswap.core.paging.page_in import TO_WRITE, bring_pages
from cython.cimports.uzswap.core.paging.pager import leave, on_disk
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    P_COMING,
    P_GOING,
    P_LOST,
    P_RESIDENT,
    P_STUCK,
    P_WANTED,
    PAGE_BYTES,
    Pager,
    address_of,
    work_put,
)
from cython.cimports.uzswap.core.paging.readahead import stream_at, want_reading
from cython.cimports.uzswap.core.paging.stalls import arrived, waits
from cython.cimports.uzswap.core.paging.trap import arena_at, is_userfaultfd
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_broadcast, uz_thread_id
from cython.cimports.uzswap.core.store.entries import NO_MEMCG
from cython.cimports.uzswap.core.store.state import reserve_below


def fault_here(address, to_write, poisoned):
    """Whether the access is to be made again; if not, it is an error of the program's, or the page is lost."""
    p = cython.cast(cython.pointer(Pager), arena_at(address))
    found: cython.int = 0
    if p == cython.NULL or not p.by_signal or p.broken:
        return 0
    page: uint64_t = (address - address_of(p, 0)) // PAGE_BYTES
    uz_enter(cython.address(p.gate))
    if page < p.nr_pages and lock_unless(cython.address(p.lock), cython.address(p.broken)):
        p.busy += 1
        found = mend(p, address - address_of(p, 0), to_write)
        p.busy -= 1
        if p.settling:
            pthread_cond_broadcast(cython.address(p.changed))
        pthread_mutex_unlock(cython.address(p.lock))
    uz_leave(cython.address(p.gate))
    return found


def mend(p, offset, to_write):
    """fault_here() with the lock."""
    page: uint64_t = offset // PAGE_BYTES
    tried: cython.bint = False
    waited: cython.bint = False
    p.faults += 1
    touched(p, page, 1)
    x = cython.address(p.pages[page])
    if x.area and x.state != P_LOST:
        p.areas[x.area].faults += 1
        if x.state != P_RESIDENT:
            waits(p, uz_thread_id(), page)
    while x.area and not x.gone and x.state != P_LOST and not p.broken:
        if x.state == P_RESIDENT:
            # It came in since the access; or the program dropped it with madvise: then it reads as zero, as in any
            # anonymous memory.
            if not tried and not waited:
                put_copy(p, p.base + page * PAGE_BYTES, p.zeros, PAGE_BYTES)
            arrived(p, page)
            return 1
        if x.state == P_COMING or x.state == P_GOING:
            x.flags |= P_WANTED
            waited = True
            if wait_briefly(cython.address(p.changed), cython.address(p.lock)):
                return 1  # it waits on with its next access, and its stall goes on
        elif tried:
            # In the way was what may pass, or something that the access will tell: it is made again, after signals.
            arrived(p, page)
            return 1
        else:
            tried = True
            bring_here(p, offset, to_write)
    arrived(p, page)
    return 0


def bring_here(p, offset, to_write):
    """Bring in a page that may come, and what comes with it, or leave it to workers.  Called and returns with the lock.

    In a forked child workers are there some time after they are first wanted.
    """
    run: uint32_t[BATCH_PAGES]
    n: uint64_t = 0
    i: uint64_t
    flags: cython.int = TO_WRITE if to_write else 0
    t = stream_at(p, offset, to_write, run, cython.address(n))
    want_reading(p, t)
    for i in range(n):
        p.pages[run[i]].flags &= ~P_STUCK
    p.roused = p.roused if p.roused else 1
    w = p.works
    if w == cython.NULL or p.fd_lost or on_disk(p, run, n):
        rouse(p)
        leave(p, run, n, flags)
        return
    p.works = w.next
    w.charge.over_high = NO_MEMCG
    memcpy(w.run, run, n * cython.sizeof(uint32_t))
    bring_pages(p, w, n, flags)
    if p.pages[offset // PAGE_BYTES].state != P_RESIDENT and not is_userfaultfd(p.fd):
        p.fd_lost = 1
    behind = w.charge.over_high
    if behind != NO_MEMCG and w.charge.excess > reserve_below(p.c.t.memcgs[behind].memory_high):
        # The workers do not keep up with it.
        pthread_mutex_unlock(cython.address(p.lock))
        make_room(p, w, behind, BATCH_PAGES, 0)
        pthread_mutex_lock(cython.address(p.lock))
    work_put(p, w)
