"""Flights: the writes that a stream is made of, and what becomes of their entries when the device has answered."""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.device.device import BLOCK, NO_SEGMENT, SEGMENT_SHIFT, record_dead, segment_unpin
from cython.cimports.uzswap.core.device.device_io import (
    ASK_SUBMIT,
    ASK_WRITE,
    SUBMITTED,
    device_ask,
    device_ask_and_wait,
    device_wait,
)
from cython.cimports.uzswap.core.device.read_around import windows_forget
from cython.cimports.uzswap.core.device.record import (
    Record,
    Sealer,
    record_bytes,
    record_seal,
    sealer_begin,
    sealer_end,
)
from cython.cimports.uzswap.core.libc_ext import (
    io_event,
    prefetch,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    uz_io_destroy,
    uz_io_wait,
)
from cython.cimports.uzswap.core.store.entries import (
    C_DISK,
    C_PROACTIVE_B,
    C_PSWPOUT,
    C_ZSWPWB,
    FAILED,
    G_IO_ERROR,
    G_RECLAIM_FAIL,
    G_WRITTEN_BACK,
    GOING_TO_DISK,
    HELD,
    ON_DISK,
    REFERENCED,
    WRITING,
    Delta,
    lru_add_tail,
    owner_of,
)
from cython.cimports.uzswap.core.store.histogram import H_AGE, bucket_of_ns, observe
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.state import (
    BORN_SHIFT,
    NR_FLIGHTS,
    born_units,
    core_now,
    entry_drop,
    leave_pool,
    whole_pages,
)


def flight_seal(arg):
    """Seal all records of a flight: in the thread that writes it, while the next one is gathered.  0 or -ENOMEM."""
    f = cython.cast(cython.pointer(Flight), arg)
    c = cython.cast(cython.pointer(Core), f.core)
    i: uint32_t = 0
    sealer: Sealer
    failed: cython.int = sealer_begin(cython.address(sealer), cython.address(c.device.secret), 1)
    if failed:
        return failed
    taking = c.device.segments[f.segment].taking
    while i < f.n and not failed:
        r = cython.cast(cython.pointer(Record), f.buf + (f.items[i].offset - f.start))
        failed = record_seal(cython.address(sealer), r, taking, f.items[i].offset)
        i += 1
    sealer_end(cython.address(sealer))
    return failed


def flight_submit(c, s, f):
    ask = cython.address(f.ask)
    f.core = c
    ask.arg = f
    ask.prepare = flight_seal
    if s.for_cleaning and c.device.secret.key == cython.NULL:
        # What is moved and not encrypted keeps its seal: what happens to it on its way shows.
        ask.prepare = cython.NULL
    ask.op = ASK_SUBMIT if s.has_aio else ASK_WRITE
    ask.buf = f.buf
    ask.offset = (cython.cast(uint64_t, f.segment) << SEGMENT_SHIFT) + f.start
    ask.n = (f.fill + BLOCK - 1) & ~cython.cast(uint32_t, BLOCK - 1)
    ask.aio = s.aio
    ask.cb = cython.address(f.cb)
    memset(f.buf + f.fill, 0, ask.n - f.fill)
    f.under_way = 1
    f.landed = 0
    f.error = 0
    device_ask(cython.address(c.device.io), ask)


def write_rest(c, f, done):
    """Write a flight from byte `done` on, and wait: it has landed then, well or not."""
    f.landed = 1
    left = f.ask.n - done
    f.error = -device_ask_and_wait(cython.address(c.device.io), ASK_WRITE, f.buf + done, f.ask.offset + done, left)


def stop_aio(c, s):
    """Go on without AIO, which has failed: nobody knows what became of the flights, so they are written once more."""
    i: cython.int
    for i in range(NR_FLIGHTS):
        if s.flights[i].under_way:
            answer = device_wait(cython.address(c.device.io), cython.address(s.flights[i].ask))
            if answer < 0:
                # Not as it should be written, perhaps: it was to be sealed first.
                s.flights[i].landed = 1
                s.flights[i].error = -answer
    # Returns when the device is done with them, so that no late write hits a segment that has become another's.
    uz_io_destroy(s.aio)
    s.has_aio = 0
    for i in range(NR_FLIGHTS):
        if s.flights[i].under_way and not s.flights[i].landed:
            write_rest(c, cython.address(s.flights[i]), 0)


