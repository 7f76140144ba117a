from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.device.device cimport Segment
from uzswap.core.device.device_io cimport DeviceIO, Request
from uzswap.core.device.record cimport Record, Sealer, Secret
from uzswap.core.store.codec cimport Worker
from uzswap.core.store.entries cimport Delta, Entry
from uzswap.core.store.spans cimport Span
from uzswap.core.store.state cimport Core

cdef enum:
    STEP_LOADS = 256        # handles looked up under one lock hold
    MOST_READINGS = 8       # in flight at once: the device's threads (MOST_IO_THREADS of device_io.pxd)
    READINGS_BYTES = 2097152 # of all of them
    READ_GAP = 16384        # dead bytes that are cheaper to read than to skip

# What a load has to know of an entry while it works without the lock.
cdef struct Found:
    uint64_t data
    uint64_t handle
    int64_t position
    uint32_t length
    uint32_t size
    uint8_t state
    uint8_t codec

# One read, of entries that stand close together.
cdef struct Reading:
    int first                   # the first of them, and how many: indices into Load.on_disk
    int n
    DeviceIO *io                # of its file
    Secret secret
    const Segment *segments
    uint64_t start
    size_t nbytes
    char *buf
    Request ask

cdef struct Load:
    # asked
    const uint64_t *handles
    int64_t n
    const Span *spans           # where each entry's bytes go; or NULL, and what follows says so
    char *out
    uint64_t nbytes
    uint32_t page
    int consume
    # answered
    int64_t failed
    int error
    int64_t disk_ns
    int gives               # what it consumed was what others waited for: give_back()
    # under way
    Worker *worker
    Found found[STEP_LOADS]
    int on_disk[STEP_LOADS]     # indices into found, in the order of the device
    Reading readings[MOST_READINGS]

cdef int read_entries(Core *c, Load *load, int n) noexcept nogil
cdef int unpack(Core *c, Load *load, const Found *f, const char *bytes) noexcept nogil
cdef int verify(const Core *c, uint64_t handle, const char *bytes, uint32_t size) noexcept nogil
cdef char *target_of(const Load *load, const Found *f) noexcept nogil
cdef void sort_by_place(Load *load, int n) noexcept nogil
cdef int next_reading(const Load *load, int first, int n, Reading *r) noexcept nogil
cdef int read_alone(Core *c, Load *load, const Found *f) noexcept nogil
cdef int unpack_all(Core *c, Load *load, const Reading *r) noexcept nogil
cdef int unpack_record(
    Core *c, Load *load, const Found *f, Sealer *sealer, const Segment *segments, const char *stored
) noexcept nogil
