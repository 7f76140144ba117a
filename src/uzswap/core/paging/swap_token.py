"""The swap token: of several threads that take each other's pages away, one keeps its own.

Two threads each of which would fit in a budget, and both of which don't, evict each other's pages just before these are
wanted again, and neither gets on.  So one of them is given a token (S. Jiang, X. Zhang, Token-ordered LRU, Performance
Evaluation 60, 2005; mm/thrash.c of Linux 2.6.9 to 3.4): what comes back for it comes onto the active list, what comes
back for the others who thrash does not.  They share an eighth of the memory (workingset.ACTIVE_RATIO) until it has
done, which it soon has, since it seldom waits any more; then another is given it.  Who has few loads of its own, as a
thread with a small hot set, is left alone: it has the active list as ever (a tenth of the budget beside two that
thrash: 0.013 loads an access, 0.16 without the active list, 2026-11).

A thread keeps the token while it runs, and for LIFE times as many evictions as there are pages.  Then nobody has it for
as many evictions as there are pages, until the lists are what they are without it; and as many loads are looked at.
There is no token where

- fewer than five of eight of these bring back what went a short while ago: nobody thrashes, or what is not at hand is
  what is seldom wanted.  With hot sets that all fit a third to a half of the loads come back, since what is cold also
  does; a token would put out all hot sets but one (two to four threads, at a given rate of accesses, 2026-11: 1.4 to
  1.6 times the loads).  The same while hot sets come in, for which the wait is;
- one thread alone has these loads: there is nobody to keep from its pages;
- threads come back to the same leaves of the page table: what they share is best kept for all (two threads with 90 % of
  their accesses to the same fifth of the pages: 6 % more loads with the token, four threads 13 %, 2026-11).

Measured with polars, which takes rows of four columns by index in two threads, each column three quarters of the budget
(benchmarks/bench_cliffs, 2026-11): 75,000 to 85,000 pages loaded, where it was 610,000 to 2,600,000.  What it loses
with: hot sets that fit just so, each of which changes before a token has had its life (four threads with a quarter of
the budget each, another one every 16 times as many accesses: 1.05 to 1.2 times the loads), and hot sets
that fit beside little that is cold (two of 0.3 of the budget, 0.9 cold for each with 3 % of the accesses: 1.2 times
where threads serve their own faults).

The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.uzswap.core.libc_ext import uz_monotonic_ns
from cython.cimports.uzswap.core.paging.pagetable import CONTENDERS, L_FOLLOWERS, LEAF_PAGES, length_of
from cython.cimports.uzswap.core.paging.uffd import uz_thread_cpu_ns

# Loads that are looked at together, or as many as there are pages: at least.
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
    since: uint32_t = of.evictions - k.since
    if k.holder:
        k.loads += 1
        if k.loads >= LOOK:
            k.loads = 0
            if since >= LIFE * length_of(of) or has_done(k):
                take_back(m)
        return
    if since < length_of(of):
        return
    k.loads += 1
    if not thread:
        return
    if came_back:
        leaf = page // LEAF_PAGES
        k.back += 1
        k.shared += p.came_back_for[leaf] != thread
        p.came_back_for[leaf] = thread
        count(k, thread)
    if k.loads >= WINDOW and k.loads >= length_of(of):
        chosen = choose(k) if thrashes(k) else 0
        if chosen:
            p.swap_tokens += 1
            give(m, chosen)
        else:
            begin(k)


def kept_out(k, thread):
    """Whether what comes back for a thread makes way for the holder's: it was one of those who thrashed."""
    i: cython.int
    for i in range(CONTENDERS if k.holder and k.holder != thread else 0):
        if k.threads[i] == thread:
            return contends(k, i)
    return 0


def contends(k, i):
    """Whether an eighth or more of what came back was for a thread."""
    return 8 * k.counts[i] >= k.back


def thrashes(k):
    """Whether most loads bring back what went a short while ago, and each thread its own."""
    return 8 * k.back >= 5 * k.loads and 8 * k.shared <= k.back


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

    It has to contend for its pages, and another one with it.
    """
    i: cython.int
    best: cython.int = -1
    contenders: cython.int = 0
    for i in range(CONTENDERS):
        if not contends(k, i):
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


def give(m, thread):
    """Give the token to a thread; what there is on the active list takes its turn.  Who contended stays counted."""
    k = cython.address(m.token)
    of = cython.address(m.lrus[L_FOLLOWERS])
    k.holder = k.last = thread
    k.loads = 0
    k.since = of.evictions
    k.ran = uz_thread_cpu_ns(thread)
    k.ran_at = uz_monotonic_ns()
    m.to_let_go = of.active.length


def take_back(m):
    """Nobody has the token; what there is on the active list takes its turn."""
    k = cython.address(m.token)
    of = cython.address(m.lrus[L_FOLLOWERS])
    k.holder = 0
    k.since = of.evictions
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
