"""sigbus.h: for handlers.py alone, since what is static there is state of the process."""

from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.paging.calls cimport uz_fault
from uzswap.core.paging.uffd cimport pthread_cond_t

cdef extern from "sigbus.h" nogil:
    enum: SIGBUS
    int uz_bus_open(uz_fault serve)
    void uz_bus_forked()
    int uz_bus_blockers(int *tids, int most)
    int uz_bus_is_blocked()
    void uz_bus_look(int faulted)
    int uz_lock_unless(pthread_mutex_t *lock, const int *never)
    int uz_wait_briefly(pthread_cond_t *changed, pthread_mutex_t *lock)
