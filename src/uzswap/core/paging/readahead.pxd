from libc.stdint cimport uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Tracker

cdef Tracker *stream_at(Pager *p, uint64_t page, int is_write, uint64_t *first, uint64_t *n) noexcept nogil
cdef Tracker *stream_over(Pager *p, uint64_t page) noexcept nogil
cdef void want_reading(Pager *p, Tracker *t) noexcept nogil
cdef void forget_streams(Pager *p, uint32_t area) noexcept nogil
cdef int claim(Pager *p, Tracker *t, uint64_t *first, uint64_t *n) noexcept nogil

cdef int may_come(const Pager *p, uint64_t page, uint32_t area) noexcept nogil
cdef uint64_t most_ahead(Pager *p, uint32_t area) noexcept nogil
cdef uint64_t ahead_of(const Tracker *t) noexcept nogil
