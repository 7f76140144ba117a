"""libzstd, and lz4: what the data plane calls of them.  Their memory is private: no core dump has pieces of pages."""

from libc.stdint cimport uint32_t
from uzswap.core.libc_ext cimport uz_private  # and its C text, before ours

cdef extern from "<lz4.h>" nogil:
    int LZ4_compress_fast_extState(void *state, const char *src, char *dst, int size, int capacity, int acceleration)
    int LZ4_decompress_safe(const char *src, char *dst, int compressed, int capacity)
    int LZ4_sizeofState()
    int LZ4_compressBound(int size)

cdef extern from *:
    """
    #define ZSTD_STATIC_LINKING_ONLY  /* ZSTD_customMem, frames without headers */
    #include <zstd.h>
    #include <zstd_errors.h>
    /* Where a library hides these, its own memory is malloc's, and pieces of pages can be in core dumps. */
    #pragma weak ZSTD_createCCtx_advanced
    #pragma weak ZSTD_createDCtx_advanced
    #pragma weak ZSTD_createCDict_advanced
    #pragma weak ZSTD_createDDict_advanced
    #pragma weak ZSTD_getCParams
    #pragma weak ZSTD_estimateCDictSize_advanced
    static inline void *uz_zstd_alloc(void *unused, size_t n) {
        size_t *p = uz_private(n + 64);
        if (p == NULL) return NULL;
        *p = n + 64;
        return (char *)p + 64;
    }
    static inline void uz_zstd_free(void *unused, void *p) {
        if (p != NULL) uz_private_free((char *)p - 64, *(size_t *)((char *)p - 64));
    }
    /* The same, of memory that was got before. */
    struct uz_zstd_stock { void *p; size_t n; };
    static inline void *uz_zstd_take(void *stock, size_t n) {
        struct uz_zstd_stock *s = stock;
        void *p = s->p;
        if (p == NULL || n > s->n) return uz_zstd_alloc(NULL, n);
        s->p = NULL;
        return p;
    }
    static const ZSTD_customMem uz_zstd_memory = { uz_zstd_alloc, uz_zstd_free, NULL };
    static inline ZSTD_CCtx *uz_new_cctx(void) {
        return ZSTD_createCCtx_advanced ? ZSTD_createCCtx_advanced(uz_zstd_memory) : ZSTD_createCCtx();
    }
    static inline ZSTD_DCtx *uz_new_dctx(void) {
        return ZSTD_createDCtx_advanced ? ZSTD_createDCtx_advanced(uz_zstd_memory) : ZSTD_createDCtx();
    }
    /* Frames without the magic number, the size and the dictionary's id: the entries know these. */
    static inline ZSTD_CCtx *uz_new_bare_cctx(void) {
        ZSTD_CCtx *c = uz_new_cctx();
        if (c == NULL) return NULL;
        if (!ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_format, ZSTD_f_zstd1_magicless)) &&
            !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0)) &&
            !ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_dictIDFlag, 0))) return c;
        ZSTD_freeCCtx(c);
        return NULL;
    }
    static inline ZSTD_DCtx *uz_new_bare_dctx(void) {
        ZSTD_DCtx *d = uz_new_dctx();
        if (d == NULL) return NULL;
        if (!ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_format, ZSTD_f_zstd1_magicless))) return d;
        ZSTD_freeDCtx(d);
        return NULL;
    }
    /* Both refer to the content, and do not copy it, where the library has the means. */
    static inline ZSTD_CDict *uz_new_cdict(const void *content, size_t n, int level, unsigned most_log) {
        if (!ZSTD_createCDict_advanced || !ZSTD_getCParams) return ZSTD_createCDict(content, n, level);
        ZSTD_compressionParameters p = ZSTD_getCParams(level, 0, n);
        if (p.hashLog > most_log) p.hashLog = most_log;
        if (p.chainLog > most_log) p.chainLog = most_log;
        /* zstd before 1.5.6 does not look whether it got the memory of a CDict (ZSTD_createCDict_advanced2): it must. */
        struct uz_zstd_stock stock = { NULL, 0 };
        if (ZSTD_estimateCDictSize_advanced) {
            stock.n = ZSTD_estimateCDictSize_advanced(n, p, ZSTD_dlm_byRef) + 4096;
            stock.p = uz_zstd_alloc(NULL, stock.n);
            if (stock.p == NULL) return NULL;
        }
        ZSTD_customMem memory = { uz_zstd_take, uz_zstd_free, &stock };
        ZSTD_CDict *made = ZSTD_createCDict_advanced(content, n, ZSTD_dlm_byRef, ZSTD_dct_fullDict, p, memory);
        uz_zstd_free(NULL, stock.p);
        return made;
    }
    static inline ZSTD_DDict *uz_new_ddict(const void *content, size_t n) {
        if (!ZSTD_createDDict_advanced) return ZSTD_createDDict(content, n);
        return ZSTD_createDDict_advanced(content, n, ZSTD_dlm_byRef, ZSTD_dct_fullDict, uz_zstd_memory);
    }
    /* What is left in front of such a frame's only block, as RFC 8878 has it: a descriptor without any option, the window
       (128 KiB), and the block's header: the last, compressed, so many bytes.  Nothing that is not known, so it need not
       be stored: 5 bytes of each value, of 50 to 130. */
    #define UZ_FRAME_START 5
    static inline int uz_frame_is_bare(const unsigned char *frame, size_t n) {
        uint32_t block = n > UZ_FRAME_START ? frame[2] | frame[3] << 8 | (uint32_t)frame[4] << 16 : 0;
        return n > UZ_FRAME_START && frame[0] == 0 && block == ((n - UZ_FRAME_START) << 3 | 2 << 1 | 1);
    }
    static inline void uz_start_frame(unsigned char *frame, uint32_t n) {
        uint32_t block = n << 3 | 2 << 1 | 1;
        frame[0] = 0;
        frame[1] = (17 - 10) << 3;
        frame[2] = (unsigned char)block;
        frame[3] = (unsigned char)(block >> 8);
        frame[4] = (unsigned char)(block >> 16);
    }
    static inline int uz_zstd_no_memory(size_t code) {
        return ZSTD_isError(code) && ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation;
    }
    """
    ctypedef struct ZSTD_CCtx:
        pass
    ctypedef struct ZSTD_DCtx:
        pass
    ctypedef struct ZSTD_CDict:
        pass
    ctypedef struct ZSTD_DDict:
        pass
    ZSTD_CCtx *uz_new_cctx() nogil
    ZSTD_DCtx *uz_new_dctx() nogil
    ZSTD_CCtx *uz_new_bare_cctx() nogil
    ZSTD_DCtx *uz_new_bare_dctx() nogil
    ZSTD_CDict *uz_new_cdict(const void *content, size_t n, int level, unsigned most_log) nogil
    ZSTD_DDict *uz_new_ddict(const void *content, size_t n) nogil
    int uz_zstd_no_memory(size_t code) nogil
    int UZ_FRAME_START
    int uz_frame_is_bare(const unsigned char *frame, size_t n) nogil
    void uz_start_frame(unsigned char *frame, uint32_t n) nogil

