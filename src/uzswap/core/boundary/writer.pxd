from uzswap.core.boundary.engine cimport Engine
from uzswap.core.store.state cimport Stream

cdef class Writer:
    cdef Engine engine
    cdef Stream *stream
    cdef object result
