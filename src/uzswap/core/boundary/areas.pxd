from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.boundary.paged cimport Paged
from uzswap.core.paging.pagetable cimport Area, Pager

cdef enum:
    # Where the bytes of a page are
    AT_NONE = 0             # never touched, dropped, or all one word: no bytes anywhere
    AT_RESIDENT = 1
    AT_ZSWAP = 2
    AT_DISK = 3
    AT_LOST = 4

# Pages of an area, by where they are.
cdef struct AreaCount:
    int64_t resident
    int64_t zswap
    int64_t disk
    int64_t zero
    int64_t lost
    int64_t clean           # bytes

cdef class Areas(Paged):
    cdef int _look(self, Pager *p, uint32_t area, Area *found) except -2
    cdef int _area(self, Pager *p, uint32_t area, Area *found) except -2
    cdef uint64_t _range(self, Pager *p, uint32_t area, uint64_t first, uint64_t pages) except 0

cdef uint8_t place_of(Pager *p, uint64_t page) noexcept nogil
cdef uint64_t count_some(Pager *p, uint32_t a, uint64_t first, AreaCount *found) noexcept nogil
