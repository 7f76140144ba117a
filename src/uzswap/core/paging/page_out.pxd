from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport BATCH_PAGES, PAGE_BYTES, Pager, Work
from uzswap.core.store.swap_out cimport Store

cdef enum:
    # Compressed bytes that are written back at once: as many as a batch of pages takes that do not compress.
    WRITE_BACK_BYTES = BATCH_PAGES * PAGE_BYTES

cdef int evict_picked(Pager *p, Work *w, int n) noexcept nogil
cdef int make_room_in_zswap(Pager *p, uint32_t memcg, int64_t most) noexcept nogil

cdef void has_gone(Pager *p, uint64_t page) noexcept nogil
cdef void back_on_list(Pager *p, uint32_t page, int stuck) noexcept nogil
cdef int move_out(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int copy_out(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int drop_copied(Pager *p, uint64_t page) noexcept nogil
cdef void prepare_store(Work *w, int first, int end, uint32_t memcg, char *staging) noexcept nogil
cdef void put_back(Pager *p, Work *w, int i, uint32_t memcg, char *staging) noexcept nogil
cdef void stays(Pager *p, uint32_t page, int64_t error) noexcept nogil
cdef int run_of(Work *w, int i, int n) noexcept nogil
cdef int choose_filter(Pager *p, Work *w, int i, int n, char *staging) noexcept nogil
cdef int packed_bytes(int length) noexcept nogil
cdef void store_pages(Pager *p, Work *w, int n, uint32_t memcg, char *staging) noexcept nogil
cdef void store_run(Pager *p, Work *w, int first, int end, uint32_t memcg, char *staging) noexcept nogil
cdef void note_refusals(Pager *p, const Store *s, int64_t begin) noexcept nogil
cdef void score_copies(Pager *p, uint32_t area, int copies, int good) noexcept nogil
cdef void breathe(Pager *p) noexcept nogil
