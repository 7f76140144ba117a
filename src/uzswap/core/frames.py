"""Frames: staging, where pages are on their way, and the calls that put pages in place.

Evicted pages are moved to staging and compressed there.  Their frames stay for a while, to be the frames of the next
pages that come in: moving a frame back costs a sixth of copying into a new one (PAGING, recycling).
"""

import cython
from cython.cimports.libc.errno import EAGAIN, EEXIST, EINVAL
from cython.cimports.libc.stdint import int64_t, uint64_t
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
    NR_BATCHES,
    PAGE_BYTES,
)
from cython.cimports.uzswap.core.uffd import (
    UZ_NOTHING,
    UZ_TAKEN_AWAY,
    pthread_cond_wait,
    uz_map_nothing,
    uz_uffd_copy,
    uz_uffd_move,
    uz_uffd_poison,
    uz_uffd_protect,
    uz_uffd_take,
    uz_uffd_wake,
    uz_uffd_zero,
)


def events_pass(p):
    """The kernel lets no page be placed (EAGAIN) while a thread that unmaps or moves memory waits for its message.

    The threads that read messages may all be where the caller is, so it reads one itself.  A fault among them is sent
    round again.
    """
    address: uint64_t = 0
    nbytes: uint64_t = 0
    kind = uz_uffd_take(p.fd, cython.address(address), cython.address(nbytes))
    if kind == UZ_TAKEN_AWAY:
        punch(p, address, nbytes)
    elif kind > UZ_NOTHING:
        uz_uffd_wake(p.fd, cython.cast(cython.p_char, address), PAGE_BYTES)


def punch(p, address, nbytes):
    """The program has unmapped or moved away part of an array: whatever is mapped there from now on is not ours.

    Without the lock: the caller may hold it already.  The areas are those of arrays that the program still has.
    """
    page = (address - cython.cast(uint64_t, cython.cast(cython.size_t, p.base))) // PAGE_BYTES
    end: uint64_t = page + (nbytes + PAGE_BYTES - 1) // PAGE_BYTES
    while page < end and page < p.nr_pages:
        area = cython.address(p.areas[p.pages[page].area])
        area.punched = 1
        page = area.first + area.pages if p.pages[page].area else page + 1


def put_copy(p, to, frames, nbytes):
    """Bytes placed, or -errno when none were."""
    while True:
        got = uz_uffd_copy(p.fd, to, frames, nbytes)
        if got != -EAGAIN:
            return got
        events_pass(p)


def put_zeros(p, to, nbytes):
    while True:
        got = uz_uffd_zero(p.fd, to, nbytes)
        if got != -EAGAIN:
            return got
        events_pass(p)


def move(p, to, frames, nbytes):
    while True:
        got = uz_uffd_move(p.fd, to, frames, nbytes)
        if got != -EAGAIN:
            return got
        events_pass(p)


def protect(p, at, nbytes, on):
    """0, or -errno: then nobody knows which of the pages are write-protected."""
    while True:
        error = uz_uffd_protect(p.fd, at, nbytes, on)
        if error != -EAGAIN:
            return error
        events_pass(p)


def put_pages(p, to, frames, n, may_move):
    """Put n filled pages in place: ALL_MOVED, SOME_COPIED, or 0, and then their bytes are where they were."""
    done: uint64_t = 0
    how: cython.int = ALL_MOVED
    while done < n:
        got: int64_t = -EINVAL
        if may_move:
            got = move(p, to + done * PAGE_BYTES, frames + done * PAGE_BYTES, (n - done) * PAGE_BYTES)
        if got < 0:
            how = SOME_COPIED
            got = put_copy(p, to + done * PAGE_BYTES, frames + done * PAGE_BYTES, (n - done) * PAGE_BYTES)
        if got == -EEXIST:
            # The program has put something there itself (mmap over it): that is what it sees.
            uz_uffd_wake(p.fd, to + done * PAGE_BYTES, PAGE_BYTES)
            got = PAGE_BYTES
        if got < 0:
            return 0
        done += got // PAGE_BYTES
    return how


def poison(p, page):
    """Access to a page is SIGBUS from now on."""
    at = p.base + page * PAGE_BYTES
    if p.can_poison:
        while uz_uffd_poison(p.fd, at, PAGE_BYTES) == -EAGAIN:
            events_pass(p)
    else:
        p.areas[p.pages[page].area].punched = 1
        uz_map_nothing(at, PAGE_BYTES)
    uz_uffd_wake(p.fd, at, PAGE_BYTES)


def take_batch(p):
    """A batch of empty staging slots, now busy.  Called, and returns, with the lock."""
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


def take_stock(p, n, frames):
    """n frames that are present, of a batch that is busy from now on; -1 when there are none.  Without the lock."""
    b: cython.int
    found: cython.int = -1
    if not p.can_move:
        return found
    pthread_mutex_lock(cython.address(p.lock))
    for b in range(NR_BATCHES):
        if p.batches[b].state == B_STOCK and p.batches[b].last - p.batches[b].first >= n:
            found = b
            frames[0] = p.staging + (b * BATCH_PAGES + p.batches[b].first) * PAGE_BYTES
            p.batches[b].state = B_BUSY
            break
    pthread_mutex_unlock(cython.address(p.lock))
    return found


def stock_used(p, b, frames, n, how):
    """Give back what take_stock() gave; how is put_pages()'s answer.

    A frame that was copied after all must go before its slot is used again.
    """
    if how != ALL_MOVED:
        madvise(frames, n * PAGE_BYTES, MADV_DONTNEED)
    pthread_mutex_lock(cython.address(p.lock))
    p.batches[b].first += n
    p.batches[b].state = B_STOCK if p.batches[b].first < p.batches[b].last else B_EMPTY
    pthread_mutex_unlock(cython.address(p.lock))
