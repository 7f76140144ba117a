from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager

cdef int space_open(Pager *p) noexcept nogil
cdef uint32_t area_new(Pager *p, uint64_t nbytes, uint32_t memcg, uint8_t item) noexcept nogil
cdef void area_put(Pager *p, uint32_t a, int usable) noexcept nogil
cdef int area_vacate(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void area_claim(Pager *p, uint32_t a, uint64_t first, uint64_t end) noexcept nogil
cdef uint64_t leaves_of(uint64_t n) noexcept nogil
cdef uint32_t area_of(const Pager *p, uint64_t page) noexcept nogil
cdef void charge_table(Pager *p, uint32_t a, int64_t nbytes) noexcept nogil
cdef void touched(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef uint64_t leaf_end(const Pager *p, uint64_t page) noexcept nogil
cdef void leaves_put(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef int any_gone(const Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef int range_take(Pager *p, uint64_t n, uint64_t *first) noexcept nogil
cdef int range_put(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef int make_fresh(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void count(Pager *p, uint32_t memcg, int counter, int64_t n) noexcept nogil
cdef void uncharge(Pager *p, uint32_t memcg, int64_t n) noexcept nogil
