"""The swap token: of several threads that take each other's pages away, one keeps its own.

Two threads each of which would fit in a budget, and both of which don't, evict each other's pages just before these are
wanted again, and neither gets on.  So one of them is given a token (S. Jiang, X. Zhang, Token-ordered LRU, Performance
Evaluation 60, 2005; mm/thrash.c of Linux 2.6.9 to 3.4): what comes back for it comes onto the active list, what comes
back for others does not.  They share an eighth of the memory (workingset.ACTIVE_RATIO) until it has done, which it soon
has, since it seldom waits any more; then another is given it.

A thread keeps the token while it runs, and for LIFE times as many evictions as there are pages.  There is none where
fewer than a quarter of the loads bring back what went a short while ago: nobody thrashes; where one thread alone has
these loads: there is nobody to keep from its pages; and where threads come back to the same leaves of the page table:
what they share is best kept for all (two threads with 90 % of their accesses to the same fifth of the pages: 6 % more
loads with the token, four threads 13 %, 2026-11).

Measured with polars, which takes rows of four columns by index in two threads, each column three quarters of the budget
(benchmarks/bench_cliffs, 2026-11): 60,000 to 130,000 pages loaded, where it was 610,000 to 2,600,000.

The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.uzswap.core.libc_ext import uz_monotonic_ns
from cython.cimports.uzswap.core.paging.pagetable import CONTENDERS, L_FOLLOWERS, LEAF_PAGES
from cython.cimports.uzswap.core.paging.uffd import uz_thread_cpu_ns

# Loads that are looked at together.
WINDOW = cython.declare(uint32_t, 1024)

# Of the list's length, evictions after which the token is passed on.
LIFE = cython.declare(uint32_t, 8)

# Loads after which the holder is looked at, and for how long it has not run then when it has done, in ns: a thread that
# waits for a CPU on a busy machine has not.
LOOK = cython.declare(uint32_t, 256)
DONE_NS = cython.declare(int64_t, 50_000_000)


def loaded(p, m, page, thread, came_back):
    """A page was loaded for a thread, 0 for none; it came back when it went less than a list's length ago."""
    of = cython.address(m.lrus[L_FOLLOWERS])
    k = cython.address(m.token)
    k.loads += 1
    if k.holder and k.loads >= LOOK:
        k.loads = 0
        if of.evictions - k.since >= LIFE * (of.inactive.length + of.active.length) or has_done(k):
            pass_on(p, m, 0)
    if k.holder or not thread:
        return
    if came_back:
        leaf = page // LEAF_PAGES
        k.back += 1
        k.shared += p.came_back_for[leaf] != thread
        p.came_back_for[leaf] = thread
        count(k, thread)
    if k.loads >= WINDOW:
        if thrashes(k):
            pass_on(p, m, choose(k))
        begin(k)


def thrashes(k):
    """Whether many loads bring back what went a short while ago, and each thread its own."""
    return 4 * k.back >= k.loads and 8 * k.shared <= k.back


def count(k, thread):
    """Count a page that came back for a thread: by Misra and Gries, where there are more threads than places."""
    i: cython.int
    for i in range(CONTENDERS):
        if k.threads[i] == thread:
            k.counts[i] += 1
            return
    for i in range(CONTENDERS):
        if not k.counts[i]:
            k.threads[i] = thread
            k.counts[i] = 1
            return
    for i in range(CONTENDERS):
        k.counts[i] -= 1


def choose(k):
    """The thread that is to have the token: the one most in need of it which has not had it last; 0 for none.

    Of what came back an eighth or more has to be for it, and as much for another.
    """
    i: cython.int
    best: cython.int = -1
    contenders: cython.int = 0
    for i in range(CONTENDERS):
        if 8 * k.counts[i] < k.back:
            continue
        contenders += 1
        if k.threads[i] != k.last and (best < 0 or k.counts[i] > k.counts[best]):
            best = i
    return k.threads[best] if contenders > 1 else 0


def begin(k):
    """Count anew."""
    i: cython.int
    k.loads = k.back = k.shared = 0
    for i in range(CONTENDERS):
        k.counts[i] = 0


def pass_on(p, m, thread):
    """Give the token to a thread, or to none; what others have on the active list takes its turn."""
    k = cython.address(m.token)
    of = cython.address(m.lrus[L_FOLLOWERS])
    if not thread and not k.holder:
        return
    if thread:
        p.swap_tokens += 1
        k.last = thread
        k.since = of.evictions
        k.ran = uz_thread_cpu_ns(thread)
        k.ran_at = uz_monotonic_ns()
    k.holder = thread
    m.to_let_go = of.active.length
    begin(k)


def has_done(k):
    """Whether the holder has not run lately, or is no more."""
    ran: int64_t = uz_thread_cpu_ns(k.holder)
    now: int64_t = uz_monotonic_ns()
    if ran < 0:
        return 1
    if ran != k.ran:
        k.ran = ran
        k.ran_at = now
    return now - k.ran_at >= DONE_NS
