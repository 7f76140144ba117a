"""The codecs of one engine, each a pool in the kernel's sense: found by what they are, or handed out to be stored with.

Invariants, held whenever the engine lock is free:

* ``refs`` is the number of entries in the pool and on the device that were compressed with it; ``users`` the number of
  holders and of calls under way that may compress with it;
* a slot is vacant when it has neither, and is not the engine's current one;
* a dictionary is whole while it has users, can decompress while it has refs, and is gone when it has neither.
"""

import cython
from cython.cimports.libc.stdint import int64_t
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.codec import ALG_ZSTD, NR_CODECS, Codec
from cython.cimports.uzswap.core.store.dictionary import dictionaries_free, dictionary_bytes
from cython.cimports.uzswap.core.store.state import retire
from cython.cimports.uzswap.core.store.zstd import ZSTD_CDict, ZSTD_freeCDict


def vacant_slot(c):
    """A slot that nobody has, cleared; -1 when all are in use.  Called with the lock."""
    i: cython.int
    for i in range(NR_CODECS):
        p = cython.address(c.codecs[i])
        if p.refs == 0 and p.users == 0 and i != c.codec:
            if i >= c.nr_codecs:
                c.nr_codecs = i + 1
            memset(p, 0, cython.sizeof(Codec))
            return i
    return -1


def codec_slot(c, algorithm, level, filter):
    """The slot of a codec without a dictionary, made when it is not there; -1 when all are in use.

    Called with the lock; it is the caller's only until that is released, unless it counts a user or an entry.
    """
    i: cython.int
    for i in range(c.nr_codecs):
        p = cython.address(c.codecs[i])
        if p.algorithm != algorithm or p.level != level or p.filter != filter or p.dictionary != cython.NULL:
            continue
        if p.refs or p.users or i == c.codec:
            return i
    i = vacant_slot(c)
    if i >= 0:
        c.codecs[i].algorithm = algorithm
        c.codecs[i].level = level
        c.codecs[i].filter = filter
    return i


def codec_get(c, algorithm, level, filter):
    """codec_slot(), held until codec_put(); called without the lock."""
    pthread_mutex_lock(cython.address(c.lock))
    slot = codec_slot(c, algorithm, level, filter)
    if slot >= 0:
        c.codecs[slot].users += 1
    pthread_mutex_unlock(cython.address(c.lock))
    return slot


def codec_of_dictionary(c, dictionary, level):
    """A slot for a new dictionary, held until codec_put(); -1 when all are in use.  Called without the lock."""
    pthread_mutex_lock(cython.address(c.lock))
    slot = vacant_slot(c)
    if slot >= 0:
        p = cython.address(c.codecs[slot])
        p.algorithm = ALG_ZSTD
        p.level = level
        p.dictionary = dictionary
        p.users = 1
    pthread_mutex_unlock(cython.address(c.lock))
    return slot


def codec_hold(c, slot):
    """Count one more user of a slot and return it; -1 when nobody holds it any more.  Called without the lock."""
    if slot < 0:
        return -1
    pthread_mutex_lock(cython.address(c.lock))
    if c.codecs[slot].users > 0:
        c.codecs[slot].users += 1
    else:
        slot = -1
    pthread_mutex_unlock(cython.address(c.lock))
    return slot


def codec_put(c, slot):
    """One user less, of a slot or of -1; with the last goes what only compressing needs.  Called without the lock."""
    if slot < 0:
        return
    unused = cython.cast(cython.pointer(ZSTD_CDict), cython.NULL)
    pthread_mutex_lock(cython.address(c.lock))
    p = cython.address(c.codecs[slot])
    p.users -= 1
    if p.users == 0 and p.dictionary != cython.NULL:
        unused = p.dictionary.compressing
        p.dictionary.compressing = cython.NULL
        if p.refs == 0:
            retire(c, slot)
    retired = c.retired
    c.retired = cython.NULL
    pthread_mutex_unlock(cython.address(c.lock))
    ZSTD_freeCDict(unused)
    dictionaries_free(retired)


def codecs_bytes(c):
    """Memory that dictionaries take.  Called with the lock."""
    total: int64_t = 0
    i: cython.int
    for i in range(c.nr_codecs):
        if c.codecs[i].dictionary != cython.NULL:
            total += dictionary_bytes(c.codecs[i].dictionary)
    return total
