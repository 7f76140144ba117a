from uzswap.core.paging.pagetable cimport Pager

cdef int pager_start(Pager *p) noexcept nogil
cdef void pager_close(Pager *p) noexcept nogil
cdef void pager_stop(Pager *p) noexcept nogil
cdef int keeper_start(Pager *p) noexcept nogil
cdef void open_again(Pager *p) noexcept nogil
cdef void *watch(void *arg) noexcept nogil
cdef void own_table(Pager *p) noexcept nogil
cdef void rouse(Pager *p) noexcept nogil
cdef void awake(Pager *p) noexcept nogil
cdef int start_threads(Pager *p) noexcept nogil
cdef int work_ready(Pager *p, int spare) noexcept nogil
cdef void relent(Pager *p) noexcept nogil
cdef int waits_for_somebody(int thread) noexcept nogil
cdef int all_live(const Pager *p) noexcept nogil
cdef void give_up(Pager *p) noexcept nogil
