from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.codec cimport STEP_PAGES, Worker
from uzswap.core.store.entries cimport Table
from uzswap.core.store.spans cimport Span
from uzswap.core.libc_ext cimport pthread_mutex_t
from uzswap.core.store.state cimport Core, Delta, Stream

cdef enum:
    STORE_SKIP_LIMIT = 1
    STORE_REFUSE = 2
    STORE_FORCE = 4         # over every limit: the caller has nowhere to keep the page
    STORE_TRY_FILTER = 8    # the filter only if a sample of the data gets smaller by it
    FILTER_SAMPLE_BYTES = 8192

    STORE_DONE = 0
    STORE_OVER_LIMIT = 1
    STORE_POOL_FULL = 2
    STORE_OVER_SWAP = 3

    PLACED = 0
    NEEDS_ROOM = 1          # the stream has to move on, without the lock
    START_ANEW = 2          # its folio was refused at this page, and goes where refused pages go

cdef struct Page:
    const char *src
    uint32_t size
    int filled              # one repeated word that is kept as a value
    uint64_t word
    int length              # as the compressor answered
    int raw                 # it did not compress
    int codec
    char *packed            # its bytes as they are to be kept
    uint64_t sum            # of its bytes as they were given, where these are kept

cdef struct Store:
    # asked
    const Span *spans       # each an entry; or NULL, and what follows says where the entries are
    const char *data
    uint64_t nbytes
    uint32_t page
    uint32_t memcg
    uint32_t node
    uint64_t *handles
    int64_t start
    int64_t n
    int64_t folio
    int flags
    int asked               # slot of a codec that the caller holds, or -1: the engine's current one
    int filter              # see Codec.filter
    int small               # one for entries of at most small_bytes, without the filter; or -1
    uint32_t small_bytes
    int shares              # same-filled pages may share an entry: nobody takes handles for names
    # answered
    int64_t next
    int reason
    int error
    # under way
    Worker *worker
    Stream *stream
    Page pages[STEP_PAGES]
    int codec
    int writeback           # refused pages may go to the device
    int refused             # the current folio was refused by zswap
    int64_t folio_start
    uint32_t born
    int decided             # admit() was asked about it
    int64_t folio_zero      # its pages so far, by where they went
    int64_t folio_same
    int64_t folio_stored
    int64_t kicked          # pages handled since the pool was found full, + 1
    Delta delta

cdef int memcg_get(Table *t, uint32_t memcg, pthread_mutex_t *lock) noexcept nogil
cdef uint32_t follow_removal(Table *t, uint32_t memcg) noexcept nogil
cdef void swap_out(Core *c, Store *s) noexcept nogil
cdef uint32_t size_of(const Store *s, int64_t i) noexcept nogil
cdef int next_step(const Store *s, int64_t i) noexcept nogil
cdef int filter_helps(Core *c, const Store *s) noexcept nogil
cdef int choose_codec(Core *c, const Store *s) noexcept nogil
cdef void prepare(Core *c, Store *s, int64_t i, int k) noexcept nogil
cdef int admit(Core *c, Store *s, int64_t i, const Page *p) noexcept nogil
cdef int place(Core *c, Store *s, int64_t i, Page *p) noexcept nogil
cdef void count_entry(Core *c, const Page *p, uint32_t length) noexcept nogil
cdef int store_in_pool(Core *c, Store *s, int64_t i, const Page *p) noexcept nogil
cdef int send_to_disk(Core *c, Store *s, int64_t i, const Page *p) noexcept nogil
cdef int drop_copies_for(Core *c, Store *s) noexcept nogil
cdef uint32_t new_entry(Core *c, Store *s, const Page *p, int state, uint32_t length) noexcept nogil
cdef uint32_t filled_entry(Core *c, Store *s, const Page *p) noexcept nogil
cdef void fit_into_stream(Core *c, Store *s, uint32_t size) noexcept nogil
cdef void end_folio(Core *c, Store *s) noexcept nogil
cdef void undo_folio(Core *c, Store *s, int64_t end) noexcept nogil
