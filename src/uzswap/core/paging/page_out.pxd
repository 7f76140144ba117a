from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.paging.pagetable cimport Pager, Work
from uzswap.core.store.active cimport Round
from uzswap.core.store.swap_out cimport Store

cdef void count(Pager *p, uint32_t memcg, int counter, int64_t n) noexcept nogil
cdef void uncharge(Pager *p, uint32_t memcg, int64_t n) noexcept nogil
cdef int64_t evict_from(Pager *p, Work *w, uint32_t root, int64_t most, int copies) noexcept nogil
cdef int64_t make_room(Pager *p, Work *w, uint32_t root, int64_t most, int resident) noexcept nogil
cdef int64_t may_go(Pager *p, uint32_t memcg, uint32_t root, int64_t n, int take_low, int *said) noexcept nogil
cdef int64_t evict_some(
    Pager *p, Work *w, uint32_t root, int64_t most, int copies, int take_low, int *said
) noexcept nogil
cdef int64_t make_some_room(
    Pager *p, Work *w, uint32_t root, int64_t most, int resident, int take_low, int *said
) noexcept nogil
cdef uint32_t online(Pager *p, uint32_t memcg) noexcept nogil
cdef int others_land(Pager *p) noexcept nogil
cdef int evict_picked(Pager *p, Work *w, int n) noexcept nogil
cdef void want_shrinking(Pager *p, uint32_t memcg) noexcept nogil

cdef int pick(Pager *p, Work *w, uint32_t memcg, int most) noexcept nogil
cdef void has_gone(Pager *p, uint64_t page) noexcept nogil
cdef void back_on_list(Pager *p, uint32_t page, int stuck) noexcept nogil
cdef int move_out(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int copy_out(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int drop_copied(Pager *p, uint64_t page) noexcept nogil
cdef void prepare_store(Work *w, int first, int end, uint32_t memcg, char *staging) noexcept nogil
cdef void put_back(Pager *p, Work *w, int i, uint32_t memcg, char *staging) noexcept nogil
cdef void stays(Pager *p, uint32_t page, int64_t error) noexcept nogil
cdef int run_of(Work *w, int i, int n) noexcept nogil
cdef uint32_t turn(Pager *p, uint32_t root, int which, uint64_t *after, Round *round) noexcept nogil
cdef uint32_t coldest(Pager *p, uint32_t root) noexcept nogil
cdef int write_back_from(Pager *p, uint32_t root, int take_low, int *said) noexcept nogil
cdef int make_room_in_zswap(Pager *p, uint32_t memcg, int64_t most) noexcept nogil
cdef int choose_filter(Pager *p, Work *w, int i, int n, char *staging) noexcept nogil
cdef int packed_bytes(int length) noexcept nogil
cdef void store_pages(Pager *p, Work *w, int n, uint32_t memcg, char *staging) noexcept nogil
cdef void store_run(Pager *p, Work *w, int first, int end, uint32_t memcg, char *staging) noexcept nogil
cdef void note_refusals(Pager *p, const Store *s, int64_t begin) noexcept nogil
cdef void score_copies(Pager *p, uint32_t area, int copies, int good) noexcept nogil
cdef void breathe(Pager *p) noexcept nogil
