from libc.stdint cimport uint32_t
from uzswap.core.paging.pagetable cimport MemcgPages, Pager, Token

cdef void loaded(Pager *p, MemcgPages *m, uint32_t page, int thread, int came_back) noexcept nogil
cdef int kept_out(const Token *k, int thread) noexcept nogil

cdef void count(Token *k, int thread) noexcept nogil
cdef int thrashes(const Token *k) noexcept nogil
cdef int choose(const Token *k) noexcept nogil
cdef void begin(Token *k) noexcept nogil
cdef int contends(const Token *k, int i) noexcept nogil
cdef void give(MemcgPages *m, int thread) noexcept nogil
cdef void take_back(MemcgPages *m) noexcept nogil
cdef int has_done(Token *k) noexcept nogil
