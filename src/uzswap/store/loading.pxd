cimport cython
from libc.stdint cimport int64_t, uint64_t
from uzswap.store.slot cimport Slot
from uzswap.store.table cimport Table

@cython.final
cdef class Load:
    cdef object thread
    cdef object over
    cdef bint done

cdef class Loading(Table):
    cdef object _wanted     # keys to be prefetched
    cdef object _prefetcher
    cdef int64_t _stalled   # ns that the cgroup has not been told of

    cdef object _load(self, object key, Slot slot, bint pop)
    cdef object _load_plain(self, Slot slot, int form)
    cdef object _bring_back(self, object key, Slot slot, bint pop)
    cdef object _unpack(self, int form, uint64_t at)
    cdef object _load_part(self, object key, Slot slot, object packed, Py_ssize_t start, Py_ssize_t stop)
    cdef object _count_stall(self, int64_t disk_ns)
    cdef Py_ssize_t _load_run(self, list run, list hold, bint force) except -2
    cdef object _wait(self, Load load, object key)
    cdef bint _waits_for(self, Load load, object thread) except -1
    cdef object _over(self, Slot slot, Load load)
