from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from uzswap.core.gate cimport uz_gate
from uzswap.core.libc_ext cimport pthread_mutex_t, pthread_rwlock_t
from uzswap.core.store.state cimport Charge, Core
from uzswap.core.store.reading cimport Load
from uzswap.core.store.swap_out cimport Store
from uzswap.core.paging.calls cimport uz_serve
from uzswap.core.paging.uffd cimport pthread_cond_t, pthread_t

cdef enum:
    PAGE_BYTES = 4096
    BATCH_PAGES = 64        # evicted, or brought in, at once
    NR_BATCHES = 16
    NR_TRACKERS = 8
    MOST_THREADS = 8        # that serve faults
    MOST_WORKERS = 4        # that read ahead and evict
    MOST_WAITERS = 64       # threads whose faults are known at a time: see stalls.py
    AT_ONCE = 4             # pages that one instruction may need: two operands, each over a border
    CONTENDERS = 8          # threads that are counted one by one: see swap_token.py
    LABEL_BYTES = 192       # of a label, at most
    HOLD_PAGES = 1024       # of an area, looked at in one hold of the lock: some tens of microseconds
    # The page table comes into use so many pages at a time, 24 KiB: a whole number of pages of its own.
    LEAF_PAGES = 1024

    # Page.state
    P_NONE = 0              # never touched, or dropped: reads as zero
    P_RESIDENT = 1          # with an entry: it may have a clean copy
    P_SWAPPED = 2
    P_COMING = 3            # being brought in
    P_GOING = 4             # being evicted
    P_LOST = 5              # its bytes could not be read: they are poison, its entry is kept

    # Page.flags
    P_ACTIVE = 1            # on the active list
    P_LISTED = 2            # on a list at all
    P_KEPT = 4              # resident() holds it
    P_SQUEEZED = 64         # on its way in, it waits for an eviction
    P_STUCK = 8             # the kernel would not let it go (pinned, mlocked, shared after fork): retried with back-off
    P_AGAIN = 16            # P_LOST, and on Pager.failed: its next reading may succeed
    P_LEADER = 128          # one of the few that duel: see workingset.py
    P_WANTED = 32           # P_GOING or P_COMING, and somebody waits in a fault for what comes of it

    # MemcgPages.lrus
    L_FOLLOWERS = 0
    L_TURNERS = 1           # leaders: what comes back soon puts out the oldest active page
    L_KEEPERS = 2           # leaders: the active list is let be
    NR_LRUS = 3

    # Area.hint
    H_NORMAL = 0
    H_SEQUENTIAL = 1        # read ahead from the first fault on
    H_RANDOM = 2            # never

    # Batch.state
    B_EMPTY = 0
    B_STOCK = 1             # frames first .. last - 1, if any, can be used; discarded before all else
    B_BUSY = 2

    # What a fault-serving thread tells the layer above
    E_HIGH = 1
    E_MAX = 2
    E_OOM = 4
    E_POOL_FULL = 8
    E_LOW = 16
    E_SWAP = 32             # swap.high, swap.max or swap.fail
    E_STALL = 64            # somebody has begun to wait

cdef struct Page:
    uint32_t entry          # its own; P_RESIDENT: of its clean copy, if that is still there (clean.py); 0 for none
    uint32_t prev           # P_SWAPPED: Lru.evictions when it was evicted
    uint32_t next
    uint32_t area
    uint8_t state
    uint8_t flags
    uint16_t stuck          # times that eviction passes over it
    uint8_t backoff
    uint8_t gone            # the program unmapped it or moved it away: see frames.mark_gone(), which alone writes it
    uint16_t held           # system calls that use it now: it is on no list (syscalls.py)

cdef struct Area:
    uint64_t first
    uint64_t pages
    uint32_t memcg
    uint32_t next_free
    uint8_t used
    uint8_t item            # item size of the array, for the byte shuffle; 0 for none
    uint8_t filter_on       # what the last sample said
    uint8_t hint
    uint32_t filter_left    # batches until the next sample
    uint32_t unkept         # runs that came in without keeping copies, since one did
    int64_t step            # bytes between the faults of the last stream that left out pages
    int clean_score         # whether keeping copies has paid: see page_in.py
    uint64_t resident
    uint64_t faults
    uint64_t loads
    int64_t table_bytes     # of the page table, charged
    char *label             # what the array is, likewise; NULL when nobody said

