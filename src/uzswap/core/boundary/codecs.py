"""How an engine compresses: its parameters, codecs and dictionaries: see engine.pyi."""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.errno import EBUSY, EINVAL, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint8_t, uint64_t
from cython.cimports.uzswap.core.boundary.memcgs import Memcgs
from cython.cimports.uzswap.core.boundary.opened import core_lock, core_unlock
from cython.cimports.uzswap.core.device.read_around import NR_WINDOWS, WINDOW_BYTES
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import uz_change_int, uz_private, uz_private_free
from cython.cimports.uzswap.core.store.codec import ALG_LZ4, ALG_ZSTD, MAX_ENTRY_BYTES, NR_CODECS, Codec
from cython.cimports.uzswap.core.store.codecs import codec_get, codec_of_dictionary, codec_put, codec_slot, codecs_bytes
from cython.cimports.uzswap.core.store.dictionary import (
    MAX_DICTIONARY_BYTES,
    dictionaries_free,
    dictionary_new,
    dictionary_plausible,
    dictionary_train,
)
from cython.cimports.uzswap.core.store.entries import CHUNK_ENTRIES, Memcg, record_of_entry_bytes
from cython.cimports.uzswap.core.store.state import WRITE_COLDEST, WRITE_IN_TURN, WRITE_NOTHING

from uzswap.core.boundary.names import CodecInfo, PoolInfo


def train_dictionary(samples: cython.const[uint8_t][::1], sizes: cython.const[uint64_t][::1], capacity: cython.size_t):
    n: cython.Py_ssize_t = sizes.shape[0]
    i: cython.Py_ssize_t
    total: cython.Py_ssize_t = 0
    if not 0 < capacity <= MAX_DICTIONARY_BYTES:
        raise ValueError(f"capacity={capacity} of 1..{MAX_DICTIONARY_BYTES}")
    for i in range(n):
        if sizes[i] > cython.cast(uint64_t, samples.shape[0]):
            raise ValueError(f"sample {i} has {sizes[i]} bytes, all of them {samples.shape[0]}")
        total += sizes[i]
    if total != samples.shape[0]:
        raise ValueError(f"{n} samples of {total} bytes, but {samples.shape[0]} are here")
    if n == 0:
        return b""
    content = cython.cast(cython.p_char, uz_private(capacity))
    if content == cython.NULL:
        raise MemoryError
    with cython.nogil:
        length = dictionary_train(
            cython.cast("const char *", cython.address(samples[0])),
            cython.cast("const size_t *", cython.address(sizes[0])),
            n,
            content,
            capacity,
        )
    found = PyBytes_FromStringAndSize(content, length)
    uz_private_free(content, capacity)
    return found


