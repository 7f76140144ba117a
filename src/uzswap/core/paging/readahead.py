"""Streams: which faults continue one, how much comes in with them, and what is read ahead of them.

A page comes in alone until a stream is recognised: faults that follow each other upwards or downwards (glibc's memcpy
goes backwards, too).  Its window then grows by four to BATCH_PAGES; when it is full, workers read ahead of the stream
on other CPUs.  A fixed window would be five times faster on streams and up to thirty times slower on random access,
where it evicts what is in use (PAGING 2 and 6).  The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
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
    memcg_of,
)
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_signal

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
    part = cython.cast(uint64_t, m.inactive.length + m.active.length) // BUDGET_PART
    if part < LEAST_AHEAD:
        return LEAST_AHEAD
    return part if part < AHEAD_PAGES else AHEAD_PAGES


def ahead_of(t):
    """Pages between a stream's last fault and the place where it goes on."""
    return t.up - t.seen if t.direction > 0 else t.seen - t.down


def stream_at(p, page, is_write, first, n):
    """A fault at a page that may come: what to bring in with it, and the tracker of its stream."""
    area = p.pages[page].area
    hint = p.areas[area].hint
    i: cython.int
    found: cython.int = -1
    oldest: cython.int = 0
    x: uint64_t
    direction: cython.int = 0
    for i in range(NR_TRACKERS):
        t = cython.address(p.trackers[i])
        if t.used < p.trackers[oldest].used:
            oldest = i
        if not t.used or t.area != area:
            continue
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
    p.ticks += 1
    t = cython.address(p.trackers[found if found >= 0 else oldest])
    window: uint64_t = 1
    if hint == H_SEQUENTIAL:
        window = BATCH_PAGES
        direction = direction if direction else 1
    elif found >= 0 and hint != H_RANDOM:
        window = t.window * WINDOW_GROWTH
    if window > 1:
        most = most_ahead(p, area)
        window = most if window > most else window
        window = BATCH_PAGES if window > BATCH_PAGES else window
    count: uint64_t = 1
    if direction >= 0:
        while count < window and may_come(p, page + count, area):
            count += 1
        first[0] = page
    else:
        while count < window and may_come(p, page - count, area):
            count += 1
        first[0] = page - count + 1
    n[0] = count
    if found < 0 and t.queued:
        t.queued = 0
        p.nr_queued -= 1
    t.used = p.ticks
    t.area = area
    t.window = cython.cast(uint32_t, window)
    t.direction = direction
    t.is_write = is_write
    t.seen = page
    t.up = first[0] + count
    t.down = first[0] - 1
    return t


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
