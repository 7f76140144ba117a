from uzswap.core.boundary.codecs cimport Codecs
from uzswap.core.store.state cimport Core

cdef class Backing(Codecs):
    cdef Core *_device(self) except NULL
