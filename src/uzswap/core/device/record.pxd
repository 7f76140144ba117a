from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "<xxhash.h>" nogil:
    uint64_t XXH3_64bits_withSeed(const void *data, size_t n, uint64_t seed)

cdef enum:
    KEY_BYTES = 32

# What stands on the device before the compressed bytes of each entry.
cdef struct Record:
    uint64_t seal[2]        # of all that follows, to the end of the padding: a tag of GCM, or a checksum
    uint64_t handle         # encrypted, if anything is, from here on
    uint32_t length
    uint32_t size

# What the records of one file are sealed with.
cdef struct Secret:
    uint8_t *key            # in locked memory; NULL: they are not encrypted
    uint64_t nonce          # seeds the checksum of those that are not

# For one thread, and as long as one read or one write takes.
cdef struct Sealer:
    void *gcm               # NULL: they are not encrypted
    int is_lent             # it is somebody's who keeps it
    uint64_t nonce

cdef uint32_t record_bytes(uint32_t length) noexcept nogil
cdef int sealer_begin(Sealer *s, const Secret *secret, int seals) noexcept nogil
cdef int sealer_lent(Sealer *s, const Secret *secret, void *opener) noexcept nogil
cdef void *opener_new() noexcept nogil
cdef void opener_free(void *opener) noexcept nogil
cdef void sealer_end(Sealer *s) noexcept nogil
cdef int record_seal(Sealer *s, Record *r, uint64_t taken, uint32_t offset) noexcept nogil
cdef const Record *record_open(
    Sealer *s, const Record *r, uint64_t handle, uint32_t length, uint32_t size, uint64_t taken, uint32_t offset, char *room
) noexcept nogil
cdef void record_peek(Sealer *s, const Record *r, uint64_t taken, uint32_t offset, Record *header) noexcept nogil
cdef int is_padding(const Record *r) noexcept nogil
cdef int secret_load() noexcept nogil
cdef void secret_new(Secret *secret) noexcept nogil
cdef uint32_t sealed_bytes(uint32_t length) noexcept nogil
cdef uint64_t checksum(uint64_t nonce, const Record *r, uint32_t length) noexcept nogil
