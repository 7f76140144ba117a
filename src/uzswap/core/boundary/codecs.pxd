from uzswap.core.boundary.memcgs cimport Memcgs

cdef class Codecs(Memcgs):
    pass
