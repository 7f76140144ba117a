"""The swap device: a log of 1 MiB segments, with the bytes that are still wanted counted in each.

A record (record.py: header, then the compressed bytes, padded to 8) never crosses a segment.  Appends start at
multiples of BLOCK, so no block is ever written twice while a record in it is alive.  What lives where is known from
memory alone: nothing on the device is read after the process has ended.

The caller serialises.  Reading and writing are in device_io.py.
"""

import cython
from cython.cimports.libc.errno import ENOMEM, ENOSYS, EOPNOTSUPP
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.device.device_io import ASK_ZERO, device_ask_and_wait, device_io_start, device_io_stop
from cython.cimports.uzswap.core.device.record import record_bytes, secret_new

# Free segments that keep their blocks: punching a hole costs as much as writing the segment (measured: 1.3 of a 1 MiB
# O_DIRECT pwrite, ext4, 2026-11), so a device in steady state should reuse instead.
TRIM_STOCK = cython.declare(uint32_t, 8)

# Cleaning moves the live part of a segment to win the rest; above this share of live bytes it costs more than it wins.
CLEAN_MOST_LIVE = cython.declare(uint32_t, SEGMENT_BYTES - SEGMENT_BYTES // 16)


def offset_of(place):
    """Where in its file something is."""
    return place & ((cython.cast(uint64_t, 1) << FILE_SHIFT) - 1)


def taking_of(segments, place):
    """The number of the taking of the segment in which something is."""
    return segments[offset_of(place) >> SEGMENT_SHIFT].taking


def device_init(d, fd, nbytes, direct, key, nonce, front, directory):
    """0 or -errno.  A nonce of 0 asks for one to be made; the directory is the device's from then on.

    key: memory for one, where records are to be encrypted; or NULL.
    """
    memset(d, 0, cython.sizeof(Device))
    d.secret.key = key
    secret_new(cython.address(d.secret))
    if nonce:
        d.secret.nonce = nonce
    d.front = front
    d.directory = directory
    d.most = cython.cast(uint32_t, nbytes >> SEGMENT_SHIFT)
    failed = segments_init(d)
    if not failed:
        failed = device_io_start(cython.address(d.io), fd, direct)
    if failed:
        free(d.segments)
        free(d.directory)
        memset(d, 0, cython.sizeof(Device))
    return failed


def segments_init(d):
    """The map of a file in which nothing is.  0 or -errno."""
    s: uint32_t
    d.segments = cython.cast(cython.pointer(Segment), calloc(d.most, cython.sizeof(Segment)))
    if d.segments == cython.NULL:
        return -ENOMEM
    d.can_punch = 1
    d.nr = d.most
    d.parked = d.lent = NO_SEGMENT
    for s in range(d.nr):
        d.segments[s].next = s + 1 if s + 1 < d.nr else NO_SEGMENT
    d.free_head = 0 if d.nr else NO_SEGMENT
    d.nr_free = d.nr
    return 0


def device_destroy(d):
    device_io_stop(cython.address(d.io))
    free(d.segments)
    free(d.directory)
    memset(d, 0, cython.sizeof(Device))


def segment_begin(d, s):
    """The offset at which the first record of a segment can stand."""
    return d.front if s == 0 else 0


def segment_take(d, room, use_reserve):
    """A segment with at least `room` bytes left, now OPEN; NO_SEGMENT when there is none."""
    s = d.parked
    while s != NO_SEGMENT:
        g = cython.address(d.segments[s])
        if g.used + room <= SEGMENT_BYTES:
            unpark(d, s)
            g.state = SEG_OPEN
            return s
        s = g.next
    if d.nr_free <= (0 if use_reserve else RESERVE):
        return NO_SEGMENT
    s = d.free_head
    g = cython.address(d.segments[s])
    d.free_head = g.next
    d.nr_free -= 1
    if g.dirty:
        d.nr_free_dirty -= 1
    g.state = SEG_OPEN
    g.dirty = 1
    g.used = segment_begin(d, s)
    d.takings += 1
    g.taking = d.takings
    g.born = d.epoch
    d.moved = 1
    d.used_bytes += SEGMENT_BYTES
    return s


def segment_put(d, s):
    """A stream is done with segment s for now."""
    g = cython.address(d.segments[s])
    if g.used + BLOCK <= SEGMENT_BYTES:
        g.state = SEG_PARKED
        g.next = d.parked
        d.parked = s
    else:
        g.state = SEG_SEALED
    segment_maybe_free(d, s)


def unpark(d, s):
    """Take s off the parked list, which has at most one segment for each stream that ran at the same time."""
    previous: uint32_t = NO_SEGMENT
    x = d.parked
    while x != s:
        previous = x
        x = d.segments[x].next
    if previous == NO_SEGMENT:
        d.parked = d.segments[s].next
    else:
        d.segments[previous].next = d.segments[s].next


def segment_unpin(d, s):
    d.segments[s].pins -= 1
    segment_maybe_free(d, s)


def segment_maybe_free(d, s):
    g = cython.address(d.segments[s])
    if g.live or g.pins or (g.state != SEG_SEALED and g.state != SEG_PARKED):
        return
    if g.state == SEG_PARKED:
        unpark(d, s)
    d.moved = 1
    d.used_bytes -= SEGMENT_BYTES
    if is_lent(d, g.born):
        g.state = SEG_LENT
        g.died = d.epoch
        g.next = d.lent
        d.lent = s
        d.nr_lent += 1
    else:
        segment_free(d, s)


def is_lent(d, born):
    """Whether a child that lives may have something in a segment that was taken in an epoch."""
    if d.for_good:
        return born < d.epoch
    return d.nr_leases and d.leases[d.nr_leases - 1].epoch > born


def segment_free(d, s):
    """Nobody has anything in a segment any more."""
    g = cython.address(d.segments[s])
    g.state = SEG_FREE
    g.used = 0
    g.stuck = 0
    g.next = d.free_head
    d.free_head = s
    d.nr_free += 1
    d.nr_free_dirty += 1


def record_dead(d, place, length):
    s = cython.cast(uint32_t, offset_of(place) >> SEGMENT_SHIFT)
    n = record_bytes(length)
    d.segments[s].live -= n
    d.live_bytes -= n
    segment_maybe_free(d, s)


def wants_trim(d):
    return d.can_punch and d.nr_free_dirty > TRIM_STOCK


def segment_to_trim(d):
    """A free segment whose blocks should go back to the file system, taken out of the free list; or NO_SEGMENT."""
    if not wants_trim(d):
        return NO_SEGMENT
    previous: uint32_t = NO_SEGMENT
    s = d.free_head
    while s != NO_SEGMENT and not d.segments[s].dirty:
        previous = s
        s = d.segments[s].next
    if s == NO_SEGMENT:
        return s
    if previous == NO_SEGMENT:
        d.free_head = d.segments[s].next
    else:
        d.segments[previous].next = d.segments[s].next
    d.nr_free -= 1
    d.nr_free_dirty -= 1
    d.segments[s].state = SEG_TRIMMING
    return s


def segment_trimmed(d, s, error):
    g = cython.address(d.segments[s])
    g.state = SEG_FREE
    if not error:
        g.dirty = 0
        d.punched += SEGMENT_BYTES
    else:
        # Anything else (EINTR, ENOSPC for the extents' records, EIO) passes: the next one to be freed is tried again.
        if error == -EOPNOTSUPP or error == -ENOSYS:
            d.can_punch = 0
        d.nr_free_dirty += 1
    # Behind the first: what still has its blocks is reused first.
    if d.free_head == NO_SEGMENT or error:
        g.next = d.free_head
        d.free_head = s
    else:
        g.next = d.segments[d.free_head].next
        d.segments[d.free_head].next = s
    d.nr_free += 1


def segment_to_clean(d):
    """The emptiest segment worth cleaning that no stream appends to, now CLEANING; or NO_SEGMENT."""
    best: uint32_t = NO_SEGMENT
    least: uint32_t = CLEAN_MOST_LIVE
    s: uint32_t
    for s in range(d.nr):
        g = cython.address(d.segments[s])
        idle: cython.bint = g.pins == 0 and (g.state == SEG_SEALED or g.state == SEG_PARKED)
        if idle and g.live < least and g.live != g.stuck:
            best = s
            least = g.live
    if best != NO_SEGMENT:
        if d.segments[best].state == SEG_PARKED:
            unpark(d, best)
        d.segments[best].state = SEG_CLEANING
    return best


def device_wipe(d):
    """Zero every segment of a block device that was written to.  0 or -errno.  Nothing may be stored any more."""
    s: uint32_t = 0
    n: uint32_t
    while s < d.nr:
        n = 0
        while s + n < d.nr and (d.segments[s + n].dirty or s + n < (d.front + SEGMENT_BYTES - 1) >> SEGMENT_SHIFT):
            n += 1
        if n:
            where = cython.cast(uint64_t, s) << SEGMENT_SHIFT
            failed = device_ask_and_wait(
                cython.address(d.io), ASK_ZERO, cython.NULL, where, cython.cast(cython.size_t, n) << SEGMENT_SHIFT
            )
            if failed:
                return failed
        s += n + 1
    return 0
