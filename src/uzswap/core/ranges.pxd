from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.pagetable cimport Pager, Work

cdef int area_free(Pager *p, uint32_t a) noexcept nogil
cdef int bring_range(Pager *p, Work *w, uint64_t first, uint64_t n, int flags) noexcept nogil
cdef int64_t evict_range(Pager *p, Work *w, uint64_t first, uint64_t n) noexcept nogil
cdef int64_t evict_own(Pager *p, Work *w, uint32_t memcg, int64_t most) noexcept nogil
cdef void unkeep_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void cool_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void drop_range(Pager *p, Work *w, uint64_t first, uint64_t n) noexcept nogil

cdef void settled(Pager *p, uint64_t page) noexcept nogil
cdef void clear(Pager *p, uint64_t first, uint64_t n) noexcept nogil
