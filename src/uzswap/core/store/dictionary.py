"""Dictionaries: what many small values have in common, so that each of them can be compressed, and loaded, alone.

A dictionary is pieces of the values that it was trained on.  So its memory is private, as theirs is.
"""

import cython
from cython.cimports.libc.stdint import uint32_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcpy
from cython.cimports.uzswap.core.libc_ext import uz_private, uz_private_free
from cython.cimports.uzswap.core.store.zstd import (
    ZDICT_getDictHeaderSize,
    ZDICT_isError,
    ZDICT_trainFromBuffer,
    ZSTD_freeCDict,
    ZSTD_freeDDict,
    ZSTD_sizeof_CDict,
    ZSTD_sizeof_DDict,
    uz_new_cdict,
    uz_new_ddict,
)

# Bytes, at least, of what a dictionary is made of: the first three quarters of the samples, the others test it
# (FASTCOVER_DEFAULT_SPLITPOINT of zstd's fastcover.c).  Where these have 7 libzstd divides by zero, and where they have
# fewer it reads far beyond them (1.5.4): it takes how many of 8 can be told apart from the difference, unsigned.
LEAST_TRAINED = cython.declare(cython.size_t, 64)


def dictionary_new(content, nbytes, level):
    """A dictionary in the state that both directions need; NULL without memory, or when the content is none."""
    d = cython.cast(cython.pointer(Dictionary), calloc(1, cython.sizeof(Dictionary)))
    if d == cython.NULL:
        return d
    d.nbytes = nbytes
    d.content = cython.cast(cython.p_char, uz_private(nbytes))
    if d.content != cython.NULL:
        memcpy(d.content, content, nbytes)
        # Tables of 2**14 entries: 128 KiB instead of zstd's 400, for 1 % of what it saves at level 3 (dictionaries of
        # 32 KiB, pickled records of 160 to 420 bytes, 2026-11).
        d.compressing = uz_new_cdict(d.content, nbytes, level, MOST_LOG)
        d.decompressing = uz_new_ddict(d.content, nbytes)
    if d.compressing == cython.NULL or d.decompressing == cython.NULL:
        dictionaries_free(d)
        return cython.NULL
    return d


def dictionaries_free(d):
    """Free a list of them."""
    while d != cython.NULL:
        following = d.next
        ZSTD_freeCDict(d.compressing)
        ZSTD_freeDDict(d.decompressing)
        uz_private_free(d.content, d.nbytes)
        free(d)
        d = following


def dictionary_bytes(d):
    """Memory that it takes."""
    return d.nbytes + ZSTD_sizeof_CDict(d.compressing) + ZSTD_sizeof_DDict(d.decompressing)


def dictionary_plausible(content, nbytes):
    """Whether content begins as a dictionary does; a wrong one may still be refused by dictionary_new()."""
    return not ZDICT_isError(ZDICT_getDictHeaderSize(content, nbytes))


def dictionary_train(samples, sizes, n, content, capacity):
    """Make a dictionary's content of n samples that follow one another; its length, or 0: too few, or no memory."""
    i: uint32_t
    trained: cython.size_t = 0
    for i in range(3 * n // 4):
        trained += sizes[i]
    if trained < LEAST_TRAINED:
        return 0
    length = ZDICT_trainFromBuffer(content, capacity, samples, sizes, n)
    return 0 if ZDICT_isError(length) else length
