"""Compressors, and the test for pages of one repeated word."""

import cython
from cython.cimports.libc.errno import EILSEQ, ENOMEM
from cython.cimports.libc.stdint import uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcmp, memcpy, memset
from cython.cimports.uzswap.core.libc_ext import uz_load64, uz_private, uz_private_free


def work_bytes():
    return SCRATCH_BYTES + MAX_ENTRY_BYTES + LZ4_sizeofState()


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
    w.lz4_state = w.shuffled + MAX_ENTRY_BYTES
    return w


def worker_free(w):
    ZSTD_freeCCtx(w.cctx)
    ZSTD_freeDCtx(w.dctx)
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
        shuffle(
            cython.cast("const unsigned char *", src),
            cython.cast("unsigned char *", w.shuffled),
            size,
            cython.cast(uint32_t, codec.filter),
        )
        src = w.shuffled
    if codec.algorithm == ALG_LZ4:
        return LZ4_compress_fast_extState(w.lz4_state, src, dst, size, LZ4_compressBound(size), codec.level)
    if w.cctx == cython.NULL:
        w.cctx = uz_new_cctx()
        if w.cctx == cython.NULL:
            return -1
    n = ZSTD_compressCCtx(w.cctx, dst, ZSTD_compressBound(size), src, size, codec.level)
    return -1 if ZSTD_isError(n) else cython.cast(cython.int, n)


def decompress(w, codec, src, length, dst, size):
    """0; EILSEQ when the bytes do not decompress to exactly size; ENOMEM, which says nothing about the bytes."""
    to = w.shuffled if codec.filter else dst
    if codec.algorithm == ALG_LZ4:
        if LZ4_decompress_safe(src, to, length, size) != cython.cast(cython.int, size):
            return EILSEQ
    else:
        if w.dctx == cython.NULL:
            w.dctx = uz_new_dctx()
            if w.dctx == cython.NULL:
                return ENOMEM
        n = ZSTD_decompressDCtx(w.dctx, to, size, src, length)
        if n != size:
            return ENOMEM if uz_zstd_no_memory(n) else EILSEQ
    if codec.filter:
        unshuffle(
            cython.cast("const unsigned char *", to),
            cython.cast("unsigned char *", dst),
            size,
            cython.cast(uint32_t, codec.filter),
        )
    return 0


def shuffle(src, dst, size, item):
    """The first bytes of all items, then the second bytes, and so on (Blosc's byte shuffle); the odd rest as it is.

    The inner loops have constant strides for the item sizes that matter, so that the compiler can vectorise them.
    """
    n = size // item
    i: uint32_t
    j: uint32_t
    if item == 8:
        for j in range(8):
            for i in range(n):
                dst[j * n + i] = src[i * 8 + j]
    elif item == 4:
        for j in range(4):
            for i in range(n):
                dst[j * n + i] = src[i * 4 + j]
    else:
        for j in range(item):
            for i in range(n):
                dst[j * n + i] = src[i * item + j]
    memcpy(dst + n * item, src + n * item, size - n * item)


def unshuffle(src, dst, size, item):
    n = size // item
    i: uint32_t
    j: uint32_t
    if item == 8:
        for i in range(n):
            for j in range(8):
                dst[i * 8 + j] = src[j * n + i]
    elif item == 4:
        for i in range(n):
            for j in range(4):
                dst[i * 4 + j] = src[j * n + i]
    else:
        for i in range(n):
            for j in range(item):
                dst[i * item + j] = src[j * n + i]
    memcpy(dst + n * item, src + n * item, size - n * item)


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
