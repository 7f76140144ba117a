from libc.stdint cimport int64_t
from uzswap.core.store.dictionary cimport Dictionary
from uzswap.core.store.state cimport Core

cdef int codec_slot(Core *c, int algorithm, int level, int filter) noexcept nogil
cdef int codec_get(Core *c, int algorithm, int level, int filter) noexcept nogil
cdef int codec_hold(Core *c, int slot) noexcept nogil
cdef void codec_put(Core *c, int slot) noexcept nogil
cdef int codec_of_dictionary(Core *c, Dictionary *dictionary, int level) noexcept nogil
cdef int vacant_slot(Core *c) noexcept nogil
cdef int64_t codecs_bytes(Core *c) noexcept nogil
