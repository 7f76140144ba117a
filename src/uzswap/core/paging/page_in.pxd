from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Work

cdef enum:
    # bring_run(flags)
    KEEP = 1                # the pages stay: resident()
    AHEAD = 2               # nobody waits for them yet
    TO_WRITE = 4            # they will be written to at once

cdef void bring_run(Pager *p, Work *w, uint64_t first, uint64_t n, int flags) noexcept nogil
cdef void bring_pages(Pager *p, Work *w, uint64_t n, int flags) noexcept nogil

cdef int are_neighbours(const uint32_t *run, uint64_t n) noexcept nogil

cdef uint32_t charge_run(Pager *p, Work *w, uint32_t area, uint64_t n, int flags) noexcept nogil
cdef int shrink_on_the_spot(Pager *p, Work *w, uint64_t n) noexcept nogil
cdef void leave_run(Pager *p, Work *w, uint64_t n) noexcept nogil
cdef int keep_copies(Pager *p, Work *w, uint32_t area, int flags) noexcept nogil
cdef void fill_empty(Pager *p, Work *w, uint64_t at, uint64_t n, int to_write) noexcept nogil
cdef void load_swapped(Pager *p, Work *w, uint64_t at, uint64_t n, int keep, int tries) noexcept nogil
cdef int again(Pager *p, uint64_t page) noexcept nogil
cdef void try_failed_again(Pager *p) noexcept nogil

cdef void lose(Pager *p, uint64_t page, int error) noexcept nogil
cdef int continues(const Pager *p, const Work *w, uint64_t i, uint64_t k) noexcept nogil
