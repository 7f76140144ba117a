"""Histograms of the data plane: counts by size class.  Guarded by the engine lock."""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    NR_BUCKETS = 40

    H_LENGTH = 0            # bytes of what entered the pool
    H_LOAD_ZSWAP = 1        # ns that a load took, by where the data was
    H_LOAD_DISK = 2
    H_LOAD_ZERO = 3
    H_AGE = 4               # ns that an entry was in the pool before it was written back
    NR_HISTOGRAMS = 5

    STEP_SHIFT = 8          # lengths up to 4096 are told apart by 256 bytes, longer ones by powers of two
    NR_STEPS = 16

cdef struct Histogram:
    int64_t counts[NR_BUCKETS]
    int64_t sum

cdef int bits(uint64_t value) noexcept nogil
cdef int bucket_of_length(uint64_t length) noexcept nogil
cdef int bucket_of_ns(uint64_t ns) noexcept nogil
cdef void observe(Histogram *h, int bucket, int64_t value, int64_t count) noexcept nogil
