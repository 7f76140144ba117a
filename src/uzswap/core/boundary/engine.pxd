from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.boundary.backing cimport Backing

# What a call has stored, until its caller has the handles.  Threads that are not in a forked child leave them there.
cdef struct Storing:
    Storing *next
    int64_t n
    uint64_t handles[1]

cdef class Engine(Backing):
    cdef Storing *storing       # with the GIL
    cdef Storing *_begin_storing(self, int64_t n) noexcept
    cdef void _stored(self, Storing *storing) noexcept
    cdef _load(self, const uint64_t *handles, int64_t n, char *out, uint64_t nbytes, uint32_t page, bint consume)
