"""Bringing the bytes of entries to whoever loads them: from the pool, or read from the device, in its order."""

import cython
from cython.cimports.libc.errno import EBADMSG, EIO, ENOENT, ENOMEM
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.device.device import BLOCK, SEGMENT_BYTES, Segment, offset_of, taking_of
from cython.cimports.uzswap.core.device.device_io import ASK_READ, device_ask, device_read, device_wait
from cython.cimports.uzswap.core.device.read_around import Window, window_find, window_put, window_take
from cython.cimports.uzswap.core.device.record import (
    Record,
    Sealer,
    Secret,
    record_bytes,
    record_open,
    sealer_end,
    sealer_lent,
)
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock, uz_monotonic_ns
from cython.cimports.uzswap.core.store.codec import decompress, worker_io
from cython.cimports.uzswap.core.store.state import MOST_READ, file_at
from cython.cimports.uzswap.core.store.sums import is_intact


def target_of(load, f):
    """Where the bytes of an entry go."""
    return load.out + f.position * load.page if load.spans == cython.NULL else load.spans[f.position].data


def unpack(c, load, f, bytes):
    """Bring one entry's compressed bytes to the caller.  0, EBADMSG, EILSEQ or ENOMEM."""
    out = target_of(load, f)
    error: cython.int = 0
    if f.length == f.size:
        memcpy(out, bytes, f.size)
    else:
        error = decompress(load.worker, cython.address(c.codecs[f.codec]), bytes, f.length, out, f.size)
    return error if error else verify(c, f.handle, out, f.size)


def verify(c, handle, bytes, size):
    """0, or EBADMSG: these are not the bytes that were given for an entry."""
    return 0 if is_intact(cython.address(c.t), cython.cast(uint32_t, handle), bytes, size) else EBADMSG


def sort_by_place(load, n):
    """Insertion sort: the entries of a step are in order already when they are loaded as they were stored."""
    i: cython.int
    j: cython.int
    for i in range(1, n):
        x = load.on_disk[i]
        place = load.found[x].data
        j = i
        while j > 0 and load.found[load.on_disk[j - 1]].data > place:
            load.on_disk[j] = load.on_disk[j - 1]
            j -= 1
        load.on_disk[j] = x


def next_reading(load, first, n, r):
    """Plan a read of entries that stand close together, the first of them given; the index of the first behind it.

    Places in two files are never close.
    """
    begin = load.found[load.on_disk[first]].data
    r.start = begin & ~cython.cast(uint64_t, BLOCK - 1)
    end = begin + record_bytes(load.found[load.on_disk[first]].length)
    i = first + 1
    while i < n:
        here = cython.address(load.found[load.on_disk[i]])
        stop = here.data + record_bytes(here.length)
        if here.data > end + READ_GAP or stop - r.start > MOST_READ:
            break
        end = stop
        i += 1
    r.first = first
    r.n = i - first
    r.nbytes = ((end + BLOCK - 1) & ~cython.cast(uint64_t, BLOCK - 1)) - r.start
    return i


