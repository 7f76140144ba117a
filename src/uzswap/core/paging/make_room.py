"""Making room: whose pages go, or whose compressed bytes, when a memcg is over a limit or close to it.

The rules of uzswap.reclaim, for those who cannot call Python: memcgs in turn, each spared what memory.min and
memory.low protect.
"""

import cython
from cython.cimports.libc.stdint import int64_t
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock, uz_read_int
from cython.cimports.uzswap.core.paging.page_out import (
    WRITE_BACK_BYTES,
    breathe,
    evict_picked,
    make_room_in_zswap,
)
from cython.cimports.uzswap.core.paging.pagetable import BATCH_PAGES, E_LOW, PAGE_BYTES, tell
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_broadcast, pthread_cond_signal, pthread_cond_wait
from cython.cimports.uzswap.core.paging.workingset import nr_listed, pick
from cython.cimports.uzswap.core.store.active import HAS_LRU, HAS_RESIDENT, Round, active_coldest, active_turn
from cython.cimports.uzswap.core.store.clean import clean_drop
from cython.cimports.uzswap.core.store.entries import C_RESIDENT, C_ZSWAP, MEMCG_ONLINE, NO_MEMCG
from cython.cimports.uzswap.core.store.protection import LOW_BREACHED, LOW_SPARED, unprotected
from cython.cimports.uzswap.core.store.state import WRITE_COLDEST, WRITE_NOTHING


def make_room(p, w, root, most, resident):
    """Bring a memcg that is over a limit, or close to it, about `most` pages down.  0 when nothing more can go.

    Where it is not a limit of resident memory alone, what is compressed counts as well.  If that could only grow, a
    budget would end up all compressed, and every fault would evict what the one before had brought; so it takes no
    more than half.
    """
    said: cython.int = 0
    gone = make_some_room(p, w, root, most, resident, 0, cython.address(said))
    if not gone and said & LOW_SPARED and others_land(p):
        gone = make_some_room(p, w, root, most, resident, 0, cython.address(said))
    if not gone and said & LOW_SPARED:
        gone = make_some_room(p, w, root, most, resident, 1, cython.address(said))
    return gone


def make_some_room(p, w, root, most, resident, take_low, said):
    """make_room() but for the second try, in which what memory.low protects goes too."""
    if not resident:
        counters = cython.address(p.c.t.memcgs[root].counters[0])
        pthread_mutex_lock(cython.address(p.c.lock))
        mostly_compressed: cython.bint = counters[C_ZSWAP] > counters[C_RESIDENT]
        pthread_mutex_unlock(cython.address(p.c.lock))
        if mostly_compressed:
            gone = (clean_drop(p.c, root, most * PAGE_BYTES, take_low) + PAGE_BYTES - 1) // PAGE_BYTES
            if gone or write_back_from(p, root, take_low, said):
                return gone if gone else 1
    gone = evict_some(p, w, root, most, not resident, take_low, said, 1)
    if gone or resident:
        return gone
    return write_back_from(p, root, take_low, said)


def evict_from(p, w, root, most, copies):
    """Evict up to `most` of the oldest resident pages of root's subtree, its memcgs in turn.  How many went.

    With copies, clean copies of the subtree go first: pages only when there are none.  What memory.low protects goes
    when there is nothing else.
    """
    said: cython.int = 0
    gone = evict_some(p, w, root, most, copies, 0, cython.address(said), 0)
    if not gone and said & LOW_SPARED and others_land(p):
        gone = evict_some(p, w, root, most, copies, 0, cython.address(said), 0)
    if not gone and said & LOW_SPARED:
        gone = evict_some(p, w, root, most, copies, 1, cython.address(said), 0)
    return gone


def evict_some(p, w, root, most, copies, take_low, said, sparing):
    """evict_from() but for the second try; adds to `said` whether memory.low has spared anything.

    Sparing leaves what threads have waited for last (pick()): what makes room for a fault does.
    """
    gone: int64_t = 0
    round: Round
    pages: int64_t
    if copies:
        gone = (clean_drop(p.c, root, most * PAGE_BYTES, take_low) + PAGE_BYTES - 1) // PAGE_BYTES
        if gone:
            return gone
    round.began = 0
    pthread_mutex_lock(cython.address(p.lock))
    while gone < most:
        if w.may_breathe:
            breathe(p)
        memcg = turn(p, root, HAS_RESIDENT, cython.address(p.evicted_after), cython.address(round))
        if memcg == NO_MEMCG:
            break
        m = cython.address(p.memcgs[memcg])
        listed: int64_t = nr_listed(m)
        if listed == 0:
            continue
        pages = may_go(p, memcg, root, listed, take_low, said)
        if pages > most - gone:
            pages = most - gone
        n = pick(p, w, memcg, BATCH_PAGES if pages > BATCH_PAGES else cython.cast(cython.int, pages), sparing)
        if n:
            n = evict_picked(p, w, n)
        if n:
            gone += n
            round.began = 0
    pthread_mutex_unlock(cython.address(p.lock))
    return gone


