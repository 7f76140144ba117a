from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.store.codec cimport Worker
from uzswap.core.store.entries cimport Delta, Entry
from uzswap.core.store.spans cimport Span
from uzswap.core.store.state cimport Core

cdef enum:
    STEP_LOADS = 256        # handles looked up under one lock hold
    READ_BYTES = 1048576    # the longest single read
    READ_GAP = 16384        # dead bytes that are cheaper to read than to skip

    ELSEWHERE = -1          # load_from_pool(): the entry is not in the pool

# What a load has to know of an entry while it works without the lock.
cdef struct Found:
    uint64_t data
    uint64_t handle
    int64_t position
    uint32_t length
    uint32_t size
    uint8_t state
    uint8_t codec

cdef struct Load:
    # asked
    const uint64_t *handles
    int64_t n
    const Span *spans           # where each entry's bytes go; or NULL, and what follows says so
    char *out
    uint64_t nbytes
    uint32_t page
    int consume
    # answered
    int64_t failed
    int error
    int64_t disk_ns
    # under way
    Worker *worker
    Found found[STEP_LOADS]
    int on_disk[STEP_LOADS]     # indices into found, in the order of the device

cdef void swap_in(Core *c, Load *load) noexcept nogil
cdef int load_from_pool(Core *c, uint64_t handle, char *out, uint32_t size, int consume) noexcept nogil
cdef int64_t free_entries(Core *c, const uint64_t *handles, int64_t n, int *error) noexcept nogil

cdef int hold_step(Core *c, Load *load, int64_t i, int k) noexcept nogil
cdef int fill_step(Core *c, Load *load, int k) noexcept nogil
cdef int read_run(Core *c, Load *load, int first, int n) noexcept nogil
cdef int fits(const Load *load, int64_t i, uint32_t size) noexcept nogil
cdef char *target_of(const Load *load, const Found *f) noexcept nogil
cdef int unpack(Core *c, Load *load, const Found *f, const char *bytes) noexcept nogil
cdef void sort_by_place(Load *load, int n) noexcept nogil
cdef void count_load(Core *c, Delta *d, const Entry *e) noexcept nogil
cdef void count_latency(Core *c, const Load *load, int k, int64_t took, int64_t disk_ns) noexcept nogil
cdef void count_failure(Core *c, int error) noexcept nogil
