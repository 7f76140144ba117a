from libc.stdint cimport uint32_t, uint64_t
from uzswap.core.store.entries cimport Table

cdef int sums_init(Table *t) noexcept nogil
cdef void sums_destroy(Table *t) noexcept nogil
cdef uint64_t sum_of(const char *bytes, uint32_t size) noexcept nogil
cdef int is_intact(const Table *t, uint32_t index, const char *bytes, uint32_t size) noexcept nogil
