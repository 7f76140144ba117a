from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.state cimport Core
from uzswap.core.swap_in cimport Load
from uzswap.core.swap_out cimport Store
from uzswap.core.uffd cimport pthread_cond_t, pthread_t

cdef enum:
    PAGE_BYTES = 4096
    BATCH_PAGES = 64        # evicted, or brought in, at once
    NR_BATCHES = 16
    NR_TRACKERS = 8
    MOST_THREADS = 8
    NO_BATCH = 0xFF

    # Page.state
    P_NONE = 0              # never touched, or dropped: reads as zero
    P_RESIDENT = 1
    P_SWAPPED = 2
    P_COMING = 3            # being brought in
    P_GOING = 4             # being evicted
    P_LOST = 5              # its bytes could not be read

    # Page.flags
    P_ACTIVE = 1            # on the active list
    P_LISTED = 2            # on a list at all
    P_KEPT = 4              # resident() holds it
    P_STUCK = 8             # the kernel would not let it go (pinned, mlocked, shared after fork): retried with back-off

    # Batch.state
    B_EMPTY = 0
    B_STOCK = 1             # frames first .. last - 1 are present, their content is nothing
    B_BUSY = 2

    # What a fault-serving thread tells the layer above
    E_HIGH = 1
    E_MAX = 2
    E_OOM = 4
    E_POOL_FULL = 8

cdef struct Page:
    uint64_t handle
    uint32_t prev
    uint32_t next
    uint32_t shadow         # MemcgPages.evictions when it was evicted
    uint32_t area
    uint8_t state
    uint8_t flags
    uint16_t stuck          # times that eviction passes over it
    uint8_t backoff

cdef struct Area:
    uint64_t first
    uint64_t pages
    uint32_t memcg
    uint32_t next_free
    uint8_t used
    uint8_t item            # item size of the array, for the byte shuffle; 0 for none
    uint8_t filter_on       # what the last sample said
    uint32_t filter_left    # batches until the next sample
    uint64_t resident
    uint64_t faults
    uint64_t loads

cdef struct PageList:
    uint32_t head           # oldest
    uint32_t tail
    uint32_t length

cdef struct MemcgPages:
    PageList inactive
    PageList active
    uint32_t evictions
    uint32_t events         # E_* since they were last taken

cdef struct Tracker:
    uint64_t up             # where an ascending stream would fault next
    uint64_t down
    uint32_t window
    uint64_t used

cdef struct Batch:
    uint8_t state
    uint8_t first
    uint8_t last

cdef struct Range:
    uint64_t first
    uint64_t pages

# What one thread needs to bring pages in or evict them; never shared.
cdef struct Work:
    Work *next
    Load load
    Store store
    uint64_t handles[BATCH_PAGES]
    uint32_t picks[BATCH_PAGES]
    int result[BATCH_PAGES] # of bringing a page in: 0, -1 try again, or the errno with which it was lost
    uint32_t over_high
    char *scratch           # BATCH_PAGES pages

cdef struct Pager:
    Core *c
    int fd
    int user_only
    int can_move
    int can_poison
    int stop_read
    int stop_write
    pthread_mutex_t lock
    pthread_cond_t changed
    pthread_cond_t told
    char *base
    uint64_t nr_pages
    Page *pages
    Area *areas
    uint32_t max_areas
    uint32_t next_area
    uint32_t free_area
    uint32_t live_areas
    Range *ranges           # free address space, sorted
    uint32_t nr_ranges
    uint32_t max_ranges
    MemcgPages *memcgs
    size_t memcgs_bytes
    int initialised
    char *staging
    Batch batches[NR_BATCHES]
    char *zeros
    Work *works
    Tracker trackers[NR_TRACKERS]
    uint64_t ticks
    uint32_t reclaim_cursor
    uint32_t write_back_cursor
    pthread_t threads[MOST_THREADS]
    int nr_threads
    uint32_t events
    int waiting             # threads in wait_events()
    int closing
    int64_t resident
    int64_t faults
    int64_t evicted
    int64_t moved_back

cdef int table_open(Pager *p, int want_user_only) noexcept nogil
cdef void table_close(Pager *p) noexcept nogil
cdef uint32_t area_new(Pager *p, uint64_t nbytes, uint32_t memcg) noexcept nogil
cdef void area_put(Pager *p, uint32_t a) noexcept nogil
cdef void list_add(Pager *p, uint32_t page) noexcept nogil
cdef void list_add_oldest(Pager *p, uint32_t page) noexcept nogil
cdef void list_del(Pager *p, uint32_t page) noexcept nogil
cdef void balance(Pager *p, MemcgPages *m) noexcept nogil
cdef Work *work_get(Pager *p) noexcept nogil
cdef void work_put(Pager *p, Work *w) noexcept nogil
cdef int range_take(Pager *p, uint64_t n, uint64_t *first) noexcept nogil
cdef int range_put(Pager *p, uint64_t first, uint64_t n) noexcept nogil
cdef uint32_t memcg_of(Pager *p, uint32_t a) noexcept nogil
cdef void memcg_reparent(Pager *p, uint32_t memcg, uint32_t parent) noexcept nogil