@cython.cclass
class Codecs(Memcgs):
    def set_enabled(self, enabled: cython.bint):
        c = self._open()
        core_lock(c)
        c.enabled = enabled
        core_unlock(c)

    def set_fault_writeback(self, how: cython.int):
        if how not in (WRITE_IN_TURN, WRITE_COLDEST, WRITE_NOTHING):
            raise ValueError(f"fault_writeback {how}")
        uz_change_int(cython.address(self._open().fault_writeback), how)

    def set_same_filled(self, as_value: cython.bint):
        uz_change_int(cython.address(self._open().same_as_value), as_value)

    def set_compressor(self, codec: cython.int, level: cython.int):
        if codec not in (ALG_LZ4, ALG_ZSTD):
            return -EINVAL
        c = self._open()
        with cython.nogil:
            core_lock(c)
            slot = codec_slot(c, codec, level, 0)
            if slot >= 0:
                c.codec = slot
            core_unlock(c)
        return 0 if slot >= 0 else -EBUSY

    def codec_get(self, codec: cython.int, level: cython.int, filter: cython.int = 0):
        if codec not in (ALG_LZ4, ALG_ZSTD) or not 0 <= filter <= MAX_ENTRY_BYTES:
            return -EINVAL
        c = self._open()
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            slot = codec_get(c, codec, level, filter)
            uz_leave(cython.address(c.gate))
        return slot if slot >= 0 else -EBUSY

    def dictionary_new(self, content: bytes, level: cython.int):
        c = self._open()
        data = cython.cast("const char *", PyBytes_AS_STRING(content))
        nbytes: cython.size_t = len(content)
        if nbytes > MAX_DICTIONARY_BYTES or not dictionary_plausible(data, nbytes):
            return -EINVAL
        with cython.nogil:
            slot: cython.int = -1
            d = dictionary_new(data, nbytes, level)
            if d != cython.NULL:
                uz_enter(cython.address(c.gate))
                slot = codec_of_dictionary(c, d, level)
                uz_leave(cython.address(c.gate))
                if slot < 0:
                    dictionaries_free(d)
        return slot if slot >= 0 else -ENOMEM if d == cython.NULL else -EBUSY

    def codec_info(self, slot: cython.int):
        c = self._open()
        if not 0 <= slot < NR_CODECS:
            raise ValueError(f"codec {slot}: there are {NR_CODECS}")
        with cython.nogil:
            core_lock(c)
            p = c.codecs[slot]
            current: cython.bint = slot == c.codec
            core_unlock(c)
        if not p.refs and not p.users and not current:
            return None
        return CodecInfo(
            p.algorithm,
            p.level,
            p.filter,
            p.dictionary != cython.NULL,
            p.entries,
            p.refs,
            p.users,
            p.given_bytes,
            p.packed_bytes,
        )

    def codec_put(self, slot: cython.int):
        c = self._open()
        core_lock(c)
        held: cython.bint = 0 <= slot < c.nr_codecs and c.codecs[slot].users > 0
        core_unlock(c)
        if not held:
            raise ValueError(f"codec {slot} is not held")
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            codec_put(c, slot)
            uz_leave(cython.address(c.gate))

    def set_pool_limit(self, max_pages: int64_t, accept_pages: int64_t):
        c = self._open()
        core_lock(c)
        c.pool_max = max_pages
        c.pool_accept = accept_pages
        core_unlock(c)

    def pools(self):
        c = self._open()
        copy: Codec[NR_CODECS]
        i: cython.int
        with cython.nogil:
            core_lock(c)
            current: cython.int = c.codec
            n: cython.int = c.nr_codecs
            for i in range(n):
                copy[i] = c.codecs[i]
            core_unlock(c)
        entries = {(copy[current].algorithm, copy[current].level, False): 0}
        for i in range(n):
            p = cython.address(copy[i])
            if p.entries:
                name = (p.algorithm, p.level, p.dictionary != cython.NULL)
                entries[name] = entries.get(name, 0) + p.entries
        return [
            PoolInfo(codec, level, count, k == 0, dictionary)
            for k, ((codec, level, dictionary), count) in enumerate(entries.items())
        ]

    def pool_pages(self):
        c = self._open()
        core_lock(c)
        pages: int64_t = c.pool.pages
        core_unlock(c)
        return pages

    def metadata_bytes(self):
        c = self._open()
        per_entry: int64_t = record_of_entry_bytes(cython.address(c.t))
        with cython.nogil:
            core_lock(c)
            tables: int64_t = c.t.chunks_in_use * CHUNK_ENTRIES * per_entry + c.t.next_memcg * cython.sizeof(Memcg)
            extents: int64_t = c.pool.next_extent
            dictionaries = codecs_bytes(c)
            core_unlock(c)
        return tables + extents * 32 * 16 + dictionaries

    def read_around_bytes(self):
        c = self._open()
        core_lock(c)
        there: cython.bint = c.around.memory != cython.NULL
        core_unlock(c)
        return NR_WINDOWS * WINDOW_BYTES if there else 0

    def reached_full(self):
        c = self._open()
        core_lock(c)
        reached: cython.bint = c.reached_full
        core_unlock(c)
        return bool(reached)
