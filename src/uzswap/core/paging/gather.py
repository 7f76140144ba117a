"""Copying rows of an array from or to memory elsewhere, without a fault for each page and without displacing any.

Pages that are there are copied where they are.  Of those that are swapped out, up to BATCH_PAGES at a time are claimed
(P_COMING: whoever touches them waits) and decompressed into the thread's own frames; those of the device are read in
the order in which they lie there.  A gather then gives them back as they were; a scatter changes the copies, stores
them anew and drops the old ones.  What cannot be had in this way (on its way in or out just now, or refused by the
pool) is reached as the program reaches it, by a fault.

While pages are claimed no memory of the program is touched: its faults could need what waits for these pages.  Nor is
it touched within the gate, for which a fault waits when a fork has shut it.
"""

import cython
from cython.cimports.libc.errno import EAGAIN, EBUSY, EIO, ENOMEM, ESTALE
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.page_out import has_gone, store_run
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    P_COMING,
    P_LOST,
    P_NONE,
    P_SWAPPED,
    P_WANTED,
    PAGE_BYTES,
    handle_at,
    memcg_of,
)
from cython.cimports.uzswap.core.paging.uffd import pthread_cond_broadcast
from cython.cimports.uzswap.core.store.swap_in import free_entries, swap_in

# copy_pieces(direction, which)
FROM_ARRAY = cython.declare(cython.int, 0)
INTO_ARRAY = cython.declare(cython.int, 1)
INTO_BUFFER = cython.declare(cython.int, 2)
ALL_PAGES = cython.declare(cython.int, 0)
LOADED_PAGES = cython.declare(cython.int, 1)
OTHER_PAGES = cython.declare(cython.int, 2)


