from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.store.dictionary cimport Dictionary
from uzswap.core.store.zstd cimport ZSTD_CCtx, ZSTD_DCtx

cdef enum:
    ALG_NONE = 0
    ALG_LZ4 = 1
    ALG_ZSTD = 2
    NR_CODECS = 256         # what Entry.codec can name
    MAX_ENTRY_BYTES = 65536
    SHUFFLED_BYTES = 65600  # an entry, or the frame that it was cut out of
    # What one store or load step works on at a time: it bounds a worker's scratch memory and how long the lock is held.
    STEP_PAGES = 16
    STEP_BYTES = 131072
    SCRATCH_BYTES = 147456  # STEP_BYTES, and the worst growth of STEP_PAGES results of either compressor

# A pool in the kernel's sense: a compressor, and the entries that were compressed with it.
cdef struct Codec:
    int algorithm
    int level
    int filter              # item size of a byte shuffle before compression, or 0
    Dictionary *dictionary  # of ALG_ZSTD, or NULL
    int64_t entries         # in the pool
    int64_t refs            # in the pool or on the device
    int64_t users           # who may store with it: those it was handed to, and calls under way
    int64_t given_bytes     # of all that was ever stored with it
    int64_t packed_bytes    # what they became

# What one thread needs while it compresses: never shared, or threads would corrupt each other's output.
cdef struct Worker:
    Worker *next
    char *memory            # of the next three
    void *lz4_state
    char *scratch           # SCRATCH_BYTES
    char *shuffled          # SHUFFLED_BYTES
    ZSTD_CCtx *cctx
    ZSTD_DCtx *dctx
    ZSTD_CCtx *bare_cctx    # of frames without headers: values that are compressed with a dictionary
    ZSTD_DCtx *bare_dctx
    char *io                # aligned, for reading from the device
    size_t io_bytes
    void *opener            # of the spare one, where what is on the device is encrypted

cdef size_t work_bytes() noexcept nogil
cdef Worker *worker_new() noexcept nogil
cdef Worker *worker_spare(size_t io_bytes) noexcept nogil
cdef void worker_free(Worker *w) noexcept nogil
cdef char *worker_io(Worker *w, size_t nbytes) noexcept nogil
cdef uint32_t compress_bound(uint32_t size) noexcept nogil
cdef int compress(Worker *w, const Codec *codec, const char *src, uint32_t size, char *dst) noexcept nogil
cdef int compress_with(Worker *w, const Dictionary *dictionary, const char *src, uint32_t size, char *dst) noexcept nogil
cdef int decompress_with(
    Worker *w, const Dictionary *dictionary, const char *src, uint32_t length, char *to, uint32_t size
) noexcept nogil
cdef int decompress(Worker *w, const Codec *codec, const char *src, uint32_t length, char *dst, uint32_t size) noexcept nogil
cdef int same_filled(const char *src, uint32_t size, uint64_t *word) noexcept nogil
cdef void fill(char *dst, uint64_t word, uint32_t size) noexcept nogil
