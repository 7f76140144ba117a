from uzswap.core.paging.pagetable cimport Pager
from uzswap.core.store.state cimport Core

# An engine that forks are to take along.
cdef struct Kin:
    Kin *next
    Core *c
    Pager *p                # or NULL
    int lent                # to the child that is being forked

cdef int kin_add(Core *c) noexcept nogil
cdef void kin_drop(Core *c) noexcept nogil
cdef void kin_pager(Core *c, Pager *p) noexcept nogil
cdef int home() noexcept nogil
cdef void prepare() noexcept nogil
cdef void in_parent() noexcept nogil
cdef void in_child() noexcept nogil
