from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.boundary.engine cimport Engine
from uzswap.store.lruvec cimport List, NR_LISTS
from uzswap.store.slot cimport Resident, Slot

cdef extern from "Python.h":
    ctypedef int (*Visit "visitproc")(PyObject *thing, void *arg) noexcept
    ctypedef int (*Traverse "traverseproc")(PyObject *self, Visit visit, void *arg) noexcept
    ctypedef struct Traversed "PyTypeObject":
        Traverse tp_traverse

# Bytes that a thread has charged for values that are not there yet.  In a forked child it is not there to give them
# back, nor is its stack.
cdef struct Charging:
    Charging *next
    unsigned long thread
    int64_t nbytes

cdef class Table:
    cdef object __weakref__
    cdef readonly object cgroup
    cdef readonly dict by_key
    cdef readonly int64_t resident_bytes
    cdef readonly int64_t evicted
    cdef readonly int64_t loaded
    cdef readonly int64_t refused
    cdef readonly bint closed
    cdef readonly bint forked
    cdef object _zswap
    cdef object _compression
    cdef object _dictionaries
    cdef object _shared
    cdef object _sizeof
    cdef object _buffers
    cdef Engine _engine
    cdef uint32_t _memcg
    cdef dict _loads
    cdef dict _waiting
    cdef set _storing       # evictions that are storing a large value, in parts
    cdef Charging *_charging    # those that somebody has
    cdef Charging *_spare       # and those that nobody has
    cdef int64_t _reclaims
    cdef bint _refusing
    cdef bint _immutable            # what is loaded may leave its chunks on the device
    cdef uint64_t _age
    cdef Py_ssize_t _refused_family  # values of the last that share memory which somebody outside sees
    cdef uint64_t _shared_changes   # how often a value that has a part of shared memory was given to anybody, or came
    cdef List _lists[NR_LISTS]

    cdef int64_t _weigh(self, list once, list blocks) except -1
    cdef int64_t _leave(self, Resident r) except? -1
    cdef int64_t _own_weight(self, Resident r) except? -1
    cdef object _came(self, Resident r, object coming)
    cdef object _give_back(self, int64_t charged, object coming)
    cdef void _touch(self, Resident r) noexcept
    cdef void _put_on(self, Resident r, int where) noexcept
    cdef void _take_off(self, Resident r) noexcept
    cdef void _set_weight(self, Resident r, int64_t weight) noexcept
    cdef void _put_back(self, Resident r) noexcept
    cdef void _settle(self, Slot slot, Resident r, object value, int64_t weight) noexcept
    cdef bint _remove(self, object key, Slot slot, uint64_t at) except -1
    cdef int64_t _forget(self, Slot slot, bint *owns) noexcept
    cdef Charging *_begin_charging(self) except NULL
    cdef int64_t _end_charging(self, Charging *mine) noexcept
    cdef object _charge(self, int64_t nbytes, bint force)
    cdef object _release(self, int64_t charged)
    cdef object _free(self, int form, uint64_t at)
    cdef bint _keep_chunks(self, Slot slot, Resident r, int form, uint64_t at) except -1
    cdef void _forget_chunks(self, Resident r) noexcept
    cdef int64_t _free_packed(self, object packed) except -1

cdef object require_freed(int error)
