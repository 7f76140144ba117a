"""Compressors, and the test for pages of one repeated word."""

import cython
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memcmp, memcpy, memset
from cython.cimports.uzswap.core.libc_ext import posix_memalign, uz_load64


def worker_new():
    w = cython.cast(cython.pointer(Worker), calloc(1, cython.sizeof(Worker)))
    if w == cython.NULL:
        return w
    w.lz4_state = malloc(LZ4_sizeofState())
    w.scratch = cython.cast(cython.p_char, malloc(SCRATCH_BYTES))
    if w.lz4_state == cython.NULL or w.scratch == cython.NULL:
        worker_free(w)
        return cython.NULL
    return w


def worker_free(w):
    ZSTD_freeCCtx(w.cctx)
    ZSTD_freeDCtx(w.dctx)
    free(w.lz4_state)
    free(w.scratch)
    free(w.io)
    free(w)


def worker_io(w, nbytes):
    memory: cython.p_void = cython.NULL
    if w.io_bytes < nbytes:
        free(w.io)
        w.io = cython.NULL
        w.io_bytes = 0
        if posix_memalign(cython.address(memory), 4096, nbytes):
            return cython.NULL
        w.io = cython.cast(cython.p_char, memory)
        w.io_bytes = nbytes
    return w.io


def compress_bound(size):
    lz4 = LZ4_compressBound(size)
    zstd = ZSTD_compressBound(size)
    return lz4 if lz4 > zstd else zstd


def compress(w, codec, src, size, dst):
    """Bytes written to dst, which has room for compress_bound(size), or a value <= 0 when the compressor failed."""
    if codec.algorithm == ALG_LZ4:
        return LZ4_compress_fast_extState(w.lz4_state, src, dst, size, LZ4_compressBound(size), codec.level)
    if w.cctx == cython.NULL:
        w.cctx = ZSTD_createCCtx()
        if w.cctx == cython.NULL:
            return -1
    n = ZSTD_compressCCtx(w.cctx, dst, ZSTD_compressBound(size), src, size, codec.level)
    return -1 if ZSTD_isError(n) else cython.cast(cython.int, n)


def decompress(w, codec, src, length, dst, size):
    """0, or -1 when the bytes do not decompress to exactly size."""
    if codec.algorithm == ALG_LZ4:
        return 0 if LZ4_decompress_safe(src, dst, length, size) == cython.cast(cython.int, size) else -1
    if w.dctx == cython.NULL:
        w.dctx = ZSTD_createDCtx()
        if w.dctx == cython.NULL:
            return -1
    return 0 if ZSTD_decompressDCtx(w.dctx, dst, size, src, length) == size else -1


def same_filled(src, size, word):
    """Whether src is one repeated 8-byte word (sizes that are no multiple of 8: whether it is all zero)."""
    if size < 8:
        i: cython.uint
        for i in range(size):
            if src[i]:
                return 0
        word[0] = 0
        return 1
    first = uz_load64(src)
    # The ends differ in nearly every page that is not same-filled, and cost two loads instead of 4096 bytes.
    if first != uz_load64(src + size - 8) and (size & 7) == 0:
        return 0
    if size & 7 and first:
        return 0
    if memcmp(src, src + 8, size - 8):
        return 0
    word[0] = first
    return 1


def fill(dst, word, size):
    if word == 0:
        memset(dst, 0, size)
        return
    i: cython.uint
    for i in range(size >> 3):
        memcpy(dst + 8 * i, cython.address(word), 8)
