from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.state cimport Core

cdef bint swap_full(Core *c, uint32_t memcg) noexcept nogil
cdef bint swap_cache_add(Core *c, const uint64_t *handles, int64_t n) noexcept nogil
cdef bint swap_cache_take(Core *c, const uint64_t *handles, int64_t n) noexcept nogil
cdef void swap_cache_drop(Core *c, const uint64_t *handles, int64_t n) noexcept nogil
cdef int swap_cache_shrink(Core *c) noexcept nogil
