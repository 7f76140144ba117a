cimport cython
from libc.stdint cimport int64_t, uint64_t
from uzswap.core.boundary.values cimport Batch
from uzswap.store.slot cimport Resident
from uzswap.store.table cimport Table

@cython.final
cdef class Eviction:
    cdef Table table
    cdef Batch batch
    cdef list going
    cdef list kept
    cdef list parts             # handles of what is stored of a large value, until it goes out
    cdef unsigned long thread   # whose that is
    cdef int forms[64]
    cdef int64_t want
    cdef int64_t left
    cdef int64_t pending
    cdef int64_t freed
    cdef int64_t scanned
    cdef int most
    cdef int refusals
    cdef int looks
    cdef int thorough_looks
    cdef int family_walks
    cdef uint64_t families_at   # Table._shared_changes then
    cdef dict families          # resident, by address -> the arrays that own memory of which it takes its part along

    cdef object reclaim(self, int64_t want)
    cdef int64_t evict(self, Resident r) except -1
    cdef int64_t _recheck(self, int most)
    cdef Resident _coldest(self)
    cdef int64_t _gather(self) except -1
    cdef object _examine(self, Resident r)
    cdef object _own(self, Resident r)
    cdef object _meet_family(self, Resident r)
    cdef object _store(self)
    cdef bint _go_back(self, Resident r) except -1
    cdef object _store_large(self, Resident r, object value, object stream, object apart)
    cdef bint _go_out(self, Resident r, int form, uint64_t at) noexcept
