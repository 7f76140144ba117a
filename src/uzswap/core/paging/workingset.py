"""Which resident pages go, and which stay: the lists of a memcg, and what a refault says.

The active and inactive lists follow the kernel's workingset idea: there are no accessed bits, so a page that is
faulted in again soon after its eviction is the one known to be in use (mm/workingset.c): it comes onto the active list,
whose oldest page makes room for it.

That fails where a program goes round and round over more than its budget: each page is wanted again just after it
went, and puts out the one that is wanted next, so that nothing is ever found.  There it is best to let the active list
be, and to let only a few onto it (BIP).  Which of the two a memcg needs is found out by set dueling (M. K. Qureshi et
al., Adaptive Insertion Policies for High Performance Caching, ISCA 2007): a few pages, picked by a hash, always go by
the first rule, as many by the second, each group with lists of its own and its share of the memory.  The others do as
those of these *leaders* who have fewer pages loaded.  When that is the first rule again, what was let be goes by turns.

Simulated with 4096 of 16384 pages resident; loads an access without the duel, and with it (2026-11): round and round
over 1.5 budgets 1.00, 0.43; over 2 1.00, 0.58; 90 % of accesses on 20 % of the pages 0.157, 0.158; Zipf 0.276, 0.276; a
hot half beside a scan 0.292, 0.293; another hot set every 15 budgets of accesses 0.152, 0.155; quicksort 0.257, 0.258;
ten rounds over what fits, just after many over what does not, 0.10, 0.35.

The caller holds Pager.lock.
"""

import cython
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    L_FOLLOWERS,
    L_KEEPERS,
    L_TURNERS,
    NR_LRUS,
    P_ACTIVE,
    P_GOING,
    P_LEADER,
    P_LISTED,
    P_STUCK,
    Token,
    length_of,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.stalls import is_needed
from cython.cimports.uzswap.core.paging.swap_token import kept_out, loaded

# Active pages for each inactive one, above which active pages are moved over.  The kernel has 1 below 1 GiB
# (mm/vmscan.c, inactive_is_low), but it finds out by accessed bits which inactive pages are in use.  Simulated without
# them (90 % of accesses on 20 % of the pages, a quarter resident, 2026-11): faults per access 0.185 at 1, 0.164 at 3,
# 0.156 at 7, 0.155 at 15; true LRU 0.127; Zipf, uniform, shifting sets and scans are the same or better at 7 than at 1.
ACTIVE_RATIO = cython.declare(uint32_t, 7)

# The same where the active list is let be: batches that are on their way out must not empty it.
KEPT_RATIO = cython.declare(uint32_t, 28)

# Of so few threads that get no further all pages they have waited for last stay: 64 KiB over a limit at most.
FEW_THREADS = cython.declare(cython.int, 4)

# Pages that the leaders for each rule may have resident.  They pay for what they find out: with 4096 resident a hot set
# that is always found beside a scan misses 0.3 % of the accesses to it with 32, 0.5 % with 64 (simulated, 2026-11).
LEADERS = cython.declare(uint32_t, 32)

# Fewer resident pages have no leaders, who would be too many of them.
LEAST_DUEL = cython.declare(uint32_t, 2048)

# Loads of leaders that are looked at together, and how many eighths of the second rule's the first has to have, to lose
# and to win again.  Which pages lead is luck, and a skewed load may have its hot ones in one of the two groups rather
# than the other: with less than a half between them that would decide.
DUEL_LOADS = cython.declare(uint32_t, 4 * 32)
LOSES = cython.declare(uint32_t, 12)
WINS = cython.declare(uint32_t, 10)

# Where the active list is let be, one page in so many comes onto it all the same: Qureshi's epsilon.
BIMODAL = cython.declare(uint32_t, 32)


def lru_of(m, x, page):
    if not x.flags & P_LEADER:
        return cython.address(m.lrus[L_FOLLOWERS])
    return cython.address(m.lrus[leads_for(page)])


def nr_listed(m):
    """Resident pages that may go."""
    return (
        length_of(cython.address(m.lrus[0]))
        + length_of(cython.address(m.lrus[1]))
        + length_of(cython.address(m.lrus[2]))
    )


def hash_of(page):
    """Neighbours, and pages at a stride, get hashes that have nothing in common (the steps of MurmurHash3's end)."""
    page ^= page >> 16
    page *= cython.cast(uint32_t, 0x85EBCA6B)
    page ^= page >> 13
    page *= cython.cast(uint32_t, 0xC2B2AE35)
    return page ^ page >> 16