cdef extern from "<zstd.h>" nogil:
    size_t ZSTD_freeCCtx(ZSTD_CCtx *ctx)
    size_t ZSTD_freeDCtx(ZSTD_DCtx *ctx)
    size_t ZSTD_freeCDict(ZSTD_CDict *dictionary)
    size_t ZSTD_freeDDict(ZSTD_DDict *dictionary)
    size_t ZSTD_sizeof_CDict(const ZSTD_CDict *dictionary)
    size_t ZSTD_sizeof_DDict(const ZSTD_DDict *dictionary)
    size_t ZSTD_compressCCtx(ZSTD_CCtx *ctx, void *dst, size_t capacity, const void *src, size_t size, int level)
    size_t ZSTD_CCtx_refCDict(ZSTD_CCtx *ctx, const ZSTD_CDict *dictionary)
    size_t ZSTD_compress2(ZSTD_CCtx *ctx, void *dst, size_t capacity, const void *src, size_t size)
    size_t ZSTD_decompressDCtx(ZSTD_DCtx *ctx, void *dst, size_t capacity, const void *src, size_t size)
    size_t ZSTD_decompress_usingDDict(
        ZSTD_DCtx *ctx, void *dst, size_t capacity, const void *src, size_t size, const ZSTD_DDict *dictionary
    )
    unsigned ZSTD_isError(size_t code)
    size_t ZSTD_compressBound(size_t size)

cdef extern from "<zdict.h>" nogil:
    size_t ZDICT_trainFromBuffer(
        void *dictionary, size_t capacity, const void *samples, const size_t *sizes, unsigned n
    )
    unsigned ZDICT_isError(size_t code)
    size_t ZDICT_getDictHeaderSize(const void *dictionary, size_t n)
