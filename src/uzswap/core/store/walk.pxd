from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.state cimport Core, Stream

cdef enum:
    WALK_STOP_ON_EXIST = 1
    WALK_RETRY_FAILED = 2
    # Entries a walk may pass over (too young, or failed before) for each one that it may scan, so that a walk which
    # finds no candidates still lets go of the lock now and then.
    PASSES_PER_SCAN = 64

cdef struct Walk:
    # asked
    uint64_t *lrus              # memcg << 8 | node
    uint64_t *positions         # handle of the last entry that was passed over, for each LRU
    uint32_t *heap              # room for nr_lrus, used when there are several
    uint32_t nr_lrus
    int64_t nr_to_scan
    int64_t budget
    uint64_t since
    uint32_t youngest           # entries born after this are no candidates
    int flags
    # answered
    int64_t scanned
    int64_t rotated
    int64_t entries
    int64_t nbytes
    int64_t exist
    int64_t nospace
    int64_t failed
    int stopped
    int exhausted

cdef void walk(Core *c, Stream *s, Walk *w) noexcept nogil
cdef uint32_t walk_next(Core *c, Walk *w, uint32_t j) noexcept nogil
cdef int walk_one(Core *c, Stream *s, Walk *w, uint32_t j, uint32_t index) noexcept nogil
cdef void heap_down(Core *c, Walk *w, uint32_t i, uint32_t n) noexcept nogil
cdef uint64_t heap_key(Core *c, Walk *w, uint32_t i) noexcept nogil