cdef struct PageList:
    uint32_t head           # oldest
    uint32_t tail
    uint32_t length

cdef struct Lru:
    PageList inactive
    PageList active
    uint32_t evictions

# Whose pages stay where several threads take each other's away: see swap_token.py.
cdef struct Token:
    int holder              # thread, 0 for none
    int last                # who had it last
    uint32_t since          # Lru.evictions of followers when it was given, or taken back
    int64_t ran             # CPU time of the holder when it was looked at, in ns,
    int64_t ran_at          # and when it was found to have run
    uint32_t loads          # since there was a look at them
    uint32_t back           # of these, pages that came back soon,
    uint32_t shared         # of these, where one had come back for another thread,
    int threads[CONTENDERS]
    uint32_t counts[CONTENDERS] # and for whom

cdef struct MemcgPages:
    Lru lrus[NR_LRUS]
    uint32_t loads[NR_LRUS] # of leaders, lately: see workingset.py
    int keeping             # L_FOLLOWERS do as L_KEEPERS
    uint32_t to_let_go      # active pages that take their turn since they do not any more
    Token token
    uint32_t passed_over    # that might have come onto the active list, since one did
    uint32_t events         # E_* since they were last taken
    uint32_t nr_high        # how often, since they were last taken
    uint32_t nr_max
    uint32_t nr_oom
    uint32_t nr_low
    uint32_t nr_swap_high
    uint32_t nr_swap_max
    uint32_t nr_swap_fail
    int over_high           # memory.high was met, and nobody has acted on that yet
    uint32_t next_shrinking # in the queue of memcgs that workers evict from
    int shrinking
    char *label             # its path, where a message has to name it
    int64_t leaving         # bytes on their way out, still charged
    uint32_t members        # threads that have faults, of its subtree; see stalls.py
    uint32_t stalled        # of these, who waits
    int64_t since           # until when the times are counted
    int64_t some_ns         # time for which some of them waited, since it was last taken
    int64_t full_ns         # for which all did

cdef struct Waiter:
    int thread
    int stalled
    uint32_t memcg
    uint64_t page           # that it waits for, 0 for none
    int64_t seen            # its last fault began or ended then
    uint64_t latest[AT_ONCE]    # of what it has waited for
    int turn                # of these, the oldest
    int again               # it waits for one of them again: it got no further

cdef struct Tracker:
    uint64_t up             # where an ascending stream goes on
    uint64_t down
    uint64_t seen           # the page of the stream's last fault
    uint64_t used
    uint32_t area
    uint32_t window
    int direction           # 0 until it is known
    int is_write
    int queued              # workers read ahead for it
    uint64_t at             # offset of its last fault in the reservation, in bytes
    int64_t gap             # from the fault before to that one
    int64_t step            # of a stream that leaves out pages, in bytes; 0 for others
    uint64_t next           # offset where that goes on

cdef struct Batch:
    uint8_t state
    uint8_t first
    uint8_t last

cdef struct Range:
    uint64_t first
    uint64_t pages

cdef enum:
    NO_PLACE = -2           # Work.result: the kernel takes no page there, since the program has unmapped it

# What one thread needs to bring pages in or evict them; never shared.
cdef struct Work:
    Work *next
    Work *other             # of all that there are
    int may_breathe         # between two batches: nobody waits for what the caller has half done
    Load load
    Store store
    Charge charge
    uint64_t handles[BATCH_PAGES]
    uint64_t owners[BATCH_PAGES]    # addresses of pages
    uint32_t run[BATCH_PAGES]       # pages that come in
    uint64_t kept[BATCH_PAGES]      # of pages that came in: the handles of their clean copies, or 0
    uint32_t picks[BATCH_PAGES]
    int result[BATCH_PAGES] # of bringing a page in: 0, -1 try again, NO_PLACE, or the errno with which it was lost
    char *scratch           # BATCH_PAGES pages

