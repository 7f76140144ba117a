from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Tracker

cdef Tracker *stream_at(Pager *p, uint64_t offset, int is_write, uint32_t *run, uint64_t *n) noexcept nogil
cdef Tracker *stream_over(Pager *p, uint64_t page) noexcept nogil
cdef void want_reading(Pager *p, Tracker *t) noexcept nogil
cdef void forget_streams(Pager *p, uint32_t area) noexcept nogil
cdef int claim(Pager *p, Tracker *t, uint64_t *first, uint64_t *n) noexcept nogil

cdef int may_come(const Pager *p, uint64_t page, uint32_t area) noexcept nogil
cdef uint64_t most_ahead(Pager *p, uint32_t area) noexcept nogil
cdef uint64_t ahead_of(const Tracker *t) noexcept nogil
cdef int leaves_out(int64_t gap) noexcept nogil
cdef int goes_on(const Pager *p, uint32_t area, uint64_t next, uint64_t offset, int64_t step) noexcept nogil
cdef uint64_t along(Pager *p, Tracker *t, uint32_t *run) noexcept nogil
