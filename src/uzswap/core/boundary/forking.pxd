from uzswap.core.paging.pagetable cimport Pager
from uzswap.core.store.state cimport Core

cdef extern from *:
    """
    /* This thread is about to fork by way of Python: others may be, too. */
    static __thread int uz_announced;
    static inline void uz_announce(int on) { uz_announced = on; }
    static inline int uz_is_announced(void) { return uz_announced; }
    """
    void uz_announce(int on) nogil
    int uz_is_announced() nogil

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
