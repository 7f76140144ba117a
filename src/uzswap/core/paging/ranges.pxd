from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Work

cdef enum:
    DROP_PAGES = 256        # dropped in one hold of the lock: what they had fits into a Dropped, on any stack

# What pages had that are dropped.
cdef struct Dropped:
    int nr_handles
    int nr_copies
    uint64_t handles[DROP_PAGES]
    uint32_t copies[DROP_PAGES]     # of resident pages: entries that may be others' by now
    uint64_t owners[DROP_PAGES]

cdef void area_free(Pager *p, uint32_t a) noexcept nogil
cdef int bring_range(Pager *p, Work *w, uint64_t first, uint64_t n, int flags) noexcept nogil
cdef int64_t evict_range(Pager *p, Work *w, uint64_t first, uint64_t n) noexcept nogil
cdef int64_t evict_own(Pager *p, Work *w, uint32_t memcg, int64_t most) noexcept nogil
cdef void unkeep_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void cool_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef int drop_range(Pager *p, uint64_t first, uint64_t n, uint32_t a) noexcept nogil

cdef uint64_t part(const Pager *p, uint64_t *x, uint64_t end) noexcept nogil
cdef void settled(Pager *p, uint64_t page) noexcept nogil
cdef int on_its_way(const Pager *p, uint64_t page) noexcept nogil
cdef int drop_some(Pager *p, Dropped *d, uint64_t *x, uint64_t end, uint32_t a) noexcept nogil
cdef int restore(Pager *p, uint64_t first, uint64_t n) noexcept nogil
