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
cdef int device_own(Core *c) noexcept nogil
cdef void not_used(Core *c, Stream *s) noexcept nogil
cdef void streams_inherit(Core *c) noexcept nogil