def leads_for(page):
    return L_KEEPERS if hash_of(page) & 1 else L_TURNERS


def list_add(p, page):
    """Put a page where it is the last to go.  One that a system call uses comes when that is over (syscalls.py)."""
    x = cython.address(p.pages[page])
    if x.held:
        return
    of = lru_of(cython.address(p.memcgs[memcg_of(p, x.area)]), x, page)
    to = cython.address(of.active) if x.flags & P_ACTIVE else cython.address(of.inactive)
    x.prev = to.tail
    x.next = 0
    if to.tail:
        p.pages[to.tail].next = page
    else:
        to.head = page
    to.tail = page
    to.length += 1
    x.flags |= P_LISTED


def list_add_oldest(p, page):
    """Put a page where it is the next to go."""
    x = cython.address(p.pages[page])
    # Leaders go by turns with the others.
    x.flags = (x.flags | P_LISTED) & ~(P_ACTIVE | P_LEADER)
    to = cython.address(p.memcgs[memcg_of(p, x.area)].lrus[L_FOLLOWERS].inactive)
    x.prev = 0
    x.next = to.head
    if to.head:
        p.pages[to.head].prev = page
    else:
        to.tail = page
    to.head = page
    to.length += 1


def list_del(p, page):
    x = cython.address(p.pages[page])
    if not x.flags & P_LISTED:
        return
    lru = lru_of(cython.address(p.memcgs[memcg_of(p, x.area)]), x, page)
    of = cython.address(lru.active) if x.flags & P_ACTIVE else cython.address(lru.inactive)
    if x.prev:
        p.pages[x.prev].next = x.next
    else:
        of.head = x.next
    if x.next:
        p.pages[x.next].prev = x.prev
    else:
        of.tail = x.prev
    of.length -= 1
    x.flags &= ~P_LISTED


def keeps(m, which):
    """Whether lists let their active one be."""
    return m.keeping and not m.token.holder if which == L_FOLLOWERS else which == L_KEEPERS


def duel(m, which):
    """A page of leaders was loaded: what the others are to do from now on."""
    m.loads[which] += 1
    turned: uint32_t = m.loads[L_TURNERS]
    kept: uint32_t = m.loads[L_KEEPERS]
    if turned + kept < DUEL_LOADS:
        return
    keep: cython.bint = 8 * turned > (WINS if m.keeping else LOSES) * kept
    if m.keeping and not keep:
        m.to_let_go = m.lrus[L_FOLLOWERS].active.length
    elif keep:
        m.to_let_go = 0
    m.keeping = keep
    if turned + kept >= 2 * DUEL_LOADS:
        m.loads[L_TURNERS] = turned // 2
        m.loads[L_KEEPERS] = kept // 2


def deactivate_oldest(p, of):
    page = of.active.head
    list_del(p, page)
    p.pages[page].flags &= ~P_ACTIVE
    list_add(p, page)


def balance(p, of, ratio):
    """Refill the inactive list from the old end of the active one."""
    while of.active.length and of.inactive.length * ratio < of.active.length:
        deactivate_oldest(p, of)


def pick(p, w, memcg, most, sparing):
    """Take the oldest resident pages of a memcg off their lists, in the order of their addresses.  How many.

    Leaders go when they have more than their share, or when there is nobody else.  Sparing is what makes room for
    faults: what threads have waited for last stays that get no further, but where there are many of them, and nothing
    else: there it takes chance to meet the other page of an instruction, each time that it is made again.
    """
    m = cython.address(p.memcgs[memcg])
    n: cython.int = 0
    k: cython.int
    let_go(p, m, most)
    for k in range(L_FOLLOWERS + 1, NR_LRUS):
        length = length_of(cython.address(m.lrus[k]))
        if length > LEADERS:
            spare = n + cython.cast(cython.int, length - LEADERS)
            n = pick_of(p, w, m, k, n, spare if spare < most else most, sparing)
    for k in range(NR_LRUS):
        n = pick_of(p, w, m, k, n, most, sparing)
    for k in range(NR_LRUS if sparing and not n and p.nr_waiters > FEW_THREADS else 0):
        n = pick_of(p, w, m, k, n, most, 0)
    return n


def let_go(p, m, n):
    """Pages that were let be take their turn: as many as go."""
    of = cython.address(m.lrus[L_FOLLOWERS])
    while n > 0 and m.to_let_go and of.active.length:
        n -= 1
        m.to_let_go -= 1
        deactivate_oldest(p, of)


