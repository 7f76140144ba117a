"""Size classes of what is counted: see histogram.pxd."""

import cython

# The first class of times ends at 2**8 ns, the last at 2**47 ns, 39 hours: less than 256 ns is no load, and for an age
# beyond it nobody asks any more.
FIRST_NS = cython.declare(cython.int, 8)


def bits(value):
    n: cython.int = 0
    while value:
        value >>= 1
        n += 1
    return n


def bucket_of_length(length):
    """The class of 1 to 65536 bytes: at most 256, 512, ... 4096, then 8192, 16384, ..."""
    if length <= NR_STEPS << STEP_SHIFT:
        return cython.cast(cython.int, (length - 1) >> STEP_SHIFT)
    return NR_STEPS - 1 + bits((length - 1) >> 12)


def bucket_of_ns(ns):
    """The class of a time: at most 2**8 ns, 2**9 ns, ..."""
    n: cython.int = bits(ns - 1) - FIRST_NS if ns else 0
    if n < 0:
        return 0
    return n if n < NR_BUCKETS else NR_BUCKETS - 1


def observe(h, bucket, value, count):
    """Count `count` times the same value; a negative count takes it back."""
    h.counts[bucket] += count
    h.sum += value * count
