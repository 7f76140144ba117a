from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.entries cimport Table

cdef enum:
    # What a memcg has to have of its own, to be listed: either.
    HAS_LRU = 1                 # entries on its LRUs
    HAS_RESIDENT = 2            # resident bytes that are charged to it and not to a child
    HAS_COPIES = 4              # clean copies

# Once round all memcgs of a subtree that have something, for who gets something of each in turn.
cdef struct Round:
    uint64_t began              # birth of the first that was met since the last success; 0 before it
    uint32_t met                # how many were since

cdef void active_update(Table *t, uint32_t m) noexcept nogil
cdef void active_leave(Table *t, uint32_t m) noexcept nogil
cdef int64_t active_list(
    Table *t, uint32_t root, int which, int only_writeback, uint32_t *out, int64_t room
) noexcept nogil
cdef void sink(Table *t, uint32_t *heap, int64_t at, int64_t n) noexcept nogil
cdef void sort_by_birth(Table *t, uint32_t *memcgs, int64_t n) noexcept nogil
cdef int has(Table *t, uint32_t m, int which) noexcept nogil
cdef uint32_t active_step(Table *t, uint32_t m, uint32_t root, int inside) noexcept nogil
cdef uint32_t active_after(Table *t, uint32_t root, int which, int only_writeback, uint64_t birth) noexcept nogil
cdef uint32_t active_turn(
    Table *t, uint32_t root, int which, int only_writeback, uint64_t *after, Round *round
) noexcept nogil
cdef uint32_t active_coldest(Table *t, uint32_t root) noexcept nogil
