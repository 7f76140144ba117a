from libc.stdint cimport uint32_t
from uzswap.core.store.state cimport Core, Flight, Stream

cdef int flight_seal(void *arg) noexcept nogil
cdef void flight_submit(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void write_rest(Core *c, Flight *f, size_t done) noexcept nogil
cdef void stop_aio(Core *c, Stream *s) noexcept nogil
cdef void flight_settle(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void fail_entry(Core *c, uint32_t index, uint32_t owner) noexcept nogil
cdef void settle_written(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void settle_cleaned(Core *c, Stream *s, Flight *f) noexcept nogil
