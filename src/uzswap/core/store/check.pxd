from libc.stdint cimport int64_t, uint32_t
from uzswap.core.device.device cimport NR_FILES
from uzswap.core.store.state cimport Core

cdef enum:
    MOST_FINDINGS = 200     # of one check: more say no more

    # Finding.what
    W_OUTSIDE = 0
    W_FREE_SEGMENT = 1
    W_FREE_ENTRY = 2
    W_LIVE = 3
    W_REFS = 4
    W_STORED = 5
    W_LEVEL = 6
    W_NOT_CLEAN = 7
    W_CLEAN = 8
    W_NOT_LRU = 9
    W_OTHERS = 10
    W_LRU = 11
    W_TOTAL = 12
    W_PAGES = 13
    W_CODEC = 14
    W_POOL = 15
    W_SEGMENT = 16
    W_DEVICE = 17
    W_FREE_LIST = 18
    W_NOT_ACTIVE = 19
    W_NR_ACTIVE = 20
    W_ACTIVE = 21
    W_FILE = 22
    W_CACHED = 23

# Something that is not as it should be, as the numbers that its text names.
cdef struct Finding:
    int what
    int64_t numbers[5]

cdef struct Findings:
    int n
    Finding found[MOST_FINDINGS]

# What is counted again.
cdef struct Recount:
    int64_t *levels         # of each memcg
    int64_t *refs
    int64_t *stored
    int64_t *on_clean
    int64_t *on_lru         # of each memcg and node
    int64_t *live           # of each segment
    int64_t in_files[NR_FILES]

cdef list check_core(Core *c)
cdef void note(Findings *f, int what, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e) noexcept nogil
cdef int recount_alloc(Recount *r, size_t nr_memcgs, size_t nr_segments) noexcept nogil
cdef void recount_free(Recount *r) noexcept nogil
cdef void check_all(Core *c, Recount *r, Findings *f) noexcept nogil
cdef void check_memcgs(Core *c, Recount *r, Findings *f) noexcept nogil
cdef void check_active(Core *c, uint32_t m, Findings *f) noexcept nogil
cdef void check_device(Core *c, Recount *r, Findings *f) noexcept nogil
