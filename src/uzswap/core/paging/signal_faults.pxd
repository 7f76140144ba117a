from libc.stdint cimport uint64_t
from uzswap.core.paging.pagetable cimport Pager

cdef int fault_here(uint64_t address, int to_write, int poisoned) noexcept nogil
cdef int mend(Pager *p, uint64_t offset, int to_write) noexcept nogil
cdef void bring_here(Pager *p, uint64_t offset, int to_write) noexcept nogil