cdef struct Pager:
    Core *c
    int fd
    int user_only
    int by_signal               # faults are served in the threads that they are in: see signal_faults.py
    int roused                  # of a forked child: somebody wants its threads; 2: and waits for them, or they begin
    int64_t looked_at           # faults, when handlers.look() was last called
    int fd_lost                 # the program has closed the descriptor: threads of ours have it still
    int trapped                 # system calls on it: 1, or the -errno with which they could not be trapped
    int can_move
    int can_poison
    int is_told             # of what the program unmaps
    int stop_read
    int stop_write
    uint64_t identities[3][3]   # of these three: the program may close them, and use their numbers
    pthread_mutex_t lock
    pthread_cond_t changed      # the state of a page or a batch
    pthread_cond_t told         # events
    pthread_cond_t work         # something for workers
    pthread_rwlock_t marks      # see frames.py
    uz_gate gate                # of all that has pages on their way, or waits for those who have
    int pid                     # the process whose this is
    int away                    # a forked child could not have it
    int forked                  # pages may be shared with children, or a parent
    int relented                # a fork has been waited for too long: the child has none of it
    int64_t rested              # when all was at rest for a fork
    int forker                  # who forks
    pthread_mutex_t watching    # what the keeper looks at: closing; of a fork, whether it relents
    pthread_cond_t watch        # for the keeper, with `watching`
    char *base
    uint64_t nr_pages
    uint64_t top                # pages from this one on were never an array's
    int64_t nr_held             # Page.held in all
    Page *pages
    uint32_t *untouched         # leaf of the page table -> the area that all of it is, until one of its pages is touched
    int *came_back_for          # leaf of the page table -> the thread for which a page of it came back last
    Area *areas
    uint32_t max_areas
    uint32_t next_area
    uint32_t free_area
    uint32_t live_areas
    int strays                  # accesses outside arrays have left poison
    int holes                   # some Page.gone is set
    PageList failed             # pages whose reading failed in a way that may pass, oldest first
    uint32_t first_run          # runs that a server left to workers; see pager.leave()
    uint32_t last_run
    Range *ranges               # free address space, sorted
    uint32_t nr_ranges
    uint32_t max_ranges
    MemcgPages *memcgs
    size_t memcgs_bytes
    int initialised
    char *staging
    Batch batches[NR_BATCHES]
    int unused              # batches that were put into stock since frames of it were last used
    char *zeros
    Work *works                 # that nobody has
    Work *all_works
    Tracker trackers[NR_TRACKERS]
    uint64_t ticks
    int nr_queued               # trackers
    uint32_t first_shrinking
    uint32_t last_shrinking
    uint64_t evicted_after      # births of the memcgs that were served last: by evictions,
    int nr_evicting             # batches on their way out, of memory or of zswap
    int nr_arriving             # runs that are charged and on their way in
    Waiter waiters[MOST_WAITERS]
    int nr_waiters
    int nr_waiting              # of these, who waits for a page
    uint64_t wrote_after        # and by writeback
    pthread_t keeper
    pthread_t threads[MOST_THREADS + MOST_WORKERS]
    int thread_ids[MOST_THREADS + MOST_WORKERS]
    int nr_servers
    int nr_workers
    int nr_begun                # of both
    int started                 # 1, or the -errno with which it failed
    int keeper_ready            # it has a table of descriptors of its own
    int lazy                    # the others are started with the first fault: of a forked child
    int serving                 # servers that serve a fault
    uint32_t events
    int busy                    # threads of ours that are at work
    int settling                # threads that wait until none is
    int closing
    int broken                  # a thread was killed: nothing is served any more
    int64_t resident
    int64_t faults
    int64_t evicted
    int64_t evicted_clean       # of these, with a copy that was still good
    int64_t read_ahead
    int64_t swap_tokens         # times that a thread was given one

cdef int table_open(Pager *p, int want_user_only, int old_kernel, int by_signal, uz_serve serve) noexcept nogil
cdef char *reserve(Pager *p, uint64_t nbytes) noexcept nogil
cdef int staging_open(Pager *p) noexcept nogil
cdef int pipe_open(Pager *p) noexcept nogil
cdef void table_close(Pager *p) noexcept nogil
cdef void failed_add(Pager *p, uint32_t page) noexcept nogil
cdef void failed_del(Pager *p, uint32_t page) noexcept nogil
cdef Work *work_new(Pager *p) noexcept nogil
cdef void locks_init(Pager *p) noexcept nogil
cdef Work *work_get(Pager *p) noexcept nogil
cdef void work_put(Pager *p, Work *w) noexcept nogil
cdef void tell(Pager *p, uint32_t memcg, uint32_t events) noexcept nogil
cdef uint64_t handle_at(Pager *p, uint64_t page) noexcept nogil
cdef uint64_t address_of(const Pager *p, uint64_t page) noexcept nogil
cdef uint32_t memcg_of(Pager *p, uint32_t a) noexcept nogil
cdef uint32_t length_of(const Lru *of) noexcept nogil
