from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from uzswap.core.device.device_io cimport DeviceIO
from uzswap.core.device.record cimport Secret

cdef enum:
    SEGMENT_SHIFT = 20
    SEGMENT_BYTES = 1048576
    BLOCK = 4096
    NO_SEGMENT = 0xFFFFFFFF
    RESERVE = 1             # free segments that only the cleaner may take, so that it can always begin

    SEG_FREE = 0
    SEG_OPEN = 1            # a stream appends to it
    SEG_PARKED = 2          # has room, and no stream
    SEG_SEALED = 3
    SEG_CLEANING = 4
    SEG_TRIMMING = 5
    SEG_LENT = 6            # nothing in it is ours, but a forked child may have something in it

    # Where an entry is on disk: the upper 8 bits say in which file (Core.files), the others where in it.
    FILE_SHIFT = 56
    NR_FILES = 256

cdef struct Segment:
    uint64_t taking         # the number of its last taking: see record.py
    uint32_t live           # bytes of records that entries point to
    uint32_t used           # where the next append goes: a multiple of BLOCK
    uint32_t next
    uint32_t stuck          # live bytes when cleaning it failed
    uint32_t born           # Device.epoch when it was taken
    uint32_t died           # and when it became SEG_LENT
    uint16_t pins           # flights under way
    uint8_t state
    uint8_t dirty           # the file system holds blocks for it

# What children of one fork, or of several between which nothing moved, may read: see lending.py.
cdef struct Lease:
    uint32_t epoch          # of this lease: segments that were taken before it are lent
    int ends[2]             # of a pipe; the second is -1 when no other child may have this lease
    uint64_t identities[2][3]

cdef struct Device:
    DeviceIO io
    Secret secret
    uint64_t takings
    uint64_t file           # number of the file that it writes, shifted by FILE_SHIFT
    char *directory         # where a child makes its own
    uint32_t front          # bytes at the beginning that are not ours to write to: whole blocks
    uint32_t most           # segments that it may have
    uint32_t epoch          # leases that were begun
    uint32_t lent           # the first SEG_LENT
    uint32_t nr_lent
    Lease *leases
    int nr_leases
    int for_good            # a lease could not be had: what is lent stays so
    int moved               # a segment was taken, or died, since the last lease began
    int can_punch
    uint32_t nr
    uint32_t free_head
    uint32_t nr_free
    uint32_t nr_free_dirty
    uint32_t parked
    Segment *segments
    int64_t live_bytes
    int64_t used_bytes      # of segments that are not free
    int64_t cleaned
    int64_t punched

cdef uint64_t offset_of(uint64_t place) noexcept nogil
cdef int device_init(
    Device *d, int fd, uint64_t nbytes, int direct, uint8_t *key, uint64_t nonce, uint32_t front, char *directory
) noexcept nogil
cdef uint64_t taking_of(const Segment *segments, uint64_t place) noexcept nogil
cdef int segments_init(Device *d) noexcept nogil
cdef int is_lent(const Device *d, uint32_t born) noexcept nogil
cdef void segment_free(Device *d, uint32_t s) noexcept nogil
cdef void device_destroy(Device *d) noexcept nogil
cdef uint32_t segment_begin(const Device *d, uint32_t s) noexcept nogil
cdef uint32_t segment_take(Device *d, uint32_t room, int use_reserve) noexcept nogil
cdef void unpark(Device *d, uint32_t s) noexcept nogil
cdef void segment_put(Device *d, uint32_t s) noexcept nogil
cdef void segment_unpin(Device *d, uint32_t s) noexcept nogil
cdef void segment_maybe_free(Device *d, uint32_t s) noexcept nogil
cdef void record_dead(Device *d, uint64_t place, uint32_t length) noexcept nogil
cdef int wants_trim(const Device *d) noexcept nogil
cdef uint32_t segment_to_trim(Device *d) noexcept nogil
cdef void segment_trimmed(Device *d, uint32_t s, int error) noexcept nogil
cdef uint32_t segment_to_clean(Device *d) noexcept nogil
cdef int device_wipe(Device *d) noexcept nogil
