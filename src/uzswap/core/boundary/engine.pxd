from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.entries cimport Memcg
from uzswap.core.store.state cimport Core, Stream

cdef class Engine:
    cdef Core *core
    cdef object __weakref__
    cdef object memory          # a weak reference to its paged memory, or None
    cdef Core *_open(self) except NULL
    cdef Core *_device(self) except NULL
    cdef Memcg *_memcg(self, uint32_t memcg) except NULL
    cdef int _node(self, int node) except -1
    cdef _add(self, uint32_t memcg, int counter, int64_t value)
    cdef _load(self, const uint64_t *handles, int64_t n, char *out, uint64_t nbytes, uint32_t page, bint consume)

cdef class Writer:
    cdef Engine engine
    cdef Stream *stream
    cdef object result

cdef void core_lock(Core *c) noexcept nogil
cdef void core_unlock(Core *c) noexcept nogil
