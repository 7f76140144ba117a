from uzswap.core.store.state cimport Core

cdef void core_shut(Core *c) noexcept nogil
cdef void core_lend(Core *c) noexcept nogil
cdef void core_keep(Core *c) noexcept nogil
cdef void core_inherit(Core *c) noexcept nogil
cdef void files_inherit(Core *c) noexcept nogil
cdef void inherit_own(Core *c) noexcept nogil
cdef void begin_anew(Core *c) noexcept nogil
