from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Waiter

cdef void waits(Pager *p, int thread, uint64_t page) noexcept nogil
cdef void squeezed(Pager *p, const uint32_t *run, uint64_t n) noexcept nogil
cdef void arrived_all(Pager *p, const uint32_t *run, uint64_t n) noexcept nogil
cdef int is_needed(const Pager *p, uint64_t page) noexcept nogil
cdef void note(Waiter *who, uint64_t page) noexcept nogil
cdef int who_waits(const Pager *p, const uint32_t *run, uint64_t n) noexcept nogil
cdef void arrived(Pager *p, uint64_t page) noexcept nogil
cdef void stalls_reparent(Pager *p, uint32_t m, uint32_t parent) noexcept nogil
cdef void stalls_until(Pager *p, uint32_t m, int64_t now) noexcept nogil

cdef void stall(Pager *p, Waiter *who, int64_t now, int stalled) noexcept nogil
cdef void change(Pager *p, uint32_t m, int64_t now, int members, int stalled) noexcept nogil
cdef void forget_idle(Pager *p, int64_t now) noexcept nogil
