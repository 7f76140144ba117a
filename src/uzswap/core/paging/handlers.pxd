from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.paging.calls cimport uz_fault
from uzswap.core.paging.uffd cimport pthread_cond_t

cdef int handler_open(uz_fault serve) noexcept nogil
cdef void handlers_forked() noexcept nogil
cdef int blockers(int *tids, int most) noexcept nogil
cdef int is_blocked() noexcept nogil
cdef void look(int faulted) noexcept nogil
cdef int wait_briefly(pthread_cond_t *changed, pthread_mutex_t *lock) noexcept nogil
cdef int lock_unless(pthread_mutex_t *lock, const int *never) noexcept nogil
