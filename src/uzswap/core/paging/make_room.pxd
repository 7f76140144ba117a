from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Work
from uzswap.core.store.active cimport Round

cdef int64_t make_room(Pager *p, Work *w, uint32_t root, int64_t most, int resident) noexcept nogil
cdef int64_t make_some_room(
    Pager *p, Work *w, uint32_t root, int64_t most, int resident, int take_low, int *said
) noexcept nogil
cdef int64_t evict_from(Pager *p, Work *w, uint32_t root, int64_t most, int copies) noexcept nogil
cdef int64_t evict_some(
    Pager *p, Work *w, uint32_t root, int64_t most, int copies, int take_low, int *said
, int sparing) noexcept nogil
cdef int64_t may_go(Pager *p, uint32_t memcg, uint32_t root, int64_t n, int take_low, int *said) noexcept nogil
cdef int others_land(Pager *p) noexcept nogil
cdef int write_back_from(Pager *p, uint32_t root, int take_low, int *said) noexcept nogil
cdef uint32_t online(Pager *p, uint32_t memcg) noexcept nogil
cdef uint32_t turn(Pager *p, uint32_t root, int which, uint64_t *after, Round *round) noexcept nogil
cdef uint32_t coldest(Pager *p, uint32_t root) noexcept nogil
cdef void want_shrinking(Pager *p, uint32_t memcg) noexcept nogil
