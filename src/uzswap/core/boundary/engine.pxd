from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.boundary.backing cimport Backing

cdef class Engine(Backing):
    cdef _load(self, const uint64_t *handles, int64_t n, char *out, uint64_t nbytes, uint32_t page, bint consume)
