from libc.stdint cimport uint64_t

from uzswap.core.paging.calls cimport uz_call, uz_serve

cdef int trap_open(uz_serve serve) noexcept nogil
cdef int refuse_handlers(int number) noexcept nogil
cdef void *arena_open(uint64_t nbytes, void *pager) noexcept nogil
cdef void arena_close(void *pager) noexcept nogil
cdef void arenas_forked() noexcept nogil
cdef void *arena_at(uint64_t address) noexcept nogil
cdef long make(const uz_call *call, int waited) noexcept nogil
cdef int may_cut(int fd, int inward, int flags, int control) noexcept nogil
cdef void touch(const char *at) noexcept nogil
cdef int is_userfaultfd(int fd) noexcept nogil
cdef int which_are_there(uint64_t at, uint64_t pages, unsigned char *present) noexcept nogil
