cdef class OrderedLock:
    cdef readonly int rank
    cdef readonly str name
    cdef readonly bint reentrant
    cdef unsigned long owner        # thread, 0 for none
    cdef int depth
    cdef object lock
    cdef object __weakref__
