from libc.stdint cimport uint32_t
from uzswap.core.paging.pagetable cimport MemcgPages, Page

cdef int comes_back(MemcgPages *m, Page *page, int alone) noexcept nogil
cdef void goes(MemcgPages *m, Page *page) noexcept nogil
cdef void note_return(MemcgPages *m, uint32_t away, uint32_t resident) noexcept nogil
