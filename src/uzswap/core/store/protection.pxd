from libc.stdint cimport int64_t, uint32_t
from uzswap.core.store.entries cimport Table

cdef extern from *:
    """
    #include <stdint.h>
    /* a * b / c; the product of two sizes in bytes may have more than 64 bits */
    static inline int64_t uz_share(int64_t a, int64_t b, int64_t c) { return (int64_t)((__int128)a * b / c); }
    """
    int64_t uz_share(int64_t a, int64_t b, int64_t c) nogil

cdef void protection_changed(Table *t, uint32_t m) noexcept nogil
cdef int64_t share_of(
    int64_t usage, int64_t parent_usage, int64_t setting, int64_t parent_effective, int64_t siblings
) noexcept nogil
cdef void effective_protection(Table *t, uint32_t m, uint32_t root, int64_t *minimum, int64_t *low) noexcept nogil

cdef enum:
    # what unprotected() says beside the number
    LOW_SPARED = 1              # memory.low kept some: it may be taken when nothing else is left
    LOW_BREACHED = 2            # it takes what memory.low protects

cdef int64_t unprotected(
    Table *t, uint32_t m, uint32_t root, int64_t n, int64_t leaving, int take_low, int *said
) noexcept nogil
