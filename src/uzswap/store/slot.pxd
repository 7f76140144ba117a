cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.store.forms cimport RESIDENT
from uzswap.store.lruvec cimport Link

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

# The chunks that the device keeps of a value in memory.
@cython.final
cdef class Cached:
    cdef object packed      # of several
    cdef uint64_t *chunks   # n of them; of one, this is chunk
    cdef int64_t n
    cdef uint64_t chunk
    cdef int form

@cython.final
cdef class Resident:
    # What an access needs is together: a line of the cache, or two.
    cdef object value
    cdef uint64_t version
    cdef readonly object part   # memory that others may have a part of; see buffers.py
    cdef int where
    cdef int pins
    cdef bint referenced
    cdef int taken
    cdef Link link
    cdef void *slot         # its owner; NULL once that is another value's, or nobody's
    cdef object held
    cdef object obstacle
    cdef int64_t weight
    cdef int64_t more       # of it: what it was charged for its part
    cdef int64_t after
    cdef Cached cached
    cdef Py_ssize_t holders
    cdef uint64_t seen
    cdef uint64_t shared_seen   # Table._shared_changes when its memory was found to be the store's alone; 0 without

# How the value is kept; with GONE, another number than any form.
cdef inline int form_in(Slot slot) noexcept:
    return slot.word & (FORM_MASK | GONE)

cdef inline Resident resident_in(Slot slot):
    return <Resident><void *>slot.at

cdef inline uint64_t address_of(object thing) noexcept:
    return <uint64_t><size_t><void *>thing

# Let a slot have a resident value; what it had before is the caller's.
cdef inline void own(Slot slot, Resident r) noexcept:
    Py_INCREF(r)
    slot.at = address_of(r)
    slot.weight = 0
    slot.word = RESIDENT
    r.slot = <void *>slot

# How many there are to what was found to be held.
cdef inline Py_ssize_t references(Resident r) noexcept:
    return (<PyObject *><void *>r.held).ob_refcnt
