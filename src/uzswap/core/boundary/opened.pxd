from libc.stdint cimport uint32_t, uint64_t
from uzswap.core.store.entries cimport Memcg
from uzswap.core.store.state cimport Core

cdef class Opened:
    cdef Core *core
    cdef object __weakref__
    cdef object memory          # a weak reference to its paged memory, or None
    cdef Core *_open(self) except NULL
    cdef Memcg *_memcg(self, uint32_t memcg) except NULL
    cdef int _node(self, int node) except -1

cdef void core_lock(Core *c) noexcept nogil
cdef void core_unlock(Core *c) noexcept nogil
cdef uint64_t *private_copy(const uint64_t *values, size_t n) noexcept
