"""What stands around a value on the device is read with it, and kept for those that are asked for next.

Small values that went out one after the other stand together, dozens of them in a block, and are often wanted together.
A read without the page cache takes 20 us of CPU for 32 KiB and 17 for 4 KiB, and 65 and 40 on the wall (virtio, 2
virtual CPUs, 2026-11): so one use of what is around pays for several reads of it.  Where windows go unused, in random
reads of much more than they hold together, a value is read with the blocks that it is in and no more, but for one in
PROBE reads, which tells when that is over.

The bytes are the device's: compressed, with their checksums, which are verified at each use.  Of a place that is
written to they are dropped before anything there is looked for: in between nothing there is alive, since no block is
written while a record in it is (device.py).  What was read while a write ended is used once and not kept.

The caller serialises, but for the bytes of a window that it has pinned.
"""

import cython
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.device.device import BLOCK, SEGMENT_BYTES
from cython.cimports.uzswap.core.libc_ext import uz_private, uz_private_free

# So many windows in excess went unused until reads become small; one that is used makes up for GAIN (our choice: what a
# use saves is some five times what a window takes more than a block).
MOST_IDLE = cython.declare(cython.int, 16)
GAIN = cython.declare(cython.int, 4)
PROBE = cython.declare(cython.int, 8)


def window_find(around, begin, end):
    """The window with all of [begin, end), pinned; or NULL."""
    i: cython.int
    for i in range(NR_WINDOWS):
        w = cython.address(around.windows[i])
        if w.filled and w.start <= begin and end <= w.start + w.nbytes:
            if not w.uses and w.nbytes == WINDOW_BYTES:
                around.idle = around.idle - GAIN if around.idle > GAIN else 0
            w.uses += 1
            w.pins += 1
            around.clock += 1
            w.used = around.clock
            return w
    return cython.NULL


def window_take(around, begin, end):
    """The window used longest ago, pinned, to be filled from its `start` on with all around [begin, end).

    NULL when that is too long, or all are in use.
    """
    i: cython.int
    block = ~cython.cast(uint64_t, BLOCK - 1)
    if end - (begin & block) > WINDOW_BYTES:
        return cython.NULL
    if around.memory == cython.NULL:
        around.memory = cython.cast(cython.p_char, uz_private(NR_WINDOWS * WINDOW_BYTES))
        if around.memory == cython.NULL:
            return cython.NULL
        for i in range(NR_WINDOWS):
            around.windows[i].memory = around.memory + i * WINDOW_BYTES
    oldest: cython.pointer(Window) = cython.NULL
    for i in range(NR_WINDOWS):
        w = cython.address(around.windows[i])
        if not w.pins and (oldest == cython.NULL or w.used < oldest.used):
            oldest = w
    if oldest == cython.NULL:
        return oldest
    if oldest.nbytes == WINDOW_BYTES and not oldest.uses and around.idle < MOST_IDLE:
        around.idle += 1
    oldest.uses = 0
    oldest.nbytes = WINDOW_BYTES
    oldest.start = begin & ~cython.cast(uint64_t, WINDOW_BYTES - 1)
    around.reads += 1
    if around.idle == MOST_IDLE and around.reads % PROBE:
        oldest.start = begin & block
        oldest.nbytes = ((end + BLOCK - 1) & block) - oldest.start
    elif end > oldest.start + WINDOW_BYTES:
        oldest.start = begin & block
        # No record crosses the end of a segment, and the last one ends where the file does.
        stop = (begin | (SEGMENT_BYTES - 1)) + 1
        if oldest.start + WINDOW_BYTES > stop:
            oldest.start = stop - WINDOW_BYTES
    around.clock += 1
    oldest.used = around.clock
    oldest.seen = around.writes
    oldest.filled = 0
    oldest.pins = 1
    return oldest


def window_put(around, w, valid):
    """Have no more to do with a window.  It is kept if what was looked for was there, and is what the device has."""
    w.pins -= 1
    if not valid:
        w.filled = 0
    elif w.seen == around.writes:
        w.filled = 1
    if not w.filled:
        w.used = 0


def windows_forget(around, start, nbytes):
    """A write has ended: what was read there before is out of date."""
    i: cython.int
    around.writes += 1
    for i in range(NR_WINDOWS):
        w = cython.address(around.windows[i])
        if w.start < start + nbytes and start < w.start + w.nbytes:
            w.filled = 0


def windows_free(around):
    uz_private_free(around.memory, NR_WINDOWS * WINDOW_BYTES)
    memset(around, 0, cython.sizeof(ReadAround))
