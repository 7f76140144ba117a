"""Compressors, and the test for pages of one repeated word."""

import cython
from cython.cimports.libc.errno import EILSEQ, ENOMEM
from cython.cimports.libc.stdint import uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcmp, memcpy, memmove, memset
from cython.cimports.uzswap.core.device.record import opener_free
from cython.cimports.uzswap.core.libc_ext import uz_load64, uz_private, uz_private_free
from cython.cimports.uzswap.core.store.shuffle import uz_shuffle, uz_unshuffle
from cython.cimports.uzswap.core.store.zstd import (
    UZ_FRAME_START,
    LZ4_compress_fast_extState,
    LZ4_compressBound,
    LZ4_decompress_safe,
    LZ4_sizeofState,
    ZSTD_CCtx_refCDict,
    ZSTD_compress2,
    ZSTD_compressBound,
    ZSTD_compressCCtx,
    ZSTD_decompress_usingDDict,
    ZSTD_decompressDCtx,
    ZSTD_freeCCtx,
    ZSTD_freeDCtx,
    ZSTD_isError,
    uz_frame_is_bare,
    uz_new_bare_cctx,
    uz_new_bare_dctx,
    uz_new_cctx,
    uz_new_dctx,
    uz_start_frame,
    uz_zstd_no_memory,
)


def work_bytes():
    return SCRATCH_BYTES + SHUFFLED_BYTES + LZ4_sizeofState()


def worker_new():
    w = cython.cast(cython.pointer(Worker), calloc(1, cython.sizeof(Worker)))
    if w == cython.NULL:
        return w
    w.memory = cython.cast(cython.p_char, uz_private(work_bytes()))
    if w.memory == cython.NULL:
        free(w)
        return cython.NULL
    w.scratch = w.memory
    w.shuffled = w.scratch + SCRATCH_BYTES
    w.lz4_state = w.shuffled + SHUFFLED_BYTES
    return w


def worker_spare(io_bytes):
    """One that has all that a load of any entry can need, but an opener; NULL without memory."""
    w = worker_new()
    if w == cython.NULL:
        return w
    w.dctx = uz_new_dctx()
    w.bare_dctx = uz_new_bare_dctx()
    if w.dctx == cython.NULL or w.bare_dctx == cython.NULL or worker_io(w, io_bytes) == cython.NULL:
        worker_free(w)
        return cython.NULL
    return w


def worker_free(w):
    opener_free(w.opener)
    ZSTD_freeCCtx(w.cctx)
    ZSTD_freeDCtx(w.dctx)
    ZSTD_freeCCtx(w.bare_cctx)
    ZSTD_freeDCtx(w.bare_dctx)
    uz_private_free(w.memory, work_bytes())
    uz_private_free(w.io, w.io_bytes)
    free(w)


def worker_io(w, nbytes):
    if w.io_bytes < nbytes:
        uz_private_free(w.io, w.io_bytes)
        w.io = cython.cast(cython.p_char, uz_private(nbytes))
        w.io_bytes = nbytes if w.io != cython.NULL else 0
    return w.io


def compress_bound(size):
    lz4 = LZ4_compressBound(size)
    zstd = ZSTD_compressBound(size)
    return lz4 if lz4 > zstd else zstd


def compress(w, codec, src, size, dst):
    """Bytes written to dst, which has room for compress_bound(size), or a value <= 0 when the compressor failed."""
    if codec.filter:
        uz_shuffle(
            cython.cast("const uint8_t *", src),
            cython.cast("uint8_t *", w.shuffled),
            size,
            cython.cast(uint32_t, codec.filter),
        )
        src = w.shuffled
    if codec.algorithm == ALG_LZ4:
        return LZ4_compress_fast_extState(w.lz4_state, src, dst, size, LZ4_compressBound(size), codec.level)
    if codec.dictionary != cython.NULL:
        return compress_with(w, codec.dictionary, src, size, dst)
    if w.cctx == cython.NULL:
        w.cctx = uz_new_cctx()
        if w.cctx == cython.NULL:
            return -1
    n = ZSTD_compressCCtx(w.cctx, dst, ZSTD_compressBound(size), src, size, codec.level)
    return -1 if ZSTD_isError(n) else cython.cast(cython.int, n)


def compress_with(w, dictionary, src, size, dst):
    """compress() with a dictionary: a zstd block without what stands in front of it."""
    if w.bare_cctx == cython.NULL:
        w.bare_cctx = uz_new_bare_cctx()
        if w.bare_cctx == cython.NULL:
            return -1
    ZSTD_CCtx_refCDict(w.bare_cctx, dictionary.compressing)
    n = ZSTD_compress2(w.bare_cctx, dst, ZSTD_compressBound(size), src, size)
    if ZSTD_isError(n):
        return -1
    if not uz_frame_is_bare(cython.cast("const unsigned char *", dst), n):
        return size  # several blocks, or one that zstd left as it was: poor, and kept raw
    memmove(dst, dst + UZ_FRAME_START, n - UZ_FRAME_START)
    return cython.cast(cython.int, n) - UZ_FRAME_START


def decompress_with(w, dictionary, src, length, to, size):
    if w.bare_dctx == cython.NULL:
        w.bare_dctx = uz_new_bare_dctx()
        if w.bare_dctx == cython.NULL:
            return ENOMEM
    # Such codecs have no filter, whose memory this is.
    uz_start_frame(cython.cast("unsigned char *", w.shuffled), length)
    memcpy(w.shuffled + UZ_FRAME_START, src, length)
    n = ZSTD_decompress_usingDDict(w.bare_dctx, to, size, w.shuffled, length + UZ_FRAME_START, dictionary.decompressing)
    return 0 if n == size else ENOMEM if uz_zstd_no_memory(n) else EILSEQ


def decompress(w, codec, src, length, dst, size):
    """0; EILSEQ when the bytes do not decompress to exactly size; ENOMEM, which says nothing about the bytes."""
    to = w.shuffled if codec.filter else dst
    if codec.algorithm == ALG_LZ4:
        if LZ4_decompress_safe(src, to, length, size) != cython.cast(cython.int, size):
            return EILSEQ
    else:
        if codec.dictionary != cython.NULL:
            return decompress_with(w, codec.dictionary, src, length, dst, size)
        if w.dctx == cython.NULL:
            w.dctx = uz_new_dctx()
            if w.dctx == cython.NULL:
                return ENOMEM
        n = ZSTD_decompressDCtx(w.dctx, to, size, src, length)
        if n != size:
            return ENOMEM if uz_zstd_no_memory(n) else EILSEQ
    if codec.filter:
        uz_unshuffle(
            cython.cast("const uint8_t *", to),
            cython.cast("uint8_t *", dst),
            size,
            cython.cast(uint32_t, codec.filter),
        )
    return 0


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
