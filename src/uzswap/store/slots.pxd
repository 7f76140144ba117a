cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.boundary.engine cimport Engine
from uzswap.core.boundary.values cimport Batch
from uzswap.store.lruvec cimport Link, List, NR_LISTS

cdef extern from "Python.h":
    ctypedef int (*Visit "visitproc")(PyObject *thing, void *arg) noexcept
    ctypedef int (*Traverse "traverseproc")(PyObject *self, Visit visit, void *arg) noexcept
    ctypedef struct Traversed "PyTypeObject":
        Traverse tp_traverse

cdef enum:
    FORM_MASK = 7           # of Slot.word: see forms.pxd
    GONE = 8                # no longer the value of a key
    AGE_SHIFT = 8
    AGE_MASK = 0xFFFFFF
    AGE_UNIT_SHIFT = 12     # ages are counted in pages

@cython.final
cdef class Slot:
    cdef uint64_t at        # a reference to a Resident or a Packed, or the handle of a chunk
    cdef uint32_t weight    # bytes to be charged when its chunk is a value again
    cdef uint32_t word      # form, GONE, and Slots._age when it went out

@cython.final
cdef class Resident:
    cdef Link link
    cdef void *slot         # its owner; NULL once that is another value's, or nobody's
    cdef object value
    cdef object held
    cdef object obstacle
    cdef int64_t weight
    cdef int64_t more       # of it: what it was charged for memory that others may have a part of,
    cdef object part        # and that memory; see buffers.py
    cdef int64_t after
    cdef Py_ssize_t holders
    cdef uint64_t version
    cdef uint64_t seen
    cdef int where
    cdef int taken
    cdef int pins
    cdef bint referenced

@cython.final
cdef class Load:
    cdef object thread
    cdef object over
    cdef bint done

@cython.final
cdef class Run:
    cdef Batch batch
    cdef list going
    cdef list kept
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

cdef class Slots:
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
    cdef int64_t _reclaims
    cdef bint _refusing
    cdef uint64_t _age
    cdef List _lists[NR_LISTS]
    cdef object _wanted     # keys to be prefetched
    cdef object _prefetcher

    cdef void _touch(self, Resident r) noexcept
    cdef void _put_on(self, Resident r, int where) noexcept
    cdef void _take_off(self, Resident r) noexcept
    cdef int64_t _weigh(self, list once, list blocks) except -1
    cdef int64_t _leave(self, Resident r) except? -1
    cdef int64_t _own_weight(self, Resident r) except? -1
    cdef object _came(self, Resident r, object coming)
    cdef object _give_back(self, int64_t charged, object coming)
    cdef void _set_weight(self, Resident r, int64_t weight) noexcept
    cdef void _settle(self, Slot slot, Resident r, object value, int64_t weight) noexcept
    cdef object _load(self, object key, Slot slot, bint pop)
    cdef object _load_plain(self, Slot slot, int form)
    cdef object _bring_back(self, object key, Slot slot, bint pop)
    cdef object _count_stall(self, int64_t disk_ns)
    cdef object _unpack(self, int form, uint64_t at)
    cdef object _wait(self, Load load, object key)
    cdef bint _waits_for(self, Load load, object thread) except -1
    cdef object _over(self, Slot slot, Load load)
    cdef bint _remove(self, object key, Slot slot, uint64_t at) except -1
    cdef int64_t _forget(self, Slot slot, bint *owns) noexcept
    cdef object _charge(self, int64_t nbytes, bint force)
    cdef object _release(self, int64_t charged)
    cdef object _free(self, int form, uint64_t at)
    cdef object _drop(self, Py_ssize_t number)
    cdef Py_ssize_t _load_run(self, list run, list hold, bint force) except -2
    cdef Resident _coldest(self, Run run)
    cdef int64_t _recheck(self, Run run, int most)
    cdef int64_t _gather(self, Run run) except -1
    cdef object _examine(self, Run run, Resident r)
    cdef object _store(self, Run run)
    cdef object _store_large(self, Run run, Resident r, object value, object stream, object apart)
    cdef bint _go_out(self, Run run, Resident r, int form, uint64_t at) noexcept
    cdef void _put_back(self, Resident r) noexcept
