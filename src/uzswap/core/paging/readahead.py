"""Streams: which faults continue one, how much comes in with them, and what is read ahead of them.

A page comes in alone until a stream is recognised: faults that follow each other upwards or downwards (glibc's memcpy
goes backwards, too).  Its window then grows by four to BATCH_PAGES; when it is full, workers read ahead of the stream
on other CPUs.  A fixed window would be five times faster on streams and up to thirty times slower on random access,
where it evicts what is in use (PAGING 2 and 6).

A stream may leave out pages: a column of an array whose rows are longer than a page.  It is one when two faults in turn
are as many bytes, more than a page, behind the fault before; then the pages at that stride come in together.  An array
remembers its last stride, since of the next column much is resident: there one fault some strides behind another is
enough.
The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.paging.areas import area_of
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    H_RANDOM,
    H_SEQUENTIAL,
    NR_TRACKERS,
    P_COMING,
    P_NONE,
    P_RESIDENT,
    P_SWAPPED,
    PAGE_BYTES,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_signal
from cython.cimports.uzswap.core.paging.workingset import nr_listed

WINDOW_GROWTH = cython.declare(uint32_t, 4)

# How far beyond the expected page a stream may continue, over pages that are resident already.
STREAM_SKIP = cython.declare(uint64_t, 256)

# Pages that are read ahead of a stream's last fault: 1 MiB, so that two workers have two windows each.
AHEAD_PAGES = cython.declare(uint64_t, 256)

# Neither a window nor what is read ahead of it may be more than this part of what its memcg has resident: a stream
# must not throw out the rest of a small budget.
BUDGET_PART = cython.declare(uint64_t, 8)
LEAST_AHEAD = cython.declare(uint64_t, 16)


def may_come(p, page, area):
    x = cython.address(p.pages[page])
    return area_of(p, page) == area and (x.state == P_NONE or x.state == P_SWAPPED)


def most_ahead(p, area):
    m = cython.address(p.memcgs[memcg_of(p, area)])
    part = cython.cast(uint64_t, nr_listed(m)) // BUDGET_PART
    if part < LEAST_AHEAD:
        return LEAST_AHEAD
    return part if part < AHEAD_PAGES else AHEAD_PAGES


def ahead_of(t):
    """Pages between a stream's last fault and the place where it goes on."""
    return t.up - t.seen if t.direction > 0 else t.seen - t.down


def stream_at(p, offset, is_write, run, n):
    """A fault at a page that may come: what to bring in with it, ascending unless it leaves out pages, and its tracker.

    The offset is that of the access in the reservation, in bytes, where the kernel tells; of its page otherwise.
    """
    page: uint64_t = offset // PAGE_BYTES
    area = p.pages[page].area
    hint = p.areas[area].hint
    i: cython.int
    found: cython.int = -1
    oldest: cython.int = 0
    latest: cython.int = -1
    x: uint64_t
    direction: cython.int = 0
    step: int64_t = 0
    gap: int64_t = 0
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if t.used < p.trackers[oldest].used:
            oldest = i
        if not t.used or t.area != area:
            continue
        if latest < 0 or t.used > p.trackers[latest].used:
            latest = i
        if t.step and goes_on(p, area, t.next, offset, t.step):
            found = i
            step = t.step
            break
        if t.up <= page and page - t.up < STREAM_SKIP:
            x = t.up
            while x < page and (p.pages[x].state == P_RESIDENT or p.pages[x].state == P_COMING):
                x += 1
            if x == page:
                found = i
                direction = 1
                break
        if t.down >= page and t.down - page < STREAM_SKIP:
            x = t.down
            while x > page and (p.pages[x].state == P_RESIDENT or p.pages[x].state == P_COMING):
                x -= 1
            if x == page:
                found = i
                direction = -1
                break
    if not step and latest >= 0 and p.trackers[latest].window == 1:
        # Behind windows the gap is theirs.
        t = cython.address(p.trackers[latest])
        gap = cython.cast(int64_t, offset) - cython.cast(int64_t, t.at)
        if leaves_out(gap) and gap == t.gap:
            found = latest
            step = p.areas[area].step = gap
        elif p.areas[area].step and gap and goes_on(p, area, t.at + p.areas[area].step, offset, p.areas[area].step):
            found = latest
            step = p.areas[area].step
    p.ticks += 1
    t = cython.address(p.trackers[found if found >= 0 else oldest])
    window: uint64_t = 1
    if hint == H_SEQUENTIAL:
        window = BATCH_PAGES
        direction = direction if direction else 1
    elif found >= 0 and hint != H_RANDOM and (step or t.window > 1 or not leaves_out(gap)):
        window = t.window * WINDOW_GROWTH
    if window > 1:
        most = most_ahead(p, area)
        window = most if window > most else window
        window = BATCH_PAGES if window > BATCH_PAGES else window
    if found < 0 and t.queued:
        t.queued = 0
        p.nr_queued -= 1
    t.used = p.ticks
    t.area = area
    t.window = cython.cast(uint32_t, window)
    t.is_write = is_write
    t.seen = page
    t.at = offset
    t.gap = gap
    t.step = step
    if step:
        t.direction = 0
        t.up = page + 1
        t.down = page - 1
        n[0] = along(p, t, run)
        return t
    count: uint64_t = 1
    if direction >= 0:
        while count < window and may_come(p, page + count, area):
            count += 1
        x = page
    else:
        while count < window and may_come(p, page - count, area):
            count += 1
        x = page - count + 1
    for i in range(cython.cast(cython.int, count)):
        run[i] = cython.cast(uint32_t, x + i)
    n[0] = count
    t.direction = direction
    t.up = x + count
    t.down = x - 1
    return t


