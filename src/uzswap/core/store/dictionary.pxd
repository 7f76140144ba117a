from uzswap.core.store.zstd cimport ZSTD_CDict, ZSTD_DDict

cdef enum:
    MOST_LOG = 14           # of the tables of a compressing dictionary, in entries: 2 x 64 KiB
    MAX_DICTIONARY_BYTES = 1048576

# What small values have in common.
cdef struct Dictionary:
    Dictionary *next        # on Core.retired
    char *content
    size_t nbytes
    ZSTD_CDict *compressing     # NULL once nobody stores with it any more
    ZSTD_DDict *decompressing

cdef Dictionary *dictionary_new(const char *content, size_t nbytes, int level) noexcept nogil
cdef void dictionaries_free(Dictionary *d) noexcept nogil
cdef size_t dictionary_bytes(const Dictionary *d) noexcept nogil
cdef int dictionary_plausible(const char *content, size_t nbytes) noexcept nogil
cdef size_t dictionary_train(
    const char *samples, const size_t *sizes, unsigned n, char *content, size_t capacity
) noexcept nogil