def may_go(p, memcg, root, n, take_low, said):
    """How much of `n` that a memcg has, pages or bytes, may go for root now; counts when memory.low is not kept.

    Called with the lock.
    """
    now: cython.int = 0
    pthread_mutex_lock(cython.address(p.c.lock))
    leaving = p.memcgs[memcg].leaving
    n = unprotected(cython.address(p.c.t), memcg, root, n, leaving, take_low, cython.address(now))
    pthread_mutex_unlock(cython.address(p.c.lock))
    if now & LOW_BREACHED and n:
        tell(p, memcg, E_LOW)
    said[0] |= now
    return n


def others_land(p):
    """Wait for an eviction of another thread, if any is under way: whether there was.

    Where all that may go is on its way, nothing is left, but not for long: it is too early for what is protected.
    """
    pthread_mutex_lock(cython.address(p.lock))
    under_way: cython.bint = p.nr_evicting != 0
    if under_way:
        pthread_cond_wait(cython.address(p.changed), cython.address(p.lock))
    pthread_mutex_unlock(cython.address(p.lock))
    return under_way


def write_back_from(p, root, take_low, said):
    """Write some of the oldest entries of a memcg of root's subtree back.  Whether any were.

    Which memcg's, the walk in use says (Core.fault_writeback): the one with the coldest entry first, or all in turn; or
    none.  What memory.min and memory.low protect, zswap included, is spared as by evict_some().
    """
    most: int64_t = 0
    round: Round
    round.began = 0
    how = uz_read_int(cython.address(p.c.fault_writeback))
    if how == WRITE_NOTHING:
        return 0
    first: cython.bint = how == WRITE_COLDEST
    while True:
        pthread_mutex_lock(cython.address(p.lock))
        memcg = coldest(p, root) if first else NO_MEMCG
        if memcg == NO_MEMCG:
            # In turn, too, when what is coldest may not go.
            memcg = turn(p, root, HAS_LRU, cython.address(p.wrote_after), cython.address(round))
        first = False
        if memcg != NO_MEMCG:
            pthread_mutex_lock(cython.address(p.c.lock))
            most = p.c.t.memcgs[memcg].counters[C_ZSWAP]
            pthread_mutex_unlock(cython.address(p.c.lock))
            most = may_go(p, memcg, root, most, take_low, said)
            if most > WRITE_BACK_BYTES:
                most = WRITE_BACK_BYTES
            if most > 0:
                p.nr_evicting += 1
                p.memcgs[memcg].leaving += most
        pthread_mutex_unlock(cython.address(p.lock))
        if memcg == NO_MEMCG:
            return 0
        if most <= 0:
            continue
        wrote = make_room_in_zswap(p, memcg, most)
        pthread_mutex_lock(cython.address(p.lock))
        p.nr_evicting -= 1
        # If it was removed meanwhile, what was on its way is its parent's.
        p.memcgs[online(p, memcg)].leaving -= most
        pthread_cond_broadcast(cython.address(p.changed))
        pthread_mutex_unlock(cython.address(p.lock))
        if wrote:
            return 1


def online(p, memcg):
    """Whom something belongs to that was a memcg's when that was online.  Called with the lock."""
    while p.c.t.memcgs[memcg].state != MEMCG_ONLINE:
        memcg = p.c.t.memcgs[memcg].parent
    return memcg


def turn(p, root, which, after, round):
    """active_turn() under the lock of the data plane, which Pager.lock is no substitute for."""
    c = p.c
    pthread_mutex_lock(cython.address(c.lock))
    memcg = active_turn(cython.address(c.t), root, which, which == HAS_LRU and c.enabled, after, round)
    pthread_mutex_unlock(cython.address(c.lock))
    return memcg


def coldest(p, root):
    pthread_mutex_lock(cython.address(p.c.lock))
    memcg = active_coldest(cython.address(p.c.t), root)
    pthread_mutex_unlock(cython.address(p.c.lock))
    return memcg


def want_shrinking(p, memcg):
    """Have workers evict from a memcg until room_in() says that there is room.  Called with the lock."""
    m = cython.address(p.memcgs[memcg])
    if m.shrinking or not p.nr_workers:
        return
    m.shrinking = 1
    m.next_shrinking = 0
    if p.first_shrinking:
        p.memcgs[p.last_shrinking].next_shrinking = memcg
    else:
        p.first_shrinking = memcg
    p.last_shrinking = memcg
    pthread_cond_signal(cython.address(p.work))
