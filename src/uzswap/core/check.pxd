from uzswap.core.state cimport Core

cdef int check_core(Core *c, list wrong) except -1
