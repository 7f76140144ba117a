from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from uzswap.core.libc_ext cimport uz_private  # and its C text, before ours

cdef extern from "<lz4.h>" nogil:
    int LZ4_compress_fast_extState(void *state, const char *src, char *dst, int size, int capacity, int acceleration)
    int LZ4_decompress_safe(const char *src, char *dst, int compressed, int capacity)
    int LZ4_sizeofState()
    int LZ4_compressBound(int size)

cdef extern from *:
    """
    #define ZSTD_STATIC_LINKING_ONLY  /* ZSTD_customMem */
    #include <zstd.h>
    #include <zstd_errors.h>
    /* Where a library hides these, its own memory is malloc's, and pieces of pages can be in core dumps. */
    #pragma weak ZSTD_createCCtx_advanced
    #pragma weak ZSTD_createDCtx_advanced
    static void *uz_zstd_alloc(void *unused, size_t n) {
        size_t *p = uz_private(n + 64);
        if (p == NULL) return NULL;
        *p = n + 64;
        return (char *)p + 64;
    }
    static void uz_zstd_free(void *unused, void *p) {
        if (p != NULL) uz_private_free((char *)p - 64, *(size_t *)((char *)p - 64));
    }
    static inline ZSTD_CCtx *uz_new_cctx(void) {
        ZSTD_customMem memory = { uz_zstd_alloc, uz_zstd_free, NULL };
        return ZSTD_createCCtx_advanced ? ZSTD_createCCtx_advanced(memory) : ZSTD_createCCtx();
    }
    static inline ZSTD_DCtx *uz_new_dctx(void) {
        ZSTD_customMem memory = { uz_zstd_alloc, uz_zstd_free, NULL };
        return ZSTD_createDCtx_advanced ? ZSTD_createDCtx_advanced(memory) : ZSTD_createDCtx();
    }
    static inline int uz_zstd_no_memory(size_t code) {
        return ZSTD_isError(code) && ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation;
    }
    """
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass
    ZSTD_CCtx *uz_new_cctx() nogil
    ZSTD_DCtx *uz_new_dctx() nogil
    int uz_zstd_no_memory(size_t code) nogil

cdef extern from "<zstd.h>" nogil:
    size_t ZSTD_freeCCtx(ZSTD_CCtx *ctx)
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
    char *memory            # of the next three
    void *lz4_state
    char *scratch           # SCRATCH_BYTES
    char *shuffled          # MAX_ENTRY_BYTES
    ZSTD_CCtx *cctx
    ZSTD_DCtx *dctx
    char *io                # aligned, for reading from the device
    size_t io_bytes

cdef size_t work_bytes() noexcept nogil
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
