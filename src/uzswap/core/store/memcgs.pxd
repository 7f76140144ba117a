from libc.stdint cimport int64_t, uint32_t
from uzswap.core.store.entries cimport Delta, Table

cdef int in_subtree(Table *t, uint32_t m, uint32_t root) noexcept nogil
cdef uint32_t memcg_alloc(Table *t, uint32_t parent) noexcept nogil
cdef void memcg_unref(Table *t, uint32_t m) noexcept nogil
cdef void memcg_offline(Table *t, uint32_t m) noexcept nogil
cdef void memcg_protect(Table *t, uint32_t m, int64_t minimum, int64_t low) noexcept nogil
cdef int writeback_allowed(Table *t, uint32_t m) noexcept nogil
cdef void delta_add(Table *t, Delta *d, uint32_t m, int counter, int64_t value) noexcept nogil
cdef void delta_apply(Table *t, Delta *d) noexcept nogil
cdef int over_zswap_max(Table *t, const Delta *d, uint32_t m) noexcept nogil
cdef int over_swap_max(Table *t, const Delta *d, uint32_t m, int64_t more) noexcept nogil
