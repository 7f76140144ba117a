"""Frames: staging, where pages are on their way, and the calls that put pages in place or take them out of it.

Evicted pages are moved to staging and compressed there.  Their frames stay for a while, to be the frames of the next
pages that come in: moving a frame back costs a sixth of copying into a new one (PAGING, recycling).

Whose memory it is.  A program can unmap a part of an array, or move it away, and have its own memory there next.  Into
such memory the kernel puts no page, since no userfaultfd of ours is behind it; but it takes pages from anywhere
(UFFDIO_MOVE, MADV_DONTNEED).  What it tells of munmap(), mremap() and mmap(MAP_FIXED) is therefore written down in
Page.gone, for good, and no page that is gone is taken.  There is no moment in between: until its message is read the
program waits in the kernel, which refuses UFFDIO_MOVE meanwhile; and Pager.marks keeps takers out from before a message
is read until its pages are marked.  Messages are read with Pager.marks shared, pages are taken with it exclusively.
It is the innermost lock: Pager.lock may be held, and nothing is waited for with it.
"""

import cython
from cython.cimports.libc.errno import EAGAIN, EBUSY, EEXIST, EINVAL, ENOENT
from cython.cimports.libc.stdint import int64_t, uint64_t
from cython.cimports.uzswap.core.libc_ext import (
    madvise,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    pthread_rwlock_unlock,
    uz_brief_lock,
    uz_discard,
    uz_discard_unlocked,
    uz_forbid,
)
from cython.cimports.uzswap.core.paging.areas import any_gone, make_fresh
from cython.cimports.uzswap.core.paging.pagetable import (
    B_BUSY,
    B_EMPTY,
    B_STOCK,
    BATCH_PAGES,
    NR_BATCHES,
    P_LOST,
    PAGE_BYTES,
    address_of,
)
from cython.cimports.uzswap.core.paging.trap import which_are_there
from cython.cimports.uzswap.core.paging.uffd import (
    UZ_NOTHING,
    UZ_TAKEN_AWAY,
    pthread_cond_wait,
    uz_make_ours,
    uz_map_nothing,
    uz_pause,
    uz_uffd_copy,
    uz_uffd_move,
    uz_uffd_poison,
    uz_uffd_protect,
    uz_uffd_register,
    uz_uffd_take,
    uz_uffd_wake,
    uz_uffd_zero,
)


def take_message(p, address, nbytes):
    """What the userfaultfd has to tell: UZ_READ, UZ_WRITE, UZ_PROTECTED, UZ_NOTHING or -errno.  Never waits."""
    uz_brief_lock(cython.address(p.marks), 0)
    kind = uz_uffd_take(p.fd, address, nbytes)
    if kind == UZ_TAKEN_AWAY:
        mark_gone(p, address[0], nbytes[0])
        kind = UZ_NOTHING
    pthread_rwlock_unlock(cython.address(p.marks))
    return kind


def mark_gone(p, address, nbytes):
    """The program has unmapped or moved away these pages: whatever is mapped there from now on is not ours."""
    # The whole range of the call, which may begin before our memory and end behind it.
    base = address_of(p, 0)
    end = address + nbytes
    page: uint64_t = (address - base) // PAGE_BYTES if address > base else 0
    p.holes = 1
    while page < p.nr_pages and address_of(p, page) < end:
        p.pages[page].gone = 1
        page += 1


def ask_for_holes(p, page, n):
    """Mark the pages that are gone where the kernel does not tell (before 6.6): it puts zeros only into what is ours.

    Between this and what is done then memory may be unmapped: there a program must not do both at the same time.
    """
    x: uint64_t
    for x in range(page, page + n):
        got = uz_uffd_zero(p.fd, p.base + x * PAGE_BYTES, PAGE_BYTES)
        if got == -ENOENT or got == -EINVAL:
            p.holes = 1
            p.pages[x].gone = 1


def events_pass(p):
    """The kernel lets no page be placed (EAGAIN) while a thread that unmaps or moves memory waits for its message.

    The threads that read messages may all be where the caller is, so it reads one itself.  A fault among them is sent
    round again.
    """
    address: uint64_t = 0
    nbytes: uint64_t = 0
    kind = take_message(p, cython.address(address), cython.address(nbytes))
    if kind > UZ_NOTHING:
        uz_uffd_wake(p.fd, cython.cast(cython.p_char, address), PAGE_BYTES)
    else:
        # It has been read; that thread has yet to run.
        uz_pause(0)


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


def put_frames(p, to, frames, nbytes):
    """Move frames of staging into place."""
    while True:
        got = uz_uffd_move(p.fd, to, frames, nbytes)
        if got != -EAGAIN:
            return got
        events_pass(p)


def take_pages(p, to, page, n):
    """Move up to n pages to frames of staging: bytes, or -errno when none were; -ENOENT when the first is not there.

    Linux 6.18 answers EEXIST now and then when it has moved pages, of a page that was being migrated (compaction): it
    tries a second time what it has done.  Nothing else was where they went, so it is by whether the first one is still
    in its place that one can tell.
    """
    while True:
        uz_brief_lock(cython.address(p.marks), 1)
        while n and any_gone(p, page, n):
            n -= 1
        got: int64_t = -ENOENT
        if n:
            at = p.base + page * PAGE_BYTES
            got = uz_uffd_move(p.fd, to, at, n * PAGE_BYTES)
            if got == -EBUSY and p.forked:
                uz_make_ours(at, n * PAGE_BYTES)
                got = uz_uffd_move(p.fd, to, at, n * PAGE_BYTES)
            if got == -EEXIST:
                present: cython.uchar = 0
                which_are_there(address_of(p, page), 1, cython.address(present))
                if not present & 1:
                    got = PAGE_BYTES
        pthread_rwlock_unlock(cython.address(p.marks))
        if got != -EAGAIN:
            return got
        events_pass(p)


