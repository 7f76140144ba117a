"""The whole state of one engine: what the rooms of the data plane share."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.store.codec cimport Codec, NR_CODECS, Worker
from uzswap.core.device.device cimport Device, NR_FILES, Segment
from uzswap.core.device.device_io cimport DeviceIO, Request
from uzswap.core.device.lending cimport Inherited
from uzswap.core.device.record cimport Secret
from uzswap.core.device.read_around cimport ReadAround
from uzswap.core.gate cimport uz_gate
from uzswap.core.store.dictionary cimport Dictionary
from uzswap.core.store.entries cimport Delta, Entry, Lru, Table
from uzswap.core.store.histogram cimport NR_HISTOGRAMS, Histogram
from uzswap.core.libc_ext cimport aio_context_t, iocb, pthread_mutex_t
from uzswap.core.store.pool cimport Pool

cdef enum:
    NR_FLIGHTS = 2          # one is gathered while the other is sealed and written
    FLIGHT_ITEMS = 16384
    # Core.fault_writeback
    WRITE_IN_TURN = 0
    WRITE_COLDEST = 1
    WRITE_NOTHING = 2

    MOST_READ = 1048576     # the longest single read of a load; a spare worker has room for one, and its blocks' ends

    BORN_SHIFT = 24         # Entry.born has 32 bits: 2**24 ns (17 ms) a unit last 2.3 years, and min_age is in seconds

# One entry of a flight.
cdef struct Item:
    uint32_t index
    uint32_t gen
    uint32_t offset         # of its record in the segment
    uint32_t position       # in the caller's handle array, for an entry that has no copy in the pool

# One write to the device: a run of records.
cdef struct Flight:
    char *buf               # SEGMENT_BYTES, aligned
    Item *items
    uint32_t n
    uint32_t segment
    uint32_t start          # offset of buf[0] in the segment
    uint32_t fill           # bytes gathered
    int under_way
    int landed              # the device has answered
    int error
    iocb cb
    Request ask             # to the device's threads
    void *core

# One writeback request's way to the device.
cdef struct Stream:
    Stream *next            # of those that are idle, or of those in use
    Flight flights[NR_FLIGHTS]
    int current
    uint32_t segment        # OPEN and ours, or NO_SEGMENT
    int for_cleaning
    int proactive
    int no_space
    int error
    uint64_t *handles       # see Item.position
    aio_context_t aio
    int has_aio
    int64_t entries
    int64_t nbytes
    int64_t failed
    int64_t gone
    uint64_t *old           # for cleaning: where each item was

# Of recompression, since the engine was made.
cdef struct Recompressed:
    int64_t entries
    int64_t bytes_before
    int64_t bytes_after
    int64_t refused

cdef struct Core:
    pthread_mutex_t lock
    pthread_mutex_t cleaning
    Table t
    Pool pool
    Codec codecs[NR_CODECS]
    int codec               # the current pool
    int nr_codecs           # slots from here on were never used
    Dictionary *retired     # dictionaries that are to be freed, without the lock
    Device device
    int has_device
    ReadAround around       # what was read of the files for values, and is around them
    Request trim            # see trim_device()
    int trimming            # it is under way
    int has_aio             # a stream writes asynchronously
    Worker *workers
    Worker *spare           # loads what there is no memory for otherwise: swap_in()
    pthread_mutex_t sparing # who has it; held while the device is read, so before `lock`
    Stream *streams         # idle
    Stream *used            # those that somebody has
    uz_gate gate            # of operations; those on pages have Pager.gate, which is shut after this one
    Inherited *files[NR_FILES]  # that this process has from those above it, by number; the device's own is none of them
    uint8_t *keys           # KEY_BYTES for each file, by number, in locked memory; NULL: nothing is encrypted
    int file_unused         # one of these has nothing in it any more
    int pid                 # the process whose this is
    int lease               # for the child that is being forked: what it keeps of the device's own; or -1
    int nodes
    int enabled
    int same_as_value
    int reached_full
    int64_t pool_max
    int64_t pool_accept
    int64_t skew            # ns
    Histogram histograms[NR_HISTOGRAMS]
    Recompressed recompressed
    int abandoned           # paged memory has broken: threads of it may still be at work here
    Lru cached              # see swap_cache.py: oldest first
    int64_t cached_bytes    # compressed, of these
    uint64_t copies_after   # birth of the memcg that gave up clean copies last
    int fault_writeback     # how faults write back: see make_room.write_back_from()

# Where charging resident memory met limits: memcgs, or NO_MEMCG.
cdef struct Charge:
    uint32_t over_max       # over memory.max or uzswap.resident.max: nothing is charged
    uint32_t over_high
    int64_t excess          # bytes over that memory.high
    uint32_t near           # of one of these two, less than its reserve is left
    int resident            # the limit that over_max or near is about is of resident memory alone

cdef int core_init(Core *c, int nodes, int paranoid) noexcept nogil
cdef void core_destroy(Core *c) noexcept nogil
cdef int64_t core_now(const Core *c) noexcept nogil
cdef uint32_t born_units(int64_t ns) noexcept nogil
cdef Worker *worker_get(Core *c) noexcept nogil
cdef void worker_put(Core *c, Worker *w) noexcept nogil
cdef int64_t whole_pages(uint32_t size) noexcept nogil
cdef int may_write_back(Core *c, uint32_t memcg) noexcept nogil
cdef void leave_pool(Core *c, Delta *d, uint32_t index, uint32_t owner) noexcept nogil
cdef void clean_leave(Core *c, Delta *d, uint32_t index, uint32_t memcg) noexcept nogil
cdef void cached_leave(Core *c, Delta *d, uint32_t index, uint32_t memcg) noexcept nogil
cdef void codec_unref(Core *c, int slot) noexcept nogil
cdef void retire(Core *c, int slot) noexcept nogil
cdef void on_disk_dead(Core *c, uint64_t place, uint32_t length) noexcept nogil
cdef void entry_drop(Core *c, Delta *d, uint32_t index) noexcept nogil
cdef int core_charge(Core *c, uint32_t memcg, int64_t n, int force, Charge *charge) noexcept nogil
cdef int64_t reserve_below(int64_t limit) noexcept nogil
cdef int64_t room_in(Core *c, uint32_t memcg, int *resident) noexcept nogil
cdef DeviceIO *file_at(Core *c, uint64_t place, Secret *secret, const Segment **segments) noexcept nogil
cdef void trim_device(Core *c) noexcept nogil
cdef void close_unused(Core *c) noexcept nogil
cdef void trim_all(void *arg) noexcept nogil
cdef void give_back(Core *c) noexcept nogil
cdef int has_to_give(const Core *c) noexcept nogil
cdef void stream_free(Stream *s) noexcept nogil
cdef void idle_free(Worker *workers, Stream *streams) noexcept nogil
