from uzswap.core.boundary.engine cimport Engine
from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.paging.pagetable cimport Pager, Work
from uzswap.core.paging.uffd cimport pthread_cond_t

cdef class Paged:
    cdef Pager *pager
    cdef pthread_mutex_t gate   # guards pager, users and closing
    cdef pthread_cond_t passed
    cdef int users              # calls under way
    cdef int closing
    cdef Engine engine
    cdef object __weakref__
    cdef Pager *_enter(self) except NULL
    cdef void _leave(self) noexcept
    cdef Work *_work(self, Pager *p) except NULL

cdef void pager_lock(Pager *p) noexcept nogil
cdef void pager_unlock(Pager *p) noexcept nogil
cdef void work_done(Pager *p, Work *w) noexcept nogil
