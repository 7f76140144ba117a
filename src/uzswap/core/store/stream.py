"""From the pool to the device: streams of flights, and the cleaner, which is one more stream.

A stream gathers records into one flight while the device writes the other.  An entry that is gathered is off its LRU
and marked WRITING; its copy in the pool stays, and it stays loadable, until the flight has landed.  Then
settle_written() decides, entry by entry, under the lock: moved to disk, or (write failed, or a load holds it) back on
its LRU.
"""

import cython
from cython.cimports.libc.errno import ENOMEM, ENOSPC
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, malloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.device.device import (
    BLOCK,
    NO_SEGMENT,
    RESERVE,
    SEG_SEALED,
    SEGMENT_BYTES,
    SEGMENT_SHIFT,
    offset_of,
    segment_begin,
    segment_maybe_free,
    segment_put,
    segment_take,
    segment_to_clean,
    segments_init,
)
from cython.cimports.uzswap.core.device.device_io import DeviceIO, device_io_begin, device_io_wait, device_read
from cython.cimports.uzswap.core.device.lending import leases_look
from cython.cimports.uzswap.core.device.record import (
    Record,
    Sealer,
    is_padding,
    record_bytes,
    record_open,
    record_peek,
    sealer_begin,
    sealer_end,
    secret_new,
)
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_lock,
    pthread_mutex_unlock,
    uz_io_setup,
    uz_private,
    uz_private_free,
)
from cython.cimports.uzswap.core.store.entries import (
    HELD,
    ON_DISK,
    WRITING,
    entry_at,
    handle_of,
    lru_add_tail,
    owner_of,
)
from cython.cimports.uzswap.core.store.flight import flight_settle, flight_submit
from cython.cimports.uzswap.core.store.state import FLIGHT_ITEMS, NR_FLIGHTS, Item, idle_free, stream_free
from cython.cimports.uzswap.core.store.swap_cache import swap_cache_shrink

# Streams and flights


def stream_get(c):
    """A stream for one request; NULL without memory."""
    homeless: cython.bint = device_own(c) != 0
    pthread_mutex_lock(cython.address(c.lock))
    s = c.streams
    if s != cython.NULL:
        c.streams = s.next
    pthread_mutex_unlock(cython.address(c.lock))
    i: cython.int
    if s == cython.NULL:
        s = cython.cast(cython.pointer(Stream), calloc(1, cython.sizeof(Stream)))
        if s == cython.NULL:
            return s
        for i in range(NR_FLIGHTS):
            s.flights[i].buf = cython.cast(cython.p_char, uz_private(SEGMENT_BYTES))
            s.flights[i].items = cython.cast(cython.pointer(Item), malloc(FLIGHT_ITEMS * cython.sizeof(Item)))
            if s.flights[i].buf == cython.NULL or s.flights[i].items == cython.NULL:
                stream_free(s)
                return cython.NULL
        # Without AIO (a seccomp filter, aio-max-nr used up) writes are simply synchronous.
        s.has_aio = c.device.io.direct and uz_io_setup(NR_FLIGHTS, cython.address(s.aio)) == 0
        if s.has_aio:
            pthread_mutex_lock(cython.address(c.lock))
            c.has_aio = 1
            pthread_mutex_unlock(cython.address(c.lock))
    s.segment = NO_SEGMENT
    s.current = 0
    s.for_cleaning = s.proactive = s.no_space = s.error = 0
    s.entries = s.nbytes = s.failed = s.gone = 0
    s.handles = cython.NULL
    for i in range(NR_FLIGHTS):
        s.flights[i].n = s.flights[i].fill = 0
        s.flights[i].segment = NO_SEGMENT
        s.flights[i].under_way = 0
    s.no_space = homeless
    pthread_mutex_lock(cython.address(c.lock))
    s.next = c.used
    c.used = s
    pthread_mutex_unlock(cython.address(c.lock))
    return s


def device_own(c):
    """A forked child makes a file of its own when it first writes.  0 or -errno."""
    d = cython.address(c.device)
    if d.nr:
        return 0
    failed: cython.int = 0 if d.most else -ENOSPC
    pthread_mutex_lock(cython.address(c.cleaning))
    if not failed and not d.nr:
        memset(cython.address(d.io), 0, cython.sizeof(DeviceIO))
        d.io.fd = d.io.also = -1
        d.io.directory = d.directory
        d.io.nbytes = cython.cast(uint64_t, d.most) << SEGMENT_SHIFT
        secret_new(cython.address(d.secret))
        failed = device_io_begin(cython.address(d.io))
        if not failed:
            failed = device_io_wait(cython.address(d.io))
        if not failed:
            pthread_mutex_lock(cython.address(c.lock))
            failed = segments_init(d)
            pthread_mutex_unlock(cython.address(c.lock))
    pthread_mutex_unlock(cython.address(c.cleaning))
    return failed


def not_used(c, s):
    """Take a stream off the list of those that somebody has.  Called with the lock."""
    at = cython.address(c.used)
    while at[0] != s:
        at = cython.address(at[0].next)
    at[0] = s.next


