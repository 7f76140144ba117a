from libc.stdint cimport uint32_t

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    # What tp_alloc and tp_free are, which Cython's own declaration leaves out.
    ctypedef struct SlabType "PyTypeObject":
        Py_ssize_t tp_basicsize
        PyObject *(*tp_alloc)(SlabType *cls, Py_ssize_t nitems) noexcept
        void (*tp_free)(void *memory) noexcept
    PyObject *PyObject_Init(PyObject *memory, SlabType *cls)
    PyObject *PyErr_NoMemory() noexcept     # sets it, for tp_alloc's caller

cdef enum:
    SLAB_BYTES = 65536      # and their alignment
    OBJECT_BYTES = 32

cdef struct Slab:
    Slab *prev
    Slab *next              # of those with room
    void *first_free        # each free object begins with the next one's address
    uint32_t live
    uint32_t carved         # objects that were in use ever

cdef void allocate_from_slabs(type cls) except *
