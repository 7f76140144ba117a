from uzswap.core.boundary.areas cimport Areas

cdef class Memory(Areas):
    pass
