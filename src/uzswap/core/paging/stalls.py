"""Who waits for memory, and for how long: pressure stall information of faults, after kernel/sched/psi.c.

A thread is stalled from its fault on a page that was swapped out, or is on its way out or in, until the page is there:
whoever brings it in, and whether that waits for an eviction, the device or the decompressor.  The first touch of a
page is no stall, unless it has to wait for an eviction.  What counts is known only later where pages come ahead of
their faults, so a thread that waits is noted at once, and stalled when its page is found to need room (squeezed()).

Each memcg and its ancestors know how many of the threads that had faults lately are stalled; the time in which some
are, and that in which all are, is added up whenever that number changes, so neither is more than the time that passed.

The faults of a thread begin when a serving thread has read of them: waits in the kernel's queue are not known.  The
caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import int64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import uz_monotonic_ns
from cython.cimports.uzswap.core.paging.areas import area_of
from cython.cimports.uzswap.core.paging.pagetable import (
    AT_ONCE,
    E_STALL,
    MOST_WAITERS,
    P_GOING,
    P_SQUEEZED,
    memcg_of,
    tell,
)
from cython.cimports.uzswap.core.store.entries import ROOT

# A thread belongs to the workload of a memcg for so long after its last fault there, in ns: one period of the averages
# (uzswap.cgroup.psi.PERIOD), as threads do that stall in front-ends.
WORKLOAD_NS = cython.declare(int64_t, 2_000_000_000)


def stalls_until(p, m, now):
    """Count the time since the state of a memcg changed, or was looked at, for the last time."""
    x = cython.address(p.memcgs[m])
    if now > x.since:
        if x.stalled:
            x.some_ns += now - x.since
            if x.stalled == x.members:
                x.full_ns += now - x.since
        x.since = now


def change(p, m, now, members, stalled):
    while True:
        stalls_until(p, m, now)
        p.memcgs[m].members += members
        p.memcgs[m].stalled += stalled
        if m == ROOT:
            return
        m = p.c.t.memcgs[m].parent


def stall(p, who, now, stalled):
    """A thread begins or ends to be stalled."""
    if who.stalled == stalled:
        return
    change(p, who.memcg, now, 0, stalled - who.stalled)
    who.stalled = stalled
    if stalled:
        tell(p, who.memcg, E_STALL)


def forget_idle(p, now):
    """Threads that had no fault for a period belong to no workload any more."""
    i: cython.int = 0
    while i < p.nr_waiters:
        who = cython.address(p.waiters[i])
        if who.page or who.seen + WORKLOAD_NS > now:
            i += 1
            continue
        change(p, who.memcg, who.seen + WORKLOAD_NS, -1, 0)
        p.nr_waiters -= 1
        who[0] = p.waiters[p.nr_waiters]


def waits(p, thread, page):
    """A thread waits for a page of an area; for what it waited before has ended."""
    i: cython.int
    x = cython.address(p.pages[page])
    memcg = memcg_of(p, area_of(p, page))
    now: int64_t = uz_monotonic_ns()
    forget_idle(p, now)
    for i in range(p.nr_waiters):
        if p.waiters[i].thread == thread:
            who = cython.address(p.waiters[i])
            break
    else:
        if p.nr_waiters == MOST_WAITERS:
            return  # so many others are counted that it makes no difference
        who = cython.address(p.waiters[p.nr_waiters])
        p.nr_waiters += 1
        who.thread = thread
        who.stalled = 0
        who.page = 0
        who.memcg = memcg
        memset(cython.address(who.latest[0]), 0, cython.sizeof(who.latest))
        who.turn = who.again = 0
        change(p, memcg, now, 1, 0)
    p.nr_waiting += who.page == 0
    counts: cython.int = x.entry != 0 or x.state == P_GOING or x.flags & P_SQUEEZED != 0
    if who.memcg != memcg:
        stall(p, who, now, 0)
        change(p, who.memcg, now, -1, 0)
        change(p, memcg, now, 1, 0)
        who.memcg = memcg
    who.page = page
    who.seen = now
    note(who, page)
    stall(p, who, now, counts)


def note(who, page):
    """A page becomes the latest of a thread's, unless it is among them: then that thread is where it was."""
    i: cython.int
    who.again = 0
    for i in range(AT_ONCE):
        if who.latest[i] == page:
            who.again = 1
            return
    who.latest[who.turn] = page
    who.turn = (who.turn + 1) % AT_ONCE


def is_needed(p, page):
    """Whether a page is among the latest that a thread has waited for which gets no further.

    An instruction that needs some pages at once is made again for each that comes.  If that one put out another of
    them, it would be made again for ever.
    """
    i: cython.int
    k: cython.int
    for i in range(p.nr_waiters):
        for k in range(AT_ONCE if p.waiters[i].again else 0):
            if p.waiters[i].latest[k] == page:
                return 1
    return 0


def squeezed(p, run, n):
    """Pages that are on their way in wait for an eviction, and so does whoever waits for them."""
    x: uint64_t
    i: cython.int
    for x in range(n):
        p.pages[run[x]].flags |= P_SQUEEZED
    now: int64_t = uz_monotonic_ns()
    for i in range(p.nr_waiters):
        who = cython.address(p.waiters[i])
        if who.page and p.pages[who.page].flags & P_SQUEEZED:
            stall(p, who, now, 1)


def who_waits(p, run, n):
    """A thread that waits for a page of a run; 0 for none."""
    i: cython.int
    x: uint64_t
    for i in range(p.nr_waiters if p.nr_waiting else 0):
        for x in range(n if p.waiters[i].page else 0):
            if p.waiters[i].page == run[x]:
                return p.waiters[i].thread
    return 0


def arrived(p, page):
    """Nobody waits for a page any more: it is there, or to be asked for again."""
    run: uint32_t = cython.cast(uint32_t, page)
    arrived_all(p, cython.address(run), 1)


def arrived_all(p, run, n):
    """arrived() for each page of a run."""
    i: cython.int
    x: uint64_t
    if not p.nr_waiting:
        return
    now: int64_t = uz_monotonic_ns()
    for i in range(p.nr_waiters):
        who = cython.address(p.waiters[i])
        for x in range(n if who.page else 0):
            if who.page == run[x]:
                stall(p, who, now, 0)
                who.page = 0
                who.seen = now
                p.nr_waiting -= 1
                break


def stalls_reparent(p, m, parent):
    """A memcg is being removed: its parent has counted its threads all along."""
    i: cython.int
    for i in range(p.nr_waiters):
        if p.waiters[i].memcg == m:
            p.waiters[i].memcg = parent
    x = cython.address(p.memcgs[m])
    x.members = x.stalled = 0
    x.some_ns = x.full_ns = 0