def stream_put(c, s):
    """Hand a finished stream back."""
    pthread_mutex_lock(cython.address(c.lock))
    not_used(c, s)
    if s.segment != NO_SEGMENT:
        segment_put(cython.address(c.device), s.segment)
        s.segment = NO_SEGMENT
    s.next = c.streams
    c.streams = s
    pthread_mutex_unlock(cython.address(c.lock))


def stream_fits(s, length):
    f = cython.address(s.flights[s.current])
    if f.segment == NO_SEGMENT or f.n == FLIGHT_ITEMS:
        return 0
    return f.start + f.fill + record_bytes(length) <= SEGMENT_BYTES


def stream_append(s, c, index, bytes, position):
    """Copy an entry's bytes into the current flight, which has room.  It is sealed later, outside the lock."""
    e = cython.address(c.t.entries[index])
    f = cython.address(s.flights[s.current])
    length = cython.cast(uint32_t, e.length_1) + 1
    item = cython.address(f.items[f.n])
    item.index = index
    item.gen = e.gen
    item.offset = f.start + f.fill
    item.position = position
    r = cython.cast(cython.pointer(Record), f.buf + f.fill)
    r.handle = handle_of(cython.address(c.t), index)
    r.length = length
    r.size = cython.cast(uint32_t, e.size_1) + 1
    memset(f.buf + f.fill + record_bytes(length) - 8, 0, 8)
    memcpy(f.buf + f.fill + cython.sizeof(Record), bytes, length)
    f.fill += record_bytes(length)
    f.n += 1


def stream_advance(c, s, length):
    """Make room for a record of `length` bytes: submit the current flight, go on in the next.  0, or ENOSPC.

    Called without the lock.  On ENOSPC the room that is left in the current segment stays usable for smaller records.
    """
    d = cython.address(c.device)
    f = cython.address(s.flights[s.current])
    need = record_bytes(length)
    start: uint32_t = 0
    if f.n:
        start = (f.start + f.fill + BLOCK - 1) & ~cython.cast(uint32_t, BLOCK - 1)
        pthread_mutex_lock(cython.address(c.lock))
        d.segments[f.segment].pins += 1
        d.segments[f.segment].used = start
        pthread_mutex_unlock(cython.address(c.lock))
        flight_submit(c, s, f)
        s.current = (s.current + 1) % NR_FLIGHTS
        f = cython.address(s.flights[s.current])
        if f.under_way:
            flight_settle(c, s, f)
    elif s.segment != NO_SEGMENT:
        start = f.start
    full: cython.bint = s.segment == NO_SEGMENT or start + need > SEGMENT_BYTES
    while full:
        pthread_mutex_lock(cython.address(c.lock))
        if d.nr_lent and d.nr_free <= RESERVE:
            leases_look(d)
        fresh = segment_take(d, need, s.for_cleaning)
        if fresh != NO_SEGMENT and s.segment != NO_SEGMENT:
            segment_put(d, s.segment)
        pthread_mutex_unlock(cython.address(c.lock))
        if fresh != NO_SEGMENT:
            s.segment = fresh
            start = d.segments[fresh].used
            break
        if not s.for_cleaning and room_made(c):
            continue
        if s.for_cleaning or clean_one(c):
            s.no_space = 1
            break
    f.segment = s.segment
    f.start = start
    f.n = f.fill = 0
    return ENOSPC if s.no_space else 0


def room_made(c):
    """Whether something went that the device need not keep."""
    pthread_mutex_lock(cython.address(c.lock))
    gone = swap_cache_shrink(c)
    pthread_mutex_unlock(cython.address(c.lock))
    return gone > 0


def stream_finish(c, s):
    """Submit what is gathered and wait for all of it.  The stream's results are final afterwards."""
    d = cython.address(c.device)
    i: cython.int
    f = cython.address(s.flights[s.current])
    if f.n and not f.under_way:
        pthread_mutex_lock(cython.address(c.lock))
        d.segments[f.segment].pins += 1
        d.segments[f.segment].used = (f.start + f.fill + BLOCK - 1) & ~cython.cast(uint32_t, BLOCK - 1)
        pthread_mutex_unlock(cython.address(c.lock))
        flight_submit(c, s, f)
    for i in range(NR_FLIGHTS):
        f = cython.address(s.flights[(s.current + 1 + i) % NR_FLIGHTS])
        if f.under_way:
            flight_settle(c, s, f)
        f.segment = NO_SEGMENT
    if s.segment != NO_SEGMENT:
        pthread_mutex_lock(cython.address(c.lock))
        segment_put(d, s.segment)
        s.segment = NO_SEGMENT
        pthread_mutex_unlock(cython.address(c.lock))


# Cleaning


