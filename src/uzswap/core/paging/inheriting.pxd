from uzswap.core.paging.pagetable cimport Pager

cdef void pager_shut(Pager *p) noexcept nogil
cdef void pager_lend(Pager *p) noexcept nogil
cdef void pager_keep(Pager *p) noexcept nogil
cdef int pager_inherit(Pager *p) noexcept nogil
cdef int own_userfaultfd(Pager *p) noexcept nogil
cdef void as_new(Pager *p) noexcept nogil
cdef void let_go(Pager *p) noexcept nogil
cdef void pager_away(Pager *p, int mapped) noexcept nogil
