from uzswap.core.engine cimport Engine
from uzswap.core.pagetable cimport Pager, Work

cdef class Memory:
    cdef Pager *pager
    cdef Engine engine
    cdef object __weakref__
    cdef Pager *_open(self) except NULL
    cdef Work *_work(self) except NULL
    cdef _done(self, Work *w)
