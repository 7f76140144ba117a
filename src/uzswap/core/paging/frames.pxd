from libc.stdint cimport int64_t, uint8_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager

cdef enum:
    # put_pages()
    ALL_MOVED = 1
    SOME_COPIED = 2

    # each_run(), in place of an advice
    REGISTER = 0
    FORBID = -1             # nobody may access it

cdef void ask_for_holes(Pager *p, uint64_t page, uint64_t n) noexcept nogil
cdef void events_pass(Pager *p) noexcept nogil
cdef int take_message(Pager *p, uint64_t *address, uint64_t *nbytes) noexcept nogil
cdef void mark_gone(Pager *p, uint64_t address, uint64_t nbytes) noexcept nogil
cdef int64_t put_copy(Pager *p, char *to, const char *frames, uint64_t nbytes) noexcept nogil
cdef int64_t put_zeros(Pager *p, char *to, uint64_t nbytes) noexcept nogil
cdef int64_t put_frames(Pager *p, char *to, char *frames, uint64_t nbytes) noexcept nogil
cdef int64_t take_pages(Pager *p, char *to, uint64_t page, uint64_t n) noexcept nogil
cdef int discard(Pager *p, uint64_t page, uint64_t n, int locked) noexcept nogil
cdef int protect(Pager *p, char *at, uint64_t nbytes, int on) noexcept nogil
cdef int put_pages(Pager *p, char *to, char *frames, uint64_t n, int may_move) noexcept nogil
cdef void poison(Pager *p, uint64_t page) noexcept nogil
cdef int lift(Pager *p, uint64_t page) noexcept nogil
cdef int take_batch(Pager *p) noexcept nogil
cdef void put_batch(Pager *p, int b, uint8_t n) noexcept nogil
cdef char *staging_of(Pager *p, int b) noexcept nogil
cdef int take_stock(Pager *p, uint64_t n, char **frames) noexcept nogil
cdef void stock_used(Pager *p, int b, char *frames, uint64_t n, int how) noexcept nogil
cdef int each_run(Pager *p, int advice, int fd) noexcept nogil
cdef uint64_t run_from(Pager *p, uint64_t first, uint64_t *end) noexcept nogil
