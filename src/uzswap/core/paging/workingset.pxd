from libc.stdint cimport uint32_t
from uzswap.core.paging.pagetable cimport Lru, MemcgPages, Page, PageList, Pager, Work

cdef void list_add(Pager *p, uint32_t page) noexcept nogil
cdef void list_add_oldest(Pager *p, uint32_t page) noexcept nogil
cdef void list_del(Pager *p, uint32_t page) noexcept nogil
cdef int pick(Pager *p, Work *w, uint32_t memcg, int most, int sparing) noexcept nogil
cdef void evicted(MemcgPages *m, Page *x, uint32_t page) noexcept nogil
cdef void comes_back(Pager *p, MemcgPages *m, uint32_t page, int is_ahead, int thread) noexcept nogil
cdef void settles(MemcgPages *m, Page *x, uint32_t page, int alone) noexcept nogil
cdef uint32_t nr_listed(const MemcgPages *m) noexcept nogil
cdef void pages_reparent(Pager *p, uint32_t m, uint32_t parent) noexcept nogil

cdef void lists_reparent(Pager *p, MemcgPages *mine, MemcgPages *theirs) noexcept nogil

cdef Lru *lru_of(MemcgPages *m, const Page *x, uint32_t page) noexcept nogil
cdef uint32_t hash_of(uint32_t page) noexcept nogil
cdef int leads_for(uint32_t page) noexcept nogil
cdef void duel(MemcgPages *m, int which) noexcept nogil
cdef int keeps(const MemcgPages *m, int which) noexcept nogil
cdef void balance(Pager *p, Lru *of, uint32_t ratio) noexcept nogil
cdef void deactivate_oldest(Pager *p, Lru *of) noexcept nogil
cdef int pick_of(Pager *p, Work *w, MemcgPages *m, int which, int n, int most, int sparing) noexcept nogil
cdef void let_go(Pager *p, MemcgPages *m, int n) noexcept nogil
cdef void splice(Pager *p, PageList *mine, PageList *theirs) noexcept nogil