def read_entries(c, load, n):
    """Load the n entries that are on the device, in its order.  0 or an errno; load.failed says which.

    Several reads are in flight at once where a caller of values asks: the device's threads have all but one of them.
    For faults on arrays a read is done where it is asked for, as handing it over costs as much as a fast device takes.
    """
    i: cython.int = 0
    k: cython.int
    most: cython.int = 1 if load.spans == cython.NULL or load.worker == c.spare else MOST_READINGS
    if n == 1 and load.spans != cython.NULL and read_alone(c, load, cython.address(load.found[load.on_disk[0]])) == 0:
        return 0
    while i < n:
        planned: cython.int = 0
        total: cython.size_t = 0
        while i < n and planned < most:
            r = cython.address(load.readings[planned])
            following = next_reading(load, i, n, r)
            if planned and total + r.nbytes > READINGS_BYTES:
                break
            r.io = file_at(c, r.start, cython.address(r.secret), cython.address(r.segments))
            if r.io == cython.NULL:
                load.failed = load.found[load.on_disk[r.first]].position
                return EIO
            i = following
            total += r.nbytes
            planned += 1
        load.failed = load.found[load.on_disk[load.readings[0].first]].position
        buf = worker_io(load.worker, total)
        if buf == cython.NULL:
            return ENOMEM
        asked = uz_monotonic_ns()
        for k in range(planned):
            r = cython.address(load.readings[k])
            r.buf = buf
            buf += r.nbytes
            if k < planned - 1:
                memset(cython.address(r.ask), 0, cython.sizeof(Request))
                r.ask.op = ASK_READ
                r.ask.buf = r.buf
                r.ask.offset = offset_of(r.start)
                r.ask.n = r.nbytes
                device_ask(r.io, cython.address(r.ask))
        last = cython.address(load.readings[planned - 1])
        last.ask.error = device_read(last.io, last.buf, offset_of(last.start), last.nbytes)
        for k in range(planned - 1):
            # All of them, whatever fails: they are written to until they are answered.
            device_wait(load.readings[k].io, cython.address(load.readings[k].ask))
        load.disk_ns += uz_monotonic_ns() - asked
        for k in range(planned):
            error = unpack_all(c, load, cython.address(load.readings[k]))
            if error:
                return error
    return 0


def read_alone(c, load, f):
    """Load the only entry of a load that is on the device, with what is around it, or from what was read so before.

    0 when its bytes are there; else it is to be read by itself, which tells what is wrong.
    """
    begin = f.data
    end = begin + record_bytes(f.length)
    secret: Secret
    segments: cython.pointer(cython.const[Segment])
    sealer: Sealer
    filled: cython.int = 1
    error: cython.int = 0
    pthread_mutex_lock(cython.address(c.lock))
    io = file_at(c, begin, cython.address(secret), cython.address(segments))
    w: cython.pointer(Window) = cython.NULL
    if io != cython.NULL:
        w = window_find(cython.address(c.around), begin, end)
        if w == cython.NULL:
            filled = 0
            w = window_take(cython.address(c.around), begin, end)
    pthread_mutex_unlock(cython.address(c.lock))
    if w == cython.NULL:
        return ENOENT
    if not filled:
        asked = uz_monotonic_ns()
        error = device_read(io, w.memory, offset_of(w.start), w.nbytes)
        load.disk_ns += uz_monotonic_ns() - asked
    if not error:
        error = -sealer_lent(cython.address(sealer), cython.address(secret), load.worker.opener)
    if not error:
        # A window has what is on the device: others may be reading it.
        error = unpack_record(c, load, f, cython.address(sealer), segments, w.memory + (begin - w.start))
        sealer_end(cython.address(sealer))
    pthread_mutex_lock(cython.address(c.lock))
    window_put(cython.address(c.around), w, error == 0)
    pthread_mutex_unlock(cython.address(c.lock))
    return error


def unpack_all(c, load, r):
    """Bring what was read to the caller.  0 or an errno; load.failed says which."""
    load.failed = load.found[load.on_disk[r.first]].position
    if r.ask.error:
        return -r.ask.error
    sealer: Sealer
    if sealer_lent(cython.address(sealer), cython.address(r.secret), load.worker.opener):
        return ENOMEM
    i: cython.int = r.first
    error: cython.int = 0
    while i < r.first + r.n and not error:
        f = cython.address(load.found[load.on_disk[i]])
        load.failed = f.position
        error = unpack_record(c, load, f, cython.address(sealer), r.segments, r.buf + (f.data - r.start))
        i += 1
    sealer_end(cython.address(sealer))
    return error


def unpack_record(c, load, f, sealer, segments, stored):
    """Bring what was read of one entry to the caller.  0, EBADMSG, EILSEQ or ENOMEM.

    What was read stays as it is: in clear it is in the worker's memory only.
    """
    record = record_open(
        sealer,
        cython.cast("const Record *", stored),
        f.handle,
        f.length,
        f.size,
        taking_of(segments, f.data),
        cython.cast(uint32_t, offset_of(f.data) & (SEGMENT_BYTES - 1)),
        load.worker.scratch,
    )
    if record == cython.NULL:
        return EBADMSG
    return unpack(c, load, f, cython.cast("const char *", record) + cython.sizeof(Record))