def clean_one(c):
    """Move the live records out of the emptiest segment.  0 when that set it free, else ENOSPC or an errno."""
    d = cython.address(c.device)
    t = cython.address(c.t)
    pthread_mutex_lock(cython.address(c.cleaning))
    pthread_mutex_lock(cython.address(c.lock))
    victim = segment_to_clean(d)
    used: uint32_t = d.segments[victim].used if victim != NO_SEGMENT else 0
    pthread_mutex_unlock(cython.address(c.lock))
    if victim == NO_SEGMENT:
        pthread_mutex_unlock(cython.address(c.cleaning))
        return ENOSPC
    error: cython.int = 0
    base = d.file + (cython.cast(uint64_t, victim) << SEGMENT_SHIFT)
    s = stream_get(c)
    buf = cython.cast(cython.p_char, uz_private(SEGMENT_BYTES))
    if s == cython.NULL or buf == cython.NULL:
        error = ENOMEM
    if not error and s.old == cython.NULL:
        s.old = cython.cast(cython.pointer(uint64_t), malloc(NR_FLIGHTS * FLIGHT_ITEMS * cython.sizeof(uint64_t)))
        if s.old == cython.NULL:
            error = ENOMEM
    if not error:
        error = -device_read(cython.address(d.io), buf, offset_of(base), used)
    at: uint32_t = segment_begin(d, victim)
    wanted: uint32_t = 0
    sealer: Sealer
    header: Record
    opened: cython.bint = False
    taking = d.segments[victim].taking
    if not error:
        s.for_cleaning = 1
        error = -sealer_begin(cython.address(sealer), cython.address(d.secret), 0)
        opened = not error
    while not error and at + cython.sizeof(Record) <= used:
        stored = cython.cast(cython.pointer(Record), buf + at)
        r = cython.address(header)
        record_peek(cython.address(sealer), stored, taking, at, r)
        if is_padding(stored):
            # Padding at the end of a flight: the next one starts at the next block.
            at = (at + BLOCK) & ~cython.cast(uint32_t, BLOCK - 1)
            continue
        if r.length == 0 or r.length > 65536 or at + record_bytes(r.length) > used:
            break  # not a header: what follows can't be found from here; its entries stay where they are
        if not stream_fits(s, r.length):
            if stream_advance(c, s, r.length):
                error = ENOSPC
                break
        pthread_mutex_lock(cython.address(c.lock))
        e = entry_at(t, r.handle)
        wanted = e != cython.NULL and e.state == ON_DISK and e.data == base + at and not e.flags & HELD
        if wanted and r.length != cython.cast(uint32_t, e.length_1) + 1:
            wanted = 0
        if wanted:
            f = cython.address(s.flights[s.current])
            clear = record_open(
                cython.address(sealer),
                stored,
                r.handle,
                r.length,
                cython.cast(uint32_t, e.size_1) + 1,
                taking,
                at,
                f.buf + f.fill,
            )
            # The header names an entry, but the bytes are not its bytes.  It stays here, and every access says so.
            wanted = clear != cython.NULL
        if wanted:
            item = cython.address(f.items[f.n])
            item.index = cython.cast(uint32_t, r.handle)
            item.gen = e.gen
            item.offset = f.start + f.fill
            item.position = s.current * FLIGHT_ITEMS + f.n
            s.old[item.position] = base + at
            if clear == stored:
                memcpy(f.buf + f.fill, stored, record_bytes(r.length))
            f.fill += record_bytes(r.length)
            f.n += 1
        pthread_mutex_unlock(cython.address(c.lock))
        at += record_bytes(r.length)
    if s != cython.NULL:
        stream_finish(c, s)
        if not error:
            error = s.error
        stream_put(c, s)
    if opened:
        sealer_end(cython.address(sealer))
    uz_private_free(buf, SEGMENT_BYTES)
    pthread_mutex_lock(cython.address(c.lock))
    d.segments[victim].state = SEG_SEALED
    segment_maybe_free(d, victim)
    d.cleaned += 1
    if d.segments[victim].state == SEG_SEALED:
        # A record that could not be moved keeps it: no use to try again before something in it has died.  A lack of
        # memory or of room to move to is not the segment's, and passes.
        if error != ENOMEM and error != ENOSPC:
            d.segments[victim].stuck = d.segments[victim].live
        error = error or ENOSPC
    pthread_mutex_unlock(cython.address(c.lock))
    pthread_mutex_unlock(cython.address(c.cleaning))
    return error


# Forks


def streams_inherit(c):
    """In a child: what its parent's threads were about to write is as it was, and the streams are as new.

    Who forked may have one itself, and goes on with it.
    """
    t = cython.address(c.t)
    k: cython.int
    i: uint32_t
    s = c.used
    while s != cython.NULL:
        for k in range(NR_FLIGHTS):
            f = cython.address(s.flights[k])
            for i in range(f.n):
                e = cython.address(t.entries[f.items[i].index])
                if e.gen == f.items[i].gen and e.flags & WRITING:
                    e.flags &= ~WRITING
                    lru_add_tail(t, f.items[i].index, owner_of(t, e))
            f.n = f.fill = 0
            f.segment = NO_SEGMENT
            f.under_way = 0
        s.segment = NO_SEGMENT
        s.has_aio = s.no_space = s.error = 0
        s = s.next
    s = c.streams
    while s != cython.NULL:
        s.has_aio = 0  # the context is the parent's
        s = s.next
    idle_free(cython.NULL, c.streams)
    c.streams = cython.NULL
    c.has_aio = c.trimming = 0
