from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.entries cimport Delta, Entry
from uzswap.core.store.reading cimport Load
from uzswap.core.store.state cimport Core

cdef enum:
    ELSEWHERE = -1          # load_from_pool(): swap_in() has to load it

cdef void swap_in(Core *c, Load *load) noexcept nogil
cdef void swap_in_by(Core *c, Load *load) noexcept nogil
cdef int load_from_pool(Core *c, uint64_t handle, char *out, uint32_t size, int consume) noexcept nogil
cdef int64_t free_entries(Core *c, const uint64_t *handles, int64_t n, int *error) noexcept nogil

cdef int hold_step(Core *c, Load *load, int64_t i, int k) noexcept nogil
cdef int fill_step(Core *c, Load *load, int k) noexcept nogil
cdef int fits(const Load *load, int64_t i, uint32_t size) noexcept nogil
cdef void count_load(Core *c, Delta *d, const Entry *e) noexcept nogil
cdef void count_latency(Core *c, const Load *load, int k, int64_t took, int64_t disk_ns) noexcept nogil
cdef void count_failure(Core *c, int error) noexcept nogil
