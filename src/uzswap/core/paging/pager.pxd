from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Work

cdef uint32_t wait_events(Pager *p) noexcept nogil
cdef void settle(Pager *p) noexcept nogil

cdef void *serve(void *arg) noexcept nogil
cdef void *toil(void *arg) noexcept nogil
cdef Work *thread_begins(Pager *p) noexcept nogil
cdef void fault(Pager *p, Work *w, uint64_t address, int kind, int thread) noexcept nogil
cdef void at_work(Pager *p, int n) noexcept nogil
cdef int on_disk(Pager *p, const uint32_t *run, uint64_t n) noexcept nogil
cdef void bring_or_leave(Pager *p, Work *w, const uint32_t *run, uint64_t n, int flags) noexcept nogil
cdef void leave(Pager *p, const uint32_t *run, uint64_t n, int flags) noexcept nogil
cdef int bring_left(Pager *p, Work *w) noexcept nogil
cdef void help_ahead(Pager *p, Work *w, uint64_t page) noexcept nogil
cdef int read_ahead(Pager *p, Work *w) noexcept nogil
cdef int shrink(Pager *p, Work *w) noexcept nogil
