cimport cython

cdef enum:
    EXTENT_BYTES = 2097152      # a huge page
    REGION_BYTES = 33554432

# Address space that buffers are taken from one after the other.
cdef struct Region:
    char *mapping
    size_t mapped
    char *base                  # aligned to an extent
    size_t room
    size_t used                 # up to here buffers have been taken
    size_t live                 # of these that are there still

@cython.final
@cython.no_gc
cdef class Memory:
    cdef char *_data
    cdef Region *_region
    cdef size_t _taken
    cdef readonly Py_ssize_t nbytes
