from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    CHUNK_ENTRIES = 1024
    CHUNK_BYTES = 49152         # a whole number of 4096-byte pages
    NO_CHUNK = 0xFFFFFFFF
    NR_NODES = 8
    ROOT = 0
    NO_MEMCG = 0xFFFFFFFF

    # Entry.state
    FREE = 0
    IS_ZERO = 1
    IS_SAME = 2
    IN_POOL = 3
    ON_DISK = 4
    GOING_TO_DISK = 5           # refused by the pool, its bytes are in a writer's buffer only

    # Entry.flags
    REFERENCED = 1
    HELD = 2                    # being loaded: not for writeback, not for a second load
    WRITING = 4                 # a copy of its bytes is on its way to the device; off the LRU
    FAILED = 8                  # its last writeback failed, at the time of its stamp
    DOOMED = 16                 # being freed
    TRIED = 64                  # compressing it again has saved nothing
    CLEAN = 32                  # what it is of is in memory, too, unchanged; off the LRU, on Memcg.clean or Core.cached
    SHARED = 128                # a value that many pages have: Entry.stamp counts them, but for one (swap_out.filled_entry)

    # MemcgState
    MEMCG_FREE = 0
    MEMCG_ONLINE = 1
    MEMCG_DEAD = 2

cdef enum:
    # levels, in bytes
    C_RESIDENT = 0
    C_ZSWAP = 1
    C_ZSWAPPED = 2
    C_INCOMP = 3
    C_SWAP = 4
    C_DISK = 5
    C_CLEAN = 6             # compressed bytes of clean copies
    C_SWAPCACHED = 7        # what is in memory and has one, in the pool or on the device
    C_METADATA = 8          # bytes of the tables that tell where pages are: no level of what they hold
    NR_LEVELS = 9
    # events
    C_ZSWPIN = 9
    C_ZSWPOUT = 10
    C_ZSWPWB = 11
    C_PROACTIVE_B = 12
    C_PSWPIN = 13
    C_PSWPOUT = 14
    C_SWPIN_ZERO = 15
    C_SWPOUT_ZERO = 16
    C_SAME_FILLED = 17
    C_PGFAULT = 18
    C_PGMAJFAULT = 19
    C_REFAULT = 20
    NR_COUNTERS = 21

    # engine-wide only, after those above
    G_POOL_LIMIT_HIT = 21
    G_RECLAIM_FAIL = 22
    G_ALLOC_FAIL = 23
    G_KMEMCACHE_FAIL = 24
    G_COMPRESS_FAIL = 25
    G_COMPRESS_POOR = 26
    G_DECOMPRESS_FAIL = 27
    G_WRITTEN_BACK = 28
    G_STORED = 29
    G_STORED_INCOMP = 30
    G_CHECKSUM_FAIL = 31
    G_IO_ERROR = 32
    NR_GLOBALS = 33

cdef struct Entry:
    uint64_t data               # pool address, byte offset on the device, or the word
    uint64_t stamp              # order of store or last rotation over the whole engine; CLEAN: whose copy it is;
                                # SHARED: how many pages have it besides one
    uint32_t gen                # sequence number of the allocation: the upper half of the handle; 0 when free
    uint32_t memcg              # owner when it was stored; owner_of() gives today's
    uint32_t prev
    uint32_t next               # LRU links, or the free list; index 0 is nobody
    uint32_t born               # when it entered zswap, in BORN_SHIFT units
    uint16_t length_1           # compressed bytes - 1
    uint16_t size_1             # uncompressed bytes - 1
    uint8_t state
    uint8_t flags
    uint8_t codec
    uint8_t node

cdef struct Chunk:
    uint32_t prev
    uint32_t next
    uint32_t free_head          # index + 1 of a free entry
    uint16_t live
    uint16_t carved

cdef struct Lru:
    uint32_t head               # oldest
    uint32_t tail
    uint32_t length
    uint32_t disk_swapins

cdef struct Memcg:
    uint32_t parent             # of a dead one: who took its entries over
    uint32_t refs               # entries that name it, children (dead ones too), and one while online
    uint32_t next_free          # while it is free: the next that is, + 1
    uint32_t pins               # of these, calls under way
    uint32_t stored             # entries in the pool that it owns itself
    uint8_t state
    uint8_t writeback
    uint8_t active              # on its parent's list (active.py)
    uint32_t nr_active          # children on its own
    uint32_t first_active
    uint32_t prev_active
    uint32_t next_active
    uint64_t birth              # order of creation
    Lru lru[NR_NODES]
    Lru clean                   # oldest copy first
    uint64_t filled[2]          # handles of the SHARED entries that were met last: of zeros, of another word
    int64_t counters[NR_COUNTERS]
    int64_t zswap_max           # in pages
    int64_t memory_high
    int64_t memory_max
    int64_t resident_max
    int64_t memory_min
    int64_t memory_low
    int64_t claimed_min         # of its use, what these two protect; see protection.py
    int64_t claimed_low
    int64_t children_min        # sums of that over its children
    int64_t children_low
    uint32_t toward             # a child, while protection is worked out; 0 for none
    int64_t swap_high
    int64_t swap_max
    int64_t memory_peak
    int64_t memory_peak_local
    int64_t swap_peak
    int64_t swap_peak_local

# Changes to one memcg's counters that are not applied yet: the ancestor walk is paid once a step, not once an entry.
cdef struct Delta:
    uint32_t memcg
    int dirty
    int64_t counters[NR_COUNTERS]

cdef struct Table:
    Entry *entries
    size_t mapping_bytes
    uint64_t *sums              # of the bytes that each entry was given, by its index; NULL: none are kept (sums.py)
    size_t sums_bytes
    uint32_t max_chunks
    uint32_t next_chunk
    uint32_t partial            # chunks with room
    uint32_t empty              # chunks whose memory was given back
    uint32_t chunks_in_use
    Chunk *chunks
    uint32_t last_gen
    uint64_t last_stamp
    int64_t live
    Memcg *memcgs
    size_t memcgs_bytes
    uint32_t max_memcgs
    uint32_t next_memcg
    uint32_t free_memcg         # first and last of a list through next_free, + 1
    uint32_t last_free_memcg
    uint32_t nr_free_memcgs
    uint64_t last_birth
    uint32_t nr_protected       # memcgs with memory.min or memory.low
    int64_t totals[NR_GLOBALS]

cdef int table_init(Table *t) noexcept nogil
cdef int64_t record_of_entry_bytes(const Table *t) noexcept nogil
cdef void table_destroy(Table *t) noexcept nogil
cdef uint32_t entry_alloc(Table *t) noexcept nogil
cdef void entry_free(Table *t, uint32_t index) noexcept nogil
cdef uint64_t handle_of(Table *t, uint32_t index) noexcept nogil
cdef Entry *entry_at(Table *t, uint64_t handle) noexcept nogil
cdef uint32_t owner_of(Table *t, const Entry *e) noexcept nogil

cdef void lru_add_tail(Table *t, uint32_t index, uint32_t memcg) noexcept nogil
cdef void lru_del(Table *t, uint32_t index, uint32_t memcg) noexcept nogil
cdef void lru_link(Table *t, Lru *lru, uint32_t index) noexcept nogil
cdef void lru_unlink(Table *t, Lru *lru, uint32_t index) noexcept nogil
cdef void lru_splice(Table *t, Lru *mine, Lru *theirs) noexcept nogil
cdef void lru_rotate(Table *t, uint32_t index, uint32_t memcg) noexcept nogil

