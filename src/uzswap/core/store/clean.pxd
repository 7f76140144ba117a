from libc.stdint cimport int64_t, uint32_t, uint64_t
from uzswap.core.store.entries cimport Entry, Table
from uzswap.core.store.state cimport Core

cdef enum:
    CLEAN_PAGES = 64        # the most that one call looks at

cdef void clean_keep(Core *c, uint64_t *handles, int n, uint64_t owner) noexcept nogil
cdef int clean_settle(Core *c, uint64_t *copies, const uint64_t *owners, int n, const char *frames) noexcept nogil
cdef void clean_forget(Core *c, const uint32_t *copies, const uint64_t *owners, int n) noexcept nogil
cdef Entry *copy_of(const Table *t, uint32_t index, uint64_t owner) noexcept nogil
cdef int64_t clean_drop(Core *c, uint32_t root, int64_t nbytes, int take_low) noexcept nogil
cdef int64_t clean_drop_locked(Core *c, uint32_t root, int64_t nbytes, int spare, int take_low) noexcept nogil
