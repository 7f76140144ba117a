from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.state cimport Core, Flight, Stream

cdef Stream *stream_get(Core *c) noexcept nogil
cdef void stream_put(Core *c, Stream *s) noexcept nogil
cdef int stream_fits(Stream *s, uint32_t length) noexcept nogil
cdef void stream_append(Stream *s, Core *c, uint32_t index, const char *bytes, uint32_t position) noexcept nogil
cdef int stream_advance(Core *c, Stream *s, uint32_t length) noexcept nogil
cdef void stream_finish(Core *c, Stream *s) noexcept nogil
cdef bint room_made(Core *c) noexcept nogil
cdef int clean_one(Core *c) noexcept nogil
cdef int flight_seal(void *arg) noexcept nogil
cdef void flight_submit(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void write_rest(Core *c, Flight *f, size_t done) noexcept nogil
cdef void stop_aio(Core *c, Stream *s) noexcept nogil
cdef void flight_settle(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void settle_written(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void settle_cleaned(Core *c, Stream *s, Flight *f) noexcept nogil
cdef void fail_entry(Core *c, uint32_t index, uint32_t owner) noexcept nogil
cdef int device_own(Core *c) noexcept nogil
cdef void not_used(Core *c, Stream *s) noexcept nogil
cdef void streams_inherit(Core *c) noexcept nogil
