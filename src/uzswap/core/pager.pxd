from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.pagetable cimport Pager, Work

cdef enum:
    KEEP = 1                # the pages that come in stay: resident()

cdef int pager_start(Pager *p) noexcept nogil
cdef void pager_stop(Pager *p) noexcept nogil
cdef int area_free(Pager *p, uint32_t a) noexcept nogil
cdef int64_t evict_from(Pager *p, Work *w, uint32_t root, int64_t most) noexcept nogil
cdef int64_t evict_own(Pager *p, Work *w, uint32_t memcg, int64_t most) noexcept nogil
cdef int bring_range(Pager *p, Work *w, uint64_t first, uint64_t n, int flags) noexcept nogil
cdef int64_t evict_range(Pager *p, Work *w, uint64_t first, uint64_t n) noexcept nogil
cdef void unkeep_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void cool_range(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef void drop_range(Pager *p, Work *w, uint64_t first, uint64_t n) noexcept nogil
cdef uint32_t wait_events(Pager *p) noexcept nogil

cdef void *serve(void *arg) noexcept nogil
cdef void tell(Pager *p, uint32_t memcg, uint32_t events) noexcept nogil
cdef void find_run(Pager *p, uint64_t page, uint64_t *first, uint64_t *n) noexcept nogil
cdef void fault(Pager *p, Work *w, uint64_t page, int is_write) noexcept nogil
cdef void charge_run(Pager *p, Work *w, uint32_t memcg, uint64_t n) noexcept nogil
cdef void count(Pager *p, uint32_t memcg, int counter, int64_t n) noexcept nogil
cdef void uncharge(Pager *p, uint32_t memcg, int64_t n) noexcept nogil
cdef void bring_run(Pager *p, Work *w, uint64_t first, uint64_t n, int is_write, int flags) noexcept nogil
cdef void fill_empty(Pager *p, Work *w, uint64_t first, uint64_t at, uint64_t n, int is_write) noexcept nogil
cdef int place_pages(Pager *p, char *to, char *frames, uint64_t n, int may_move) noexcept nogil
cdef void load_swapped(Pager *p, Work *w, uint64_t first, uint64_t at, uint64_t n) noexcept nogil
cdef void lose(Pager *p, uint64_t page, int error) noexcept nogil
cdef int pick(Pager *p, Work *w, uint32_t memcg, int most) noexcept nogil
cdef int take_batch(Pager *p) noexcept nogil
cdef void back_on_list(Pager *p, uint32_t page, int stuck) noexcept nogil
cdef int move_out(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int make_room_in_zswap(Pager *p, uint32_t memcg) noexcept nogil
cdef int write_back_from(Pager *p, uint32_t root) noexcept nogil
cdef int64_t make_room(Pager *p, Work *w, uint32_t root) noexcept nogil
cdef int choose_filter(Pager *p, Work *w, int n, char *staging) noexcept nogil
cdef int packed_bytes(int length) noexcept nogil
cdef void store_batch(Pager *p, Work *w, int n, uint32_t memcg, char *staging) noexcept nogil
cdef int evict_picked(Pager *p, Work *w, int n, uint32_t memcg) noexcept nogil
cdef int below(Pager *p, uint32_t memcg, uint32_t root) noexcept nogil
cdef void settled(Pager *p, uint64_t page) noexcept nogil
