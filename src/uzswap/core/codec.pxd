from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "<lz4.h>" nogil:
    int LZ4_compress_fast_extState(void *state, const char *src, char *dst, int size, int capacity, int acceleration)
    int LZ4_decompress_safe(const char *src, char *dst, int compressed, int capacity)
    int LZ4_sizeofState()
    int LZ4_compressBound(int size)

cdef extern from "<zstd.h>" nogil:
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass
    ZSTD_CCtx *ZSTD_createCCtx()
    size_t ZSTD_freeCCtx(ZSTD_CCtx *ctx)
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *ctx)
    size_t ZSTD_compressCCtx(ZSTD_CCtx *ctx, void *dst, size_t capacity, const void *src, size_t size, int level)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx *ctx, void *dst, size_t capacity, const void *src, size_t size)
    unsigned ZSTD_isError(size_t code)
    size_t ZSTD_compressBound(size_t size)

cdef enum:
    ALG_NONE = 0
    ALG_LZ4 = 1
    ALG_ZSTD = 2
    NR_CODECS = 16
    MAX_ENTRY_BYTES = 65536
    # What one store or load step works on at a time: it bounds a worker's scratch memory and how long the lock is held.
    STEP_PAGES = 16
    STEP_BYTES = 131072
    SCRATCH_BYTES = 147456  # STEP_BYTES, and the worst growth of STEP_PAGES results of either compressor

# A pool in the kernel's sense: a compressor, and the entries that were compressed with it.
cdef struct Codec:
    int algorithm
    int level
    int filter              # item size of a byte shuffle before compression, or 0
    int64_t entries         # in the pool
    int64_t refs            # in the pool or on the device

# What one thread needs while it compresses: never shared, or threads would corrupt each other's output.
cdef struct Worker:
    Worker *next
    void *lz4_state
    ZSTD_CCtx *cctx
    ZSTD_DCtx *dctx
    char *scratch
    char *shuffled          # MAX_ENTRY_BYTES
    char *io                # aligned, for reading from the device
    size_t io_bytes

cdef Worker *worker_new() noexcept nogil
cdef void worker_free(Worker *w) noexcept nogil
cdef char *worker_io(Worker *w, size_t nbytes) noexcept nogil
cdef uint32_t compress_bound(uint32_t size) noexcept nogil
cdef int compress(Worker *w, const Codec *codec, const char *src, uint32_t size, char *dst) noexcept nogil
cdef int decompress(Worker *w, const Codec *codec, const char *src, uint32_t length, char *dst, uint32_t size) noexcept nogil
cdef void shuffle(const unsigned char *src, unsigned char *dst, uint32_t size, uint32_t item) noexcept nogil
cdef void unshuffle(const unsigned char *src, unsigned char *dst, uint32_t size, uint32_t item) noexcept nogil
cdef int same_filled(const char *src, uint32_t size, uint64_t *word) noexcept nogil
cdef void fill(char *dst, uint64_t word, uint32_t size) noexcept nogil