def discard(p, page, n, locked):
    """Have pages read as zero, those apart that are gone.  0, or -errno: then some may be as they were.

    With locked also those that the program has locked: else they are -EINVAL.
    """
    end: uint64_t = page + n
    k: uint64_t
    error: cython.int = 0
    if not p.is_told:
        ask_for_holes(p, page, n)
    uz_brief_lock(cython.address(p.marks), 1)
    while page < end and not error:
        k = end - page
        if p.holes:
            k = 0
            while page + k < end and not p.pages[page + k].gone:
                k += 1
        if k:
            at = p.base + page * PAGE_BYTES
            error = uz_discard(at, k * PAGE_BYTES) if locked else uz_discard_unlocked(at, k * PAGE_BYTES)
        page += k if k else 1
    pthread_rwlock_unlock(cython.address(p.marks))
    return error


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
            got = put_frames(p, to + done * PAGE_BYTES, frames + done * PAGE_BYTES, (n - done) * PAGE_BYTES)
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
    elif page >= p.nr_pages or not p.pages[page].gone:
        uz_map_nothing(at, PAGE_BYTES)
    uz_uffd_wake(p.fd, at, PAGE_BYTES)


def lift(p, page):
    """Undo poison(), for a page of which something else is known by now.  0 or -errno."""
    error: cython.int = -ENOENT
    uz_brief_lock(cython.address(p.marks), 1)
    if not p.pages[page].gone:
        error = make_fresh(p, page, 1)
    pthread_rwlock_unlock(cython.address(p.marks))
    return error


def take_batch(p):
    """A batch of empty staging slots, now busy.  Called, and returns, with the lock."""
    b: cython.int
    while True:
        for b in range(NR_BATCHES):
            if p.batches[b].state == B_EMPTY:
                p.batches[b].state = B_BUSY
                return b
        stale: cython.bint = False
        for b in range(NR_BATCHES):
            if p.batches[b].state == B_STOCK:
                if uz_discard(staging_of(p, b), BATCH_PAGES * PAGE_BYTES) == 0:
                    p.batches[b].state = B_BUSY
                    return b
                stale = True
        if stale:
            pthread_mutex_unlock(cython.address(p.lock))
            uz_pause(1)
            pthread_mutex_lock(cython.address(p.lock))
        else:
            pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))


def put_batch(p, b, n):
    """Give back a batch of which the first n frames can be used, the others having nothing.  With the lock.

    No budget has what is in stock.  Where nobody uses it, as what comes in was never there before, all but this batch
    goes, two at a time.
    """
    i: cython.int
    going: cython.int = 0
    p.batches[b].first = 0
    p.batches[b].last = n
    p.batches[b].state = B_STOCK
    if not n and uz_discard(staging_of(p, b), BATCH_PAGES * PAGE_BYTES) == 0:
        p.batches[b].state = B_EMPTY
    p.unused += 1
    if p.unused <= NR_BATCHES:
        return
    for i in range(NR_BATCHES):
        if i != b and p.batches[i].state == B_STOCK and going < 2:
            going += 1
            if uz_discard(staging_of(p, i), BATCH_PAGES * PAGE_BYTES) == 0:
                p.batches[i].state = B_EMPTY


def staging_of(p, b):
    return p.staging + b * BATCH_PAGES * PAGE_BYTES


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
            p.unused = 0
            break
    pthread_mutex_unlock(cython.address(p.lock))
    return found


def stock_used(p, b, frames, n, how):
    """Give back what take_stock() gave; how is put_pages()'s answer.

    A frame that was copied after all must go before its slot is used again.
    """
    stale: cython.bint = how != ALL_MOVED and uz_discard(frames, n * PAGE_BYTES) != 0
    pthread_mutex_lock(cython.address(p.lock))
    p.batches[b].first += n
    if stale:
        p.batches[b].first = p.batches[b].last
    p.batches[b].state = B_STOCK if stale or p.batches[b].first < p.batches[b].last else B_EMPTY
    pthread_mutex_unlock(cython.address(p.lock))


def run_from(p, first, end):
    """The next pages that are ours, from `first` on, and where they end; 0 when there are none.

    Not those that the program has mapped itself, nor what stands for a lost page where the kernel has no poison.
    """
    if first >= p.nr_pages:
        return 0
    if not p.holes and p.can_poison:
        end[0] = p.nr_pages
        return first
    while first < p.top and (p.pages[first].gone or (p.pages[first].state == P_LOST and not p.can_poison)):
        first += 1
    end[0] = first
    while end[0] < p.top and not p.pages[end[0]].gone and (p.pages[end[0]].state != P_LOST or p.can_poison):
        end[0] += 1
    if end[0] >= p.top:
        end[0] = p.nr_pages
    return first if first < p.nr_pages else 0


def each_run(p, advice, fd):
    """Give an advice for all that is ours, REGISTER it with a userfaultfd, or FORBID it.  0 or -errno."""
    first: uint64_t = 0
    end: uint64_t = 0
    failed: cython.int = 0
    while end < p.nr_pages:
        # Page 0 is nobody's, but mapped as the others are.
        first = run_from(p, end if end else 1, cython.address(end))
        if not first:
            break
        if first == 1:
            first = 0
        at = p.base + first * PAGE_BYTES
        if advice == FORBID:
            uz_forbid(at, (end - first) * PAGE_BYTES)
        elif advice != REGISTER:
            madvise(at, (end - first) * PAGE_BYTES, advice)
        else:
            failed = uz_uffd_register(fd, at, (end - first) * PAGE_BYTES, not p.can_move)
            if failed:
                break
    return failed