def flight_settle(c, s, f):
    """Wait until the flight has landed, and give each of its entries its new place."""
    event: io_event
    i: cython.int
    answer = device_wait(cython.address(c.device.io), cython.address(f.ask))
    if answer != SUBMITTED:
        f.landed = 1
        f.error = -answer
    while not f.landed:
        memset(cython.address(event), 0, cython.sizeof(io_event))
        if uz_io_wait(s.aio, cython.address(event)):
            stop_aio(c, s)
            break
        for i in range(NR_FLIGHTS):
            g = cython.address(s.flights[i])
            if event.data != cython.cast(uint64_t, cython.cast(cython.size_t, cython.address(g.cb))):
                continue
            g.landed = 1
            if event.res < 0:
                g.error = cython.cast(cython.int, -event.res)
            elif cython.cast(cython.size_t, event.res) < g.ask.n:
                # A short write: the synchronous one finishes it, or says why it can't.
                write_rest(c, g, cython.cast(cython.size_t, event.res))
    if f.error and not s.error:
        s.error = f.error
    pthread_mutex_lock(cython.address(c.lock))
    windows_forget(cython.address(c.around), c.device.file | f.ask.offset, f.ask.n)
    if f.error:
        c.t.totals[G_IO_ERROR] += 1
    if s.for_cleaning:
        settle_cleaned(c, s, f)
    else:
        settle_written(c, s, f)
    segment_unpin(cython.address(c.device), f.segment)
    pthread_mutex_unlock(cython.address(c.lock))
    f.under_way = 0
    f.n = f.fill = 0
    f.segment = NO_SEGMENT


def fail_entry(c, index, owner):
    """Back to the tail of its LRU, unreferenced: a failed writeback must not lose the entry, nor block the head."""
    e = cython.address(c.t.entries[index])
    e.flags = (e.flags & ~WRITING) | FAILED
    lru_add_tail(cython.address(c.t), index, owner)
    c.t.totals[G_RECLAIM_FAIL] += 1


def settle_written(c, s, f):
    t = cython.address(c.t)
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    now = born_units(core_now(c))
    i: uint32_t
    for i in range(f.n):
        if i + 8 < f.n:
            prefetch(cython.address(t.entries[f.items[i + 8].index]))
        if i + 4 < f.n:
            prefetch(cython.cast(cython.p_void, t.entries[f.items[i + 4].index].data))
        item = cython.address(f.items[i])
        e = cython.address(t.entries[item.index])
        if e.gen != item.gen:
            s.gone += 1
            continue
        owner = owner_of(t, e)
        length = cython.cast(uint32_t, e.length_1) + 1
        pages = whole_pages(cython.cast(uint32_t, e.size_1) + 1) >> 12
        if e.state == GOING_TO_DISK:
            if f.error:
                s.handles[item.position] = 0
                s.failed += 1
                entry_drop(c, cython.address(d), item.index)
                continue
        elif f.error:
            fail_entry(c, item.index, owner)
            s.failed += 1
            continue
        elif e.flags & HELD:
            # A load of it is under way: the copy in the pool is the one that the load reads.
            fail_entry(c, item.index, owner)
            s.gone += 1
            continue
        else:
            leave_pool(c, cython.address(d), item.index, owner)
            age = cython.cast(int64_t, now - e.born if now > e.born else 0) << BORN_SHIFT
            observe(cython.address(c.histograms[H_AGE]), bucket_of_ns(age), age, 1)
            delta_add(t, cython.address(d), owner, C_ZSWPWB, pages)
            t.totals[G_WRITTEN_BACK] += pages
            if s.proactive:
                delta_add(t, cython.address(d), owner, C_PROACTIVE_B, length)
        e.flags &= ~(WRITING | REFERENCED | FAILED)
        e.state = ON_DISK
        e.data = c.device.file + (cython.cast(uint64_t, f.segment) << SEGMENT_SHIFT) + item.offset
        c.device.segments[f.segment].live += record_bytes(length)
        c.device.live_bytes += record_bytes(length)
        delta_add(t, cython.address(d), owner, C_PSWPOUT, pages)
        delta_add(t, cython.address(d), owner, C_DISK, length)
        s.entries += 1
        s.nbytes += length
    delta_apply(t, cython.address(d))


def settle_cleaned(c, s, f):
    t = cython.address(c.t)
    i: uint32_t
    if f.error:
        return
    for i in range(f.n):
        item = cython.address(f.items[i])
        e = cython.address(t.entries[item.index])
        if e.gen != item.gen or e.state != ON_DISK or e.flags & HELD or e.data != s.old[item.position]:
            continue
        length = cython.cast(uint32_t, e.length_1) + 1
        e.data = c.device.file + (cython.cast(uint64_t, f.segment) << SEGMENT_SHIFT) + item.offset
        c.device.segments[f.segment].live += record_bytes(length)
        c.device.live_bytes += record_bytes(length)
        record_dead(cython.address(c.device), s.old[item.position], length)
        s.entries += 1
