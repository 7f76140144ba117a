from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.device.device cimport Device, Lease, Segment
from uzswap.core.device.device_io cimport DeviceIO
from uzswap.core.device.record cimport Secret

cdef enum:
    MOST_LEASES = 256

# A file of a process above, from which this one reads.  It writes nothing there.
cdef struct Inherited:
    DeviceIO io             # io.also: while somebody has it, those above keep what is in the file
    Secret secret
    Segment *segments       # as they were when it was forked, for their takings
    int64_t live            # bytes of records that entries point to

cdef void leases_drop(Device *d) noexcept nogil
cdef int lease_begin(Device *d) noexcept nogil
cdef void lease_seal(Lease *lease) noexcept nogil
cdef void leases_look(Device *d) noexcept nogil
cdef void lent_release(Device *d) noexcept nogil
cdef void inherited_close(Inherited *file) noexcept nogil
cdef void inherited_free(Inherited *file) noexcept nogil
