from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.store.codec cimport STEP_PAGES, Worker
from uzswap.core.store.state cimport Core

cdef enum:
    RECOMPRESS_AGAIN = 1        # also what was tried before in vain
    COPIED_BYTES = 65536        # compressed bytes that one step takes; at least one entry fits

# An entry that is being compressed again.
cdef struct Again:
    uint32_t index
    uint32_t gen
    uint64_t data
    uint32_t length
    uint32_t size
    int codec
    int target
    const char *copy            # its bytes as they were
    const char *packed          # and as they are to be; NULL: they stay
    uint32_t packed_length

cdef struct Recompress:
    # asked
    uint32_t memcg
    uint32_t node
    int algorithm
    int level
    int64_t nr_to_scan
    int64_t budget              # compressed bytes to take
    uint64_t since              # entries with a later stamp are not met: their turn is over
    uint32_t youngest           # entries born after this are no candidates
    int flags
    uint64_t position           # in and out: handle of the last entry that was met and stayed in its place, or 0
    # answered
    int64_t scanned
    int64_t rotated
    int64_t entries             # compressed again
    int64_t bytes_before        # of these
    int64_t bytes_after
    int64_t refused             # not smaller with the other codec
    int64_t gone                # loaded, freed or on their way to the device meanwhile
    int64_t taken_bytes
    int exhausted
    int error
    # under way
    Worker *worker
    int64_t passes
    Again step[STEP_PAGES]

cdef void recompress(Core *c, Recompress *w) noexcept nogil
cdef int take_step(Core *c, Recompress *w) noexcept nogil
cdef uint32_t next_entry(Core *c, const Recompress *w, uint32_t owner) noexcept nogil
cdef int take_one(Core *c, Recompress *w, uint32_t index, uint32_t owner, Again *a) noexcept nogil
cdef void pack_step(Core *c, Recompress *w, int k) noexcept nogil
cdef void settle_step(Core *c, Recompress *w, int k) noexcept nogil
