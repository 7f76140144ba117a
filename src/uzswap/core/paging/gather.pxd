from libc.stdint cimport int64_t, uint64_t
from uzswap.core.paging.pagetable cimport BATCH_PAGES, Pager, Work

cdef enum:
    PIECE_BYTES = 65536     # spans are copied in pieces of at most so many, which lie in 17 pages at most
    MOST_PIECES = 1024      # of a batch
    GATHER_BYTES = 262144   # of the pieces of a batch: as many as BATCH_PAGES have

cdef enum:
    # Gather.slot
    ELSEWHERE = -1          # the page is reached where the program reaches it
    NOUGHT = -2             # never touched: reads as zero

# Spans of an array, of one length, that are copied to or from memory elsewhere.
cdef struct Gather:
    # asked
    uint64_t first          # page of the area's first byte
    const uint64_t *begins  # of the spans, in bytes from there; ascending is fastest
    const uint64_t *places  # of their copies in `memory`
    int64_t n
    uint64_t length
    char *memory
    char *buffer            # GATHER_BYTES, for scatter
    # answered
    int error
    uint64_t failed         # page with it
    # under way: the batch
    int64_t piece           # next
    int64_t end
    int nr_pages
    int nr_loaded
    uint64_t page[BATCH_PAGES]      # ascending
    int slot[BATCH_PAGES]           # of Work.scratch, or one of the above
    uint64_t old[BATCH_PAGES]       # by slot: handles that were replaced

cdef void gather(Pager *p, Work *w, Gather *g) noexcept nogil
cdef void scatter(Pager *p, Work *w, Gather *g) noexcept nogil

cdef uint64_t begin_of(const Gather *g, int64_t piece, uint64_t *length, char **memory) noexcept nogil
cdef int place_in(const Gather *g, uint64_t page) noexcept nogil
cdef int fits(Gather *g, uint64_t first, uint64_t last) noexcept nogil
cdef void choose(Gather *g) noexcept nogil
cdef void claim_swapped(Pager *p, Work *w, Gather *g) noexcept nogil
cdef void unclaim(Pager *p, uint64_t page) noexcept nogil
cdef void load_claimed(Pager *p, Work *w, Gather *g) noexcept nogil
cdef void release_claimed(Pager *p, Work *w, Gather *g, int replaced) noexcept nogil
cdef void copy_pieces(Pager *p, Work *w, Gather *g, int direction, int which) noexcept nogil
cdef void store_claimed(Pager *p, Work *w, Gather *g) noexcept nogil