def leaves_out(gap):
    """Whether faults so far apart leave out pages, at least now and then."""
    return gap > PAGE_BYTES or gap < -PAGE_BYTES


def goes_on(p, area, next, offset, step):
    """Whether an access is where a stream goes on that leaves out pages, or further on behind pages that are there."""
    ahead: int64_t = cython.cast(int64_t, offset) - cython.cast(int64_t, next)
    if ahead % step or ahead // step < 0 or ahead // step >= STREAM_SKIP:
        return 0
    while ahead:
        x: uint64_t = next // PAGE_BYTES
        if area_of(p, x) != area or (p.pages[x].state != P_RESIDENT and p.pages[x].state != P_COMING):
            return 0
        next += step
        ahead -= step
    return 1


def along(p, t, run):
    """The pages of the next window of a stream that leaves out some, its last fault's at the end; how many.

    While that one is waited for nobody is interrupted by what is done for the others.
    """
    count: uint64_t = 0
    i: uint64_t
    page: uint32_t = cython.cast(uint32_t, t.at // PAGE_BYTES)
    last: uint64_t = page
    t.next = t.at + t.step
    for i in range(STREAM_SKIP):
        x: uint64_t = t.next // PAGE_BYTES
        if count + 1 >= t.window or x >= p.nr_pages or area_of(p, x) != t.area:
            break
        if x != last and may_come(p, x, t.area):
            run[count] = cython.cast(uint32_t, x)
            count += 1
            last = x
        t.next += t.step
    run[count] = page
    return count + 1


def stream_over(p, page):
    """The tracker of a stream whose pages ahead include this one, which was just asked for; NULL when there is none."""
    i: cython.int
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if not t.used or not t.direction or t.area != p.pages[page].area:
            continue
        if t.direction > 0 and t.seen <= page < t.up or t.direction < 0 and t.down < page <= t.seen:
            t.seen = page
            return t
    return cython.NULL


def want_reading(p, t):
    """Have workers read ahead of a stream, when it is one and they are not at it already."""
    if t.queued or t.window < BATCH_PAGES or not t.direction or not p.nr_workers:
        return
    if p.areas[t.area].hint == H_RANDOM or ahead_of(t) >= most_ahead(p, t.area):
        return
    t.queued = 1
    p.nr_queued += 1
    pthread_cond_signal(cython.address(p.work))


def forget_streams(p, area):
    """Nobody reads ahead in an area any more: it is being freed, and its number and its pages will be another's."""
    i: cython.int
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if t.area != area:
            continue
        if t.queued:
            t.queued = 0
            p.nr_queued -= 1
        t.used = 0
        t.direction = 0


def claim(p, t, first, n):
    """The next window of a stream, for the caller to bring in; 0 when that is far enough, or the stream ends."""
    if not t.direction or ahead_of(t) >= most_ahead(p, t.area):
        return 0
    count: uint64_t = 0
    if t.direction > 0:
        while t.up - t.seen < STREAM_SKIP and p.pages[t.up].area == t.area and p.pages[t.up].state == P_RESIDENT:
            t.up += 1
        while count < BATCH_PAGES and may_come(p, t.up + count, t.area):
            count += 1
        first[0] = t.up
        t.up += count
    else:
        while t.seen - t.down < STREAM_SKIP and p.pages[t.down].area == t.area and p.pages[t.down].state == P_RESIDENT:
            t.down -= 1
        while count < BATCH_PAGES and may_come(p, t.down - count, t.area):
            count += 1
        first[0] = t.down - count + 1
        t.down -= count
    n[0] = count
    return count > 0
