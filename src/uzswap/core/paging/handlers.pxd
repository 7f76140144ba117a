from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.paging.calls cimport uz_fault

cdef int handler_open(uz_fault serve) noexcept nogil
cdef void handlers_forked() noexcept nogil
cdef int blockers(int *tids, int most) noexcept nogil
cdef int is_blocked() noexcept nogil
cdef void look() noexcept nogil
cdef int lock_unless(pthread_mutex_t *lock, const int *never) noexcept nogil
