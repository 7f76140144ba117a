from libc.stdint cimport int64_t, uint32_t
from uzswap.core.boundary.opened cimport Opened

cdef class Memcgs(Opened):
    cdef _add(self, uint32_t memcg, int counter, int64_t value)
