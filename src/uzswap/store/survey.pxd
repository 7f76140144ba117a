cimport cython
from cpython.object cimport PyObject

from uzswap.store.walk cimport (
    DATA_BYTES,
    FOLLOWED,
    IS_ATOM,
    IS_NDARRAY,
    IS_OURS,
    SHAREABLE,
    STUCK,
    Entry,
    Py_REFCNT,
    Py_TYPE,
    Walk,
    data_of,
    has_no_base,
    may_hold_objects,
    owns_data,
    owns_memory,
)

@cython.final
@cython.no_gc
cdef class Survey(Walk):
    cdef readonly dict spans    # of owners: their first byte that is seen, and the one after the last

    cdef bint is_array(self, Entry *entry) noexcept
    cdef dict views_of(self)
    cdef tuple part_of(self, Entry *entry, list views)
    cdef Entry *entry_of(self, object address) noexcept
    cdef bint is_shared(self, object address) noexcept
    cdef bint is_seen_twice(self, tuple view) noexcept
    cdef set known_weakly(self)
    cdef bint shares_memory(self) except -1
    cpdef Py_ssize_t estimated_bytes(self) except -1
    cpdef Py_ssize_t blocks_of_arrays(
        self, list blocks, bint whether_shared_or_not, bint copied
    ) except? -1
    cpdef Py_ssize_t plain_bytes(self) except -2
    cpdef tuple pinned(self)
    cpdef Py_ssize_t own_bytes(self) except -1
    cpdef tuple within_shared(self)
    cpdef tuple refer(self)
    cpdef object narrow(self, object own, bint copied)
    cpdef dict pieces(self)
    cpdef set views_within(self)
    cdef set seeds(self)