def gather(p, w, g):
    """Copy spans of an array to g.memory.  g.error and g.failed say when bytes of it cannot be read."""
    g.error = 0
    g.piece = 0
    pieces = g.n * cython.cast(int64_t, (g.length + PIECE_BYTES - 1) // PIECE_BYTES)
    while g.piece < pieces and not g.error:
        choose(g)
        uz_enter(cython.address(p.gate))
        claim_swapped(p, w, g)
        load_claimed(p, w, g)
        release_claimed(p, w, g, 0)
        uz_leave(cython.address(p.gate))
        if not g.error:
            copy_pieces(p, w, g, FROM_ARRAY, ALL_PAGES)
        g.piece = g.end


def scatter(p, w, g):
    """Copy g.memory into spans of an array, in order.  An error leaves the batch in which it was met as it was."""
    g.error = 0
    g.piece = 0
    pieces = g.n * cython.cast(int64_t, (g.length + PIECE_BYTES - 1) // PIECE_BYTES)
    while g.piece < pieces and not g.error:
        choose(g)
        copy_pieces(p, w, g, INTO_BUFFER, ALL_PAGES)
        uz_enter(cython.address(p.gate))
        claim_swapped(p, w, g)
        load_claimed(p, w, g)
        if g.error or not g.nr_loaded:
            release_claimed(p, w, g, 0)
        else:
            copy_pieces(p, w, g, INTO_ARRAY, LOADED_PAGES)
            store_claimed(p, w, g)
            release_claimed(p, w, g, 1)
        uz_leave(cython.address(p.gate))
        if not g.error:
            copy_pieces(p, w, g, INTO_ARRAY, OTHER_PAGES)
        g.piece = g.end


def begin_of(g, piece, length, memory):
    """Where a piece begins in the area, in bytes; how long it is, and where its copy is."""
    per_span = cython.cast(int64_t, (g.length + PIECE_BYTES - 1) // PIECE_BYTES)
    span = piece // per_span
    skipped: uint64_t = cython.cast(uint64_t, piece % per_span) * PIECE_BYTES
    length[0] = g.length - skipped if g.length - skipped < PIECE_BYTES else PIECE_BYTES
    memory[0] = g.memory + g.places[span] + skipped
    return g.begins[span] + skipped


def place_in(g, page):
    """Which page of the batch it is, or -1."""
    low: cython.int = 0
    high: cython.int = g.nr_pages
    while low < high:
        middle = (low + high) // 2
        if g.page[middle] < page:
            low = middle + 1
        else:
            high = middle
    return low if low < g.nr_pages and g.page[low] == page else -1


def fits(g, first, last):
    """Add pages to the batch, unless there are too many, or they are before its last one and not in it."""
    page: uint64_t
    known: uint64_t = g.page[g.nr_pages - 1] if g.nr_pages else 0
    new: uint64_t = first if g.nr_pages == 0 or first > known else known + 1
    if g.nr_pages and first <= known:
        for page in range(first, (last if last < known else known) + 1):
            if place_in(g, page) < 0:
                return 0
    if last >= new and last - new >= cython.cast(uint64_t, BATCH_PAGES - g.nr_pages):
        return 0
    for page in range(new, last + 1):
        g.page[g.nr_pages] = page
        g.slot[g.nr_pages] = ELSEWHERE
        g.nr_pages += 1
    return 1


def choose(g):
    """Make up a batch: pieces from g.piece on, whose pages fit."""
    pieces = g.n * cython.cast(int64_t, (g.length + PIECE_BYTES - 1) // PIECE_BYTES)
    nbytes: uint64_t = 0
    length: uint64_t = 0
    memory: cython.p_char = cython.NULL
    g.nr_pages = 0
    g.end = g.piece
    while g.end < pieces and g.end - g.piece < MOST_PIECES:
        begin = begin_of(g, g.end, cython.address(length), cython.address(memory))
        nbytes += length
        first = g.first + begin // PAGE_BYTES
        if nbytes > GATHER_BYTES or not fits(g, first, g.first + (begin + length - 1) // PAGE_BYTES):
            break
        g.end += 1


def claim_swapped(p, w, g):
    """Claim what is swapped out of the batch: each such page has a slot then.  What is lost is an error."""
    i: cython.int
    g.nr_loaded = 0
    pthread_mutex_lock(cython.address(p.lock))
    for i in range(g.nr_pages):
        x = cython.address(p.pages[g.page[i]])
        if x.state == P_LOST and not g.error:
            g.error = EIO
            g.failed = g.page[i]
        if x.state == P_NONE and not x.gone:
            g.slot[i] = NOUGHT
        if x.state != P_SWAPPED or x.gone or not x.entry:
            continue
        x.state = P_COMING
        x.flags &= ~P_WANTED
        w.handles[g.nr_loaded] = handle_at(p, g.page[i])
        w.picks[g.nr_loaded] = cython.cast(uint32_t, g.page[i])
        g.old[g.nr_loaded] = w.handles[g.nr_loaded]
        g.slot[i] = g.nr_loaded
        g.nr_loaded += 1
    pthread_mutex_unlock(cython.address(p.lock))


def load_claimed(p, w, g):
    """Decompress what was claimed into w.scratch.  g.error says when bytes are lost for good."""
    i: cython.int
    loaded: cython.int = 0
    if g.error or not g.nr_loaded:
        return
    load = cython.address(w.load)
    load.handles = w.handles
    load.n = g.nr_loaded
    load.spans = cython.NULL
    load.out = w.scratch
    load.nbytes = cython.cast(uint64_t, g.nr_loaded) * PAGE_BYTES
    load.page = PAGE_BYTES
    load.consume = 0
    swap_in(p.c, load)
    if not load.error:
        return
    # One of them is in the way of all.
    load.n = 1
    load.nbytes = PAGE_BYTES
    for i in range(g.nr_pages):
        slot = g.slot[i]
        if slot < 0:
            continue
        load.handles = w.handles + slot
        load.out = w.scratch + loaded * PAGE_BYTES
        swap_in(p.c, load)
        if load.error:
            # What stands in the way for a moment only is waited for in a fault.
            if load.error not in (EAGAIN, EBUSY, ENOMEM, ESTALE) and not g.error:
                g.error = load.error
                g.failed = g.page[i]
            unclaim(p, g.page[i])
            g.slot[i] = ELSEWHERE
            continue
        w.handles[loaded] = g.old[loaded] = w.handles[slot]
        w.picks[loaded] = w.picks[slot]
        g.slot[i] = loaded
        loaded += 1
    g.nr_loaded = loaded


def unclaim(p, page):
    pthread_mutex_lock(cython.address(p.lock))
    p.pages[page].state = P_SWAPPED
    has_gone(p, cython.cast(uint32_t, page))
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))


def store_claimed(p, w, g):
    """Store the changed copies: w.handles says what became of each."""
    pthread_mutex_lock(cython.address(p.lock))
    memcg = memcg_of(p, p.pages[g.page[0]].area)
    pthread_mutex_unlock(cython.address(p.lock))
    i: cython.int
    for i in range(g.nr_loaded):
        w.handles[i] = 0
    store_run(p, w, 0, g.nr_loaded, memcg, w.scratch)


def release_claimed(p, w, g, replaced):
    """Give claimed pages back: as they were, or with what was stored anew in their stead."""
    i: cython.int
    dropped: cython.int = 0
    ignored: cython.int = 0
    if not g.nr_loaded:
        return
    pthread_mutex_lock(cython.address(p.lock))
    for i in range(g.nr_pages):
        slot = g.slot[i]
        if slot < 0:
            continue
        x = cython.address(p.pages[g.page[i]])
        x.state = P_SWAPPED
        if replaced and w.handles[slot]:
            x.entry = cython.cast(uint32_t, w.handles[slot])
            g.old[dropped] = g.old[slot]
            dropped += 1
        elif replaced:
            # Refused: a fault finds a place for it.
            g.slot[i] = ELSEWHERE
        has_gone(p, cython.cast(uint32_t, g.page[i]))
    pthread_cond_broadcast(cython.address(p.changed))
    pthread_mutex_unlock(cython.address(p.lock))
    if dropped:
        free_entries(p.c, g.old, dropped, cython.address(ignored))


def copy_pieces(p, w, g, direction, which):
    """Copy the pieces of the batch, those parts of them that lie in some of its pages.

    A scatter copies by way of its buffer, in which the pieces lie one after the other.
    """
    q: int64_t
    begin: uint64_t
    length: uint64_t = 0
    memory: cython.p_char = cython.NULL
    buffered: cython.p_char = g.buffer
    for q in range(g.piece, g.end):
        begin = begin_of(g, q, cython.address(length), cython.address(memory))
        if direction == INTO_BUFFER:
            memcpy(buffered, memory, length)
            buffered += length
            continue
        if direction == INTO_ARRAY:
            memory = buffered
            buffered += length
        while length:
            within = begin % PAGE_BYTES
            part = PAGE_BYTES - within if PAGE_BYTES - within < length else length
            page = g.first + begin // PAGE_BYTES
            slot = g.slot[place_in(g, page)]
            if which == ALL_PAGES or (which == LOADED_PAGES) == (slot >= 0):
                at = p.base + page * PAGE_BYTES
                if slot >= 0:
                    at = w.scratch + slot * PAGE_BYTES
                elif slot == NOUGHT and direction == FROM_ARRAY:
                    at = p.zeros
                if direction == FROM_ARRAY:
                    memcpy(memory, at + within, part)
                else:
                    memcpy(at + within, memory, part)
            begin += part
            memory += part
            length -= part