def pick_of(p, w, m, which, n, most, sparing):
    """pick() from the lists of some; returns how many are picked now, of which there were n."""
    most = BATCH_PAGES if most > BATCH_PAGES else most
    if n >= most:
        return n
    of = cython.address(m.lrus[which])
    balance(p, of, KEPT_RATIO if keeps(m, which) else ACTIVE_RATIO)
    left = of.inactive.length
    while n < most and left > 0:
        left -= 1
        page = of.inactive.head
        x = cython.address(p.pages[page])
        list_del(p, page)
        if x.flags & P_STUCK and x.stuck:
            # It comes round again once for each step of its back-off.
            x.stuck -= 1
            list_add(p, page)
            continue
        if sparing and is_needed(p, page):
            list_add(p, page)
            continue
        x.state = P_GOING
        i = n
        while i > 0 and w.picks[i - 1] > page:
            w.picks[i] = w.picks[i - 1]
            i -= 1
        w.picks[i] = page
        n += 1
    return n


def evicted(m, x, page):
    """A page has gone: it notes when."""
    of = lru_of(m, x, page)
    of.evictions += 1
    x.prev = of.evictions


def comes_back(p, m, page, is_ahead, thread):
    """A page is resident again: whether it comes onto the active list.

    Evicted less than a list's length ago means that it was evicted too early (mm/workingset.c).  Nobody has asked for
    what is read ahead yet; where the active list is let be, it may come there none the less.  While a thread has the
    swap token, it does not for others who contend with it.
    """
    x = cython.address(p.pages[page])
    of = lru_of(m, x, page)
    which: cython.int = L_FOLLOWERS
    if x.flags & P_LEADER:
        which = leads_for(page)
        duel(m, which)
    soon: cython.bint = of.evictions - x.prev <= length_of(of)
    if which == L_FOLLOWERS and not is_ahead:
        loaded(p, m, page, thread, soon)
    if not keeps(m, which):
        if not is_ahead and soon and not (which == L_FOLLOWERS and kept_out(cython.address(m.token), thread)):
            x.flags |= P_ACTIVE
        return
    if of.active.length < ACTIVE_RATIO * of.inactive.length:
        x.flags |= P_ACTIVE
        return
    m.passed_over += 1
    if m.passed_over >= BIMODAL and of.active.length:
        m.passed_over = 0
        deactivate_oldest(p, of)
        x.flags |= P_ACTIVE


def settles(m, x, page, alone):
    """A page that is on no list is going to be on one: whose, is decided anew.

    Of a window of neighbours none leads: it would break up what is moved in one go, there and back (sequential reads of
    four budgets of 32 MiB: 1.25 of the CPU time, 2026-11).
    """
    x.flags &= ~P_LEADER
    if not alone:
        return
    listed: uint64_t = nr_listed(m)
    if listed >= LEAST_DUEL and hash_of(page) * listed < cython.cast(uint64_t, 2 * LEADERS) << 32:
        x.flags |= P_LEADER


def pages_reparent(p, m, parent):
    """A memcg is being removed: its pages go to the old end of its parent's lists, as entries do."""
    a: uint32_t
    mine = cython.address(p.memcgs[m])
    theirs = cython.address(p.memcgs[parent])
    lists_reparent(p, mine, theirs)
    theirs.leaving += mine.leaving
    mine.leaving = 0
    for a in range(1, p.next_area):
        if p.areas[a].used and p.areas[a].memcg == m:
            p.areas[a].memcg = parent


def lists_reparent(p, mine, theirs):
    """pages_reparent() for the lists alone."""
    k: cython.int
    for k in range(NR_LRUS):
        splice(p, cython.address(mine.lrus[k].inactive), cython.address(theirs.lrus[k].inactive))
        splice(p, cython.address(mine.lrus[k].active), cython.address(theirs.lrus[k].active))
        mine.lrus[k].evictions = 0
    mine.loads[L_TURNERS] = mine.loads[L_KEEPERS] = 0
    mine.keeping = 0
    mine.to_let_go = 0
    memset(cython.address(mine.token), 0, cython.sizeof(Token))


def splice(p, mine, theirs):
    if mine.length == 0:
        return
    p.pages[mine.tail].next = theirs.head
    if theirs.head:
        p.pages[theirs.head].prev = mine.tail
    else:
        theirs.tail = mine.tail
    theirs.head = mine.head
    theirs.length += mine.length
    mine.head = mine.tail = mine.length = 0
