from libc.stdint cimport int64_t, uint64_t
from uzswap.core.pagetable cimport Pager

cdef enum:
    # put_pages()
    ALL_MOVED = 1
    SOME_COPIED = 2

cdef void events_pass(Pager *p) noexcept nogil
cdef void punch(Pager *p, uint64_t address, uint64_t nbytes) noexcept nogil
cdef int64_t put_copy(Pager *p, char *to, const char *frames, uint64_t nbytes) noexcept nogil
cdef int64_t put_zeros(Pager *p, char *to, uint64_t nbytes) noexcept nogil
cdef int64_t move(Pager *p, char *to, char *frames, uint64_t nbytes) noexcept nogil
cdef int protect(Pager *p, char *at, uint64_t nbytes, int on) noexcept nogil
cdef int put_pages(Pager *p, char *to, char *frames, uint64_t n, int may_move) noexcept nogil
cdef void poison(Pager *p, uint64_t page) noexcept nogil
cdef int take_batch(Pager *p) noexcept nogil
cdef int take_stock(Pager *p, uint64_t n, char **frames) noexcept nogil
cdef void stock_used(Pager *p, int b, char *frames, uint64_t n, int how) noexcept nogil
