"""The boundary of the data plane: see engine.pyi."""

from collections import namedtuple

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.errno import EBUSY, EINVAL, ENOMEM, ESTALE
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.boundary.forking import kin_add, kin_drop
from cython.cimports.uzswap.core.device.device import (
    BLOCK,
    NR_FILES,
    RESERVE,
    SEGMENT_BYTES,
    device_init,
    device_wipe,
)
from cython.cimports.uzswap.core.device.device_io import ASK_TRUNCATE, ASK_WRITE, device_ask_and_wait, device_settle
from cython.cimports.uzswap.core.device.lending import leases_look
from cython.cimports.uzswap.core.device.record import KEY_BYTES, opener_new, secret_load
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_lock,
    pthread_mutex_unlock,
    strndup,
    uz_private,
    uz_private_free,
    uz_secret,
)
from cython.cimports.uzswap.core.store.active import HAS_LRU, HAS_RESIDENT, active_list
from cython.cimports.uzswap.core.store.check import check_core
from cython.cimports.uzswap.core.store.clean import clean_drop
from cython.cimports.uzswap.core.store.codec import ALG_LZ4, ALG_ZSTD, MAX_ENTRY_BYTES, NR_CODECS
from cython.cimports.uzswap.core.store.codecs import (
    codec_get,
    codec_hold,
    codec_of_dictionary,
    codec_put,
    codec_slot,
    codecs_bytes,
)
from cython.cimports.uzswap.core.store.dictionary import (
    MAX_DICTIONARY_BYTES,
    dictionaries_free,
    dictionary_new,
    dictionary_plausible,
    dictionary_train,
)
from cython.cimports.uzswap.core.store.entries import (
    C_RESIDENT,
    C_SWAP,
    C_ZSWAP,
    CHUNK_ENTRIES,
    GOING_TO_DISK,
    HELD,
    IN_POOL,
    IS_SAME,
    IS_ZERO,
    MEMCG_ONLINE,
    NO_MEMCG,
    NR_COUNTERS,
    NR_GLOBALS,
    NR_NODES,
    ON_DISK,
    REFERENCED,
    Delta,
    Memcg,
    entry_at,
    owner_of,
    record_of_entry_bytes,
)
from cython.cimports.uzswap.core.store.histogram import NR_BUCKETS, NR_HISTOGRAMS, NR_STEPS, STEP_SHIFT, Histogram
from cython.cimports.uzswap.core.store.memcgs import (
    delta_add,
    delta_apply,
    in_subtree,
    memcg_alloc,
    memcg_offline,
    memcg_protect,
    writeback_allowed,
)
from cython.cimports.uzswap.core.store.protection import effective_protection, share_of
from cython.cimports.uzswap.core.store.recompress import RECOMPRESS_AGAIN, Recompress, recompress
from cython.cimports.uzswap.core.store.state import (
    WRITE_COLDEST,
    WRITE_IN_TURN,
    WRITE_NOTHING,
    Charge,
    Core,
    born_units,
    core_charge,
    core_destroy,
    core_init,
    core_now,
    give_back,
    trim_device,
)
from cython.cimports.uzswap.core.store.stream import stream_finish, stream_get, stream_put
from cython.cimports.uzswap.core.store.swap_in import Load, free_entries, swap_in
from cython.cimports.uzswap.core.store.swap_out import (
    STORE_DONE,
    STORE_OVER_LIMIT,
    STORE_OVER_SWAP,
    STORE_POOL_FULL,
    STORE_REFUSE,
    STORE_SKIP_LIMIT,
    STORE_TRY_FILTER,
    Store,
    swap_out,
)
from cython.cimports.uzswap.core.store.walk import (
    WALK_RETRY_FAILED,
    WALK_STOP_ON_EXIST,
    Walk,
    walk,
)

COUNTERS = (
    "resident",
    "zswap",
    "zswapped",
    "zswap_incomp",
    "swap",
    "disk",
    "uzswap.clean_copies",
    "swapcached",
    "uzswap.metadata_bytes",
    "zswpin",
    "zswpout",
    "zswpwb",
    "zswpwb_proactive_b",
    "pswpin",
    "pswpout",
    "swpin_zero",
    "swpout_zero",
    "uzswap.same_filled",
    "pgfault",
    "pgmajfault",
    "workingset_refault_anon",
)
GLOBALS = (
    *COUNTERS,
    "pool_limit_hit",
    "reject_reclaim_fail",
    "reject_alloc_fail",
    "reject_kmemcache_fail",
    "reject_compress_fail",
    "reject_compress_poor",
    "decompress_fail",
    "written_back_pages",
    "stored_pages",
    "stored_incompressible_pages",
    "uzswap.checksum_fail",
    "uzswap.io_error",
)
HISTOGRAMS = ("length", "load.zswap", "load.disk", "load.zero", "age")
LENGTH_BOUNDS = (*((step + 1) << STEP_SHIFT for step in range(NR_STEPS)), *(4096 << k for k in range(1, 5)))
NS_BOUNDS = tuple(map((256).__lshift__, range(NR_BUCKETS)))
MAX_NODES = NR_NODES
MAX_ENTRY = MAX_ENTRY_BYTES
REFUSED = 0
ZERO, SAME, ZSWAP, DISK = IS_ZERO, IS_SAME, IN_POOL, ON_DISK
ZSWAP_MAX, MEMORY_HIGH, MEMORY_MAX, SWAP_HIGH, SWAP_MAX, RESIDENT_MAX, MEMORY_MIN, MEMORY_LOW = range(8)
SKIP_LIMIT, REFUSE, TRY_FILTER = STORE_SKIP_LIMIT, STORE_REFUSE, STORE_TRY_FILTER
DONE, OVER_LIMIT, POOL_FULL, OVER_SWAP = STORE_DONE, STORE_OVER_LIMIT, STORE_POOL_FULL, STORE_OVER_SWAP
STOP_ON_EXIST, RETRY_FAILED = WALK_STOP_ON_EXIST, WALK_RETRY_FAILED
AGAIN = RECOMPRESS_AGAIN
LZ4, ZSTD = ALG_LZ4, ALG_ZSTD
LRU, RESIDENT = HAS_LRU, HAS_RESIDENT
IN_TURN, COLDEST, NOTHING = WRITE_IN_TURN, WRITE_COLDEST, WRITE_NOTHING

StoreResult = namedtuple("StoreResult", "next reason errno")
LoadResult = namedtuple("LoadResult", "failed errno disk_ns")
WalkResult = namedtuple("WalkResult", "scanned rotated entries nbytes exist nospace stopped exhausted")
RecompressResult = namedtuple(
    "RecompressResult", "scanned rotated nbytes entries bytes_before bytes_after refused gone exhausted position errno"
)
Recompressed = namedtuple("Recompressed", "entries bytes_before bytes_after refused")
FlushResult = namedtuple("FlushResult", "entries nbytes failed errno gone")
EntryInfo = namedtuple("EntryInfo", "state codec length size memcg node referenced location")
Places = namedtuple("Places", "zswap disk value unknown zswap_bytes disk_bytes")
PoolInfo = namedtuple("PoolInfo", "codec level entries current dictionary")
CodecInfo = namedtuple("CodecInfo", "codec level filter dictionary entries refs users given_bytes packed_bytes")
HistogramInfo = namedtuple("HistogramInfo", "sum counts")
DeviceInfo = namedtuple(
    "DeviceInfo",
    "segments free_segments live_bytes dead_bytes direct asynchronous encrypted cleaned_segments punched_bytes",
)

# Entries looked at in one hold of the lock.
HELD_PLACES = cython.declare(int64_t, 1024)


@cython.cfunc
def private_copy(values: cython.pointer(cython.const[uint64_t]), n: cython.size_t) -> cython.pointer(uint64_t):
    """A copy that is read and written under the lock: the caller's array may be paged memory, whose faults need it."""
    copy = cython.cast(cython.pointer(uint64_t), malloc(n * cython.sizeof(uint64_t)))
    if copy != cython.NULL:
        memcpy(copy, values, n * cython.sizeof(uint64_t))
    return copy


def share_of_protection(
    usage: int64_t, parent_usage: int64_t, setting: int64_t, parent_effective: int64_t, siblings: int64_t
):
    return share_of(usage, parent_usage, setting, parent_effective, siblings)


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


def core_lock(c):
    """The lock, and the gate: what is read and written between the two is never seen half done by a forked child."""
    uz_enter(cython.address(c.gate))
    pthread_mutex_lock(cython.address(c.lock))


def core_unlock(c):
    pthread_mutex_unlock(cython.address(c.lock))
    uz_leave(cython.address(c.gate))


@cython.cclass
class Engine:
    def __cinit__(self, nodes: int = 1, paranoid: cython.bint = False):
        self.core = cython.NULL
        if not 1 <= nodes <= NR_NODES:
            raise ValueError(f"nodes={nodes}: there can be 1 to {NR_NODES}")
        core = cython.cast(cython.pointer(Core), calloc(1, cython.sizeof(Core)))
        if core == cython.NULL or core_init(core, nodes, paranoid):
            free(core)
            raise MemoryError("no address space for the engine's tables: raise the limit (ulimit -v)")
        if kin_add(core):
            core_destroy(core)
            free(core)
            raise MemoryError
        self.core = core

    def __dealloc__(self):
        self.close()

    def close(self):
        """Free everything.  No other method may be running."""
        if self.core != cython.NULL:
            kin_drop(self.core)
            if not self.core.abandoned:
                core_destroy(self.core)
                free(self.core)
            self.core = cython.NULL

    @property
    def closed(self):
        return self.core == cython.NULL

    @property
    def is_here(self):
        return self.core != cython.NULL and self.core.pid == getpid()

    def _open(self):
        if self.core == cython.NULL:
            raise ValueError("the engine is closed")
        return self.core

    def _memcg(self, memcg):
        c = self._open()
        if memcg >= c.t.next_memcg or c.t.memcgs[memcg].state != MEMCG_ONLINE:
            raise ValueError(f"memcg {memcg} is not online")
        return cython.address(c.t.memcgs[memcg])

    # Time and order

    def now(self):
        return core_now(self._open())

    def advance(self, ns: int64_t):
        self._open().skew += ns

    def stamp(self):
        return self._open().t.last_stamp

    # Memcgs

    def memcg_new(self, parent: uint32_t):
        self._memcg(parent)
        c = self.core
        m: uint32_t = NO_MEMCG
        with cython.nogil:
            core_lock(c)
            online: cython.bint = c.t.memcgs[parent].state == MEMCG_ONLINE
            if online:
                m = memcg_alloc(cython.address(c.t), parent)
            core_unlock(c)
        if not online:
            raise ValueError(f"memcg {parent} is not online")
        return -ENOMEM if m == NO_MEMCG else m

    def memcg_remove(self, memcg: uint32_t):
        if memcg == 0:
            raise ValueError("the root memcg cannot be removed")
        self._memcg(memcg)
        c = self.core
        memory = self.memory() if self.memory is not None else None
        if memory is not None:
            memory.remove_memcg(memcg)
            return
        with cython.nogil:
            core_lock(c)
            if c.t.memcgs[memcg].state == MEMCG_ONLINE:
                memcg_offline(cython.address(c.t), memcg)
            core_unlock(c)

    def set_limit(self, memcg: uint32_t, which: cython.int, value: int64_t):
        g = self._memcg(memcg)
        if which == 0:
            g.zswap_max = value
        elif which == 1:
            g.memory_high = value
        elif which == 2:
            g.memory_max = value
        elif which == 3:
            g.swap_high = value
        elif which == 4:
            g.swap_max = value
        elif which == 5:
            g.resident_max = value
        elif which in (6, 7):
            c = self.core
            with cython.nogil:
                core_lock(c)
                memcg_protect(
                    cython.address(c.t),
                    memcg,
                    value if which == 6 else g.memory_min,
                    value if which == 7 else g.memory_low,
                )
                core_unlock(c)
        else:
            raise ValueError(f"limit {which}")

    def effective_protection(self, memcg: uint32_t, target: uint32_t):
        self._memcg(memcg)
        self._memcg(target)
        c = self.core
        minimum: int64_t = 0
        low: int64_t = 0
        with cython.nogil:
            core_lock(c)
            below: cython.bint = in_subtree(cython.address(c.t), memcg, target)
            if below:
                effective_protection(cython.address(c.t), memcg, target, cython.address(minimum), cython.address(low))
            core_unlock(c)
        if not below:
            raise ValueError(f"memcg {memcg} is not in the subtree of {target}")
        return minimum, low

    def set_writeback(self, memcg: uint32_t, allowed: cython.bint):
        self._memcg(memcg).writeback = allowed

    def counters(self, memcg: uint32_t):
        g = self._memcg(memcg)
        c = self.core
        values: int64_t[NR_COUNTERS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_COUNTERS):
                values[k] = g.counters[k]
            core_unlock(c)
        return [values[k] for k in range(NR_COUNTERS)]

    def globals(self):
        c = self._open()
        values: int64_t[NR_GLOBALS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_GLOBALS):
                values[k] = c.t.totals[k]
            core_unlock(c)
        return [values[k] for k in range(NR_GLOBALS)]

    def histograms(self):
        c = self._open()
        copy: Histogram[NR_HISTOGRAMS]
        k: cython.int
        with cython.nogil:
            core_lock(c)
            for k in range(NR_HISTOGRAMS):
                copy[k] = c.histograms[k]
            core_unlock(c)
        found = {}
        for k in range(NR_HISTOGRAMS):
            found[HISTOGRAMS[k]] = HistogramInfo(copy[k].sum, [copy[k].counts[i] for i in range(NR_BUCKETS)])
        return found

    def lru_len(self, memcg: uint32_t, node: cython.int):
        return self._memcg(memcg).lru[self._node(node)].length

    def nr_disk_swapins(self, memcg: uint32_t, node: cython.int):
        return self._memcg(memcg).lru[self._node(node)].disk_swapins

    def take_disk_swapins(self, memcg: uint32_t, node: cython.int, most: uint32_t):
        lru = cython.address(self._memcg(memcg).lru[self._node(node)])
        c = self.core
        with cython.nogil:
            core_lock(c)
            taken = lru.disk_swapins if lru.disk_swapins < most else most
            lru.disk_swapins -= taken
            core_unlock(c)
        return taken

    def _node(self, node):
        if not 0 <= node < self.core.nodes:
            raise ValueError(f"node {node}: this engine has nodes 0 to {self.core.nodes - 1}")
        return node

    def active(self, memcg: uint32_t, which: cython.int):
        self._memcg(memcg)
        c = self.core
        room: int64_t = 64
        while True:
            out = cython.cast(cython.pointer(uint32_t), malloc(room * cython.sizeof(uint32_t)))
            if out == cython.NULL:
                raise MemoryError
            with cython.nogil:
                core_lock(c)
                n = active_list(cython.address(c.t), memcg, which, c.enabled and which == HAS_LRU, out, room)
                core_unlock(c)
            found = [out[i] for i in range(n)]
            free(out)
            if n >= 0:
                return found
            room *= 4

    def local_stored(self, memcg: uint32_t):
        return self._memcg(memcg).stored

    def writeback_allowed(self, memcg: uint32_t):
        self._memcg(memcg)
        c = self.core
        return not c.enabled or bool(writeback_allowed(cython.address(c.t), memcg))

    def watermark(self, memcg: uint32_t, swap: cython.bint):
        g = self._memcg(memcg)
        return (g.swap_peak, g.swap_peak_local) if swap else (g.memory_peak, g.memory_peak_local)

    def reset_watermark(self, memcg: uint32_t, swap: cython.bint):
        g = self._memcg(memcg)
        c = self.core
        with cython.nogil:
            core_lock(c)
            if swap:
                current = g.counters[C_SWAP]
                g.swap_peak_local = current
            else:
                current = g.counters[C_RESIDENT] + g.counters[C_ZSWAP]
                g.memory_peak_local = current
            core_unlock(c)
        return current

    def count(self, memcg: uint32_t, counter: cython.int, value: int64_t):
        self._memcg(memcg)
        if not 0 <= counter < NR_COUNTERS:
            raise ValueError(f"counter {counter}")
        self._add(memcg, counter, value)

    def _add(self, memcg, counter, value):
        c = self.core
        d: Delta
        with cython.nogil:
            memset(cython.address(d), 0, cython.sizeof(Delta))
            core_lock(c)
            # Looked at again: another thread may have removed it since.
            online: cython.bint = c.t.memcgs[memcg].state == MEMCG_ONLINE
            if online:
                delta_add(cython.address(c.t), cython.address(d), memcg, counter, value)
                delta_apply(cython.address(c.t), cython.address(d))
            core_unlock(c)
        if not online:
            raise ValueError(f"memcg {memcg} is not online")

    # Resident memory of the front-ends

    def charge(self, memcg: uint32_t, nbytes: int64_t, force: cython.bint = False):
        self._memcg(memcg)
        c = self.core
        met: Charge
        # With the GIL: nobody forks between this and the caller, who alone knows of it.
        gone = core_charge(c, memcg, nbytes, force, cython.address(met))
        if gone:
            raise ValueError(f"memcg {memcg} is not online")
        return (-1 if met.over_max == NO_MEMCG else met.over_max), (-1 if met.over_high == NO_MEMCG else met.over_high)

    def drop_clean(self, memcg: uint32_t, nbytes: int64_t):
        self._memcg(memcg)
        c = self.core
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            freed = clean_drop(c, memcg, nbytes, 0)
            uz_leave(cython.address(c.gate))
        return freed

    def uncharge(self, memcg: uint32_t, nbytes: int64_t):
        self._memcg(memcg)
        self._add(memcg, C_RESIDENT, -nbytes)

    # Parameters

    def set_enabled(self, enabled: cython.bint):
        self._open().enabled = enabled

    def set_fault_writeback(self, how: cython.int):
        if how not in (WRITE_IN_TURN, WRITE_COLDEST, WRITE_NOTHING):
            raise ValueError(f"fault_writeback {how}")
        self._open().fault_writeback = how

    def set_same_filled(self, as_value: cython.bint):
        self._open().same_as_value = as_value

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
            core_unlock(c)
        if not p.refs and not p.users and slot != c.codec:
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
        if not 0 <= slot < c.nr_codecs or c.codecs[slot].users <= 0:
            raise ValueError(f"codec {slot} is not held")
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            codec_put(c, slot)
            uz_leave(cython.address(c.gate))

    def set_pool_limit(self, max_pages: int64_t, accept_pages: int64_t):
        c = self._open()
        c.pool_max = max_pages
        c.pool_accept = accept_pages

    def pools(self):
        c = self._open()
        current = cython.address(c.codecs[c.codec])
        entries = {(current.algorithm, current.level, False): 0}
        i: cython.int
        for i in range(c.nr_codecs):
            p = cython.address(c.codecs[i])
            if p.entries:
                name = (p.algorithm, p.level, p.dictionary != cython.NULL)
                entries[name] = entries.get(name, 0) + p.entries
        return [
            PoolInfo(codec, level, n, i == 0, dictionary)
            for i, ((codec, level, dictionary), n) in enumerate(entries.items())
        ]

    def pool_pages(self):
        return self._open().pool.pages

    def metadata_bytes(self):
        c = self._open()
        per_entry: int64_t = record_of_entry_bytes(cython.address(c.t))
        tables = c.t.chunks_in_use * CHUNK_ENTRIES * per_entry + c.t.next_memcg * cython.sizeof(Memcg)
        with cython.nogil:
            core_lock(c)
            dictionaries = codecs_bytes(c)
            core_unlock(c)
        return tables + c.pool.next_extent * 32 * 16 + dictionaries

    def reached_full(self):
        return bool(self._open().reached_full)

    # Device

    def make_keys(self):
        c = self._open()
        if c.has_device:
            return -EBUSY
        if c.keys != cython.NULL:
            return 0
        failed: cython.int = secret_load()
        if not failed:
            c.keys = cython.cast(cython.pointer(uint8_t), uz_secret(NR_FILES * KEY_BYTES, cython.address(failed)))
        if not failed:
            c.spare.opener = opener_new()
            if c.spare.opener == cython.NULL:
                uz_private_free(c.keys, NR_FILES * KEY_BYTES)
                c.keys = cython.NULL
                failed = -ENOMEM
        return failed

    def attach_device(
        self,
        fd: cython.int,
        nbytes: uint64_t,
        direct: cython.bint,
        nonce: uint64_t = 0,
        directory: bytes = b"/var/tmp",
        front: uint32_t = 0,
    ):
        c = self._open()
        if c.has_device:
            return -EBUSY
        if nbytes // SEGMENT_BYTES < 1 + RESERVE or front % BLOCK or front > SEGMENT_BYTES // 2:
            return -EINVAL
        where = strndup(directory, len(directory))
        if where == cython.NULL:
            return -ENOMEM
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            failed = device_init(cython.address(c.device), fd, nbytes, direct, c.keys, nonce, front, where)
            uz_leave(cython.address(c.gate))
        c.has_device = failed == 0
        return failed

    def write_block(self, offset: uint64_t, content: bytes):
        c = self._device()
        n = cython.cast(cython.size_t, BLOCK)
        block = cython.cast(cython.p_char, uz_private(n))
        if block == cython.NULL:
            return -ENOMEM
        memcpy(block, PyBytes_AS_STRING(content), min(len(content), BLOCK))
        with cython.nogil:
            error = device_ask_and_wait(cython.address(c.device.io), ASK_WRITE, block, offset, n)
        uz_private_free(block, n)
        return error

    def truncate_device(self, nbytes: uint64_t):
        c = self._device()
        with cython.nogil:
            error = device_ask_and_wait(cython.address(c.device.io), ASK_TRUNCATE, cython.NULL, nbytes, 0)
        return error

    def wipe_device(self):
        c = self._device()
        with cython.nogil:
            error = device_wipe(cython.address(c.device))
        return error

    def settle_device(self):
        c = self._device()
        self.lent()
        with cython.nogil:
            trim_device(c)
            device_settle(cython.address(c.device.io), cython.address(c.trimming))

    def lent(self):
        """Whether a forked child, or one of its own, may read what is on the device."""
        c = self._device()
        d = cython.address(c.device)
        with cython.nogil:
            core_lock(c)
            leases_look(d)
            if d.nr_leases:
                # Nobody else is forked just now: whether anybody has the last one can be told.
                d.moved = 1
                leases_look(d)
            found: cython.bint = d.nr_leases or d.for_good
            core_unlock(c)
        return found

    def _device(self):
        c = self._open()
        if not c.has_device:
            raise ValueError("the engine has no device")
        return c

    def device(self):
        c = self._open()
        if not c.has_device:
            return None
        d = cython.address(c.device)
        with cython.nogil:
            core_lock(c)
            has_aio = c.has_aio
            nr, nr_free, live, used = d.nr, d.nr_free, d.live_bytes, d.used_bytes
            cleaned, punched, direct = d.cleaned, d.punched, d.io.direct
            encrypted: cython.bint = d.secret.key != cython.NULL
            core_unlock(c)
        return DeviceInfo(
            nr, nr_free, live, used - live, bool(direct), bool(has_aio), bool(encrypted), cleaned, punched
        )

    # Entries

    def store(
        self,
        data: cython.const[uint8_t][::1],
        page: uint32_t,
        memcg: uint32_t,
        node: cython.int,
        handles: uint64_t[::1],
        start: int64_t = 0,
        folio: int64_t = 1,
        flags: cython.int = 0,
        codec: cython.int = -1,
        filter: cython.int = 0,
        small: cython.int = -1,
        small_bytes: uint32_t = 0,
    ):
        self._memcg(memcg)
        self._node(node)
        n: int64_t = (data.shape[0] + page - 1) // page if page else 0
        if not 1 <= page <= MAX_ENTRY_BYTES or folio < 1 or n > handles.shape[0] or not 0 <= start <= n:
            raise ValueError(f"page={page} of 1..{MAX_ENTRY_BYTES}, folio={folio}, start={start}, {n} pages")
        if start == n:
            return StoreResult(n, STORE_DONE, 0)
        if not 0 <= filter <= MAX_ENTRY_BYTES:
            raise ValueError(f"filter={filter} of 0..{MAX_ENTRY_BYTES}")
        if max(codec, small) >= NR_CODECS:
            raise ValueError(f"codec={codec}, small={small}: there are {NR_CODECS}")
        c = self.core
        s = cython.cast(cython.pointer(Store), malloc(cython.sizeof(Store)))
        found = cython.cast(cython.pointer(uint64_t), malloc((n - start) * cython.sizeof(uint64_t)))
        if s == cython.NULL or found == cython.NULL:
            free(s)
            free(found)
            raise MemoryError
        s.spans = cython.NULL
        s.data = cython.cast("const char *", cython.address(data[0]))
        s.nbytes = data.shape[0]
        s.page = page
        s.memcg = memcg
        s.node = node
        s.handles = found - start
        s.start = start
        s.n = n
        s.folio = folio
        s.flags = flags
        # Items of one byte are in order as they are.
        s.filter = filter if filter > 1 else 0
        s.small_bytes = small_bytes
        s.shares = 0
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            s.asked = codec_hold(c, codec)
            s.small = codec_hold(c, small)
            swap_out(c, s)
            codec_put(c, s.asked)
            codec_put(c, s.small)
            # Within the gate: a child that is forked knows of all that is there.
            memcpy(cython.address(handles[0]) + start, found, (s.next - start) * cython.sizeof(uint64_t))
            uz_leave(cython.address(c.gate))
        result = StoreResult(s.next, s.reason, s.error)
        free(found)
        free(s)
        return result

    def _load(self, handles, n, out, nbytes, page, consume):
        load = cython.cast(cython.pointer(Load), malloc(cython.sizeof(Load)))
        asked = private_copy(handles, n)
        if load == cython.NULL or asked == cython.NULL:
            free(load)
            free(asked)
            raise MemoryError
        load.handles = asked
        load.spans = cython.NULL
        load.n = n
        load.out = out
        load.nbytes = nbytes
        load.page = page
        load.consume = consume
        c = self.core
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            swap_in(c, load)
            uz_leave(cython.address(c.gate))
        result = LoadResult(load.failed if load.error else -1, load.error, load.disk_ns)
        free(asked)
        free(load)
        return result

    def load(
        self, handles: cython.const[uint64_t][::1], out: uint8_t[::1], page: uint32_t, consume: cython.bint = True
    ):
        self._open()
        if handles.shape[0] == 0:
            return LoadResult(-1, 0, 0)
        if out.shape[0] == 0:
            return LoadResult(0, EINVAL, 0)
        return self._load(
            cython.address(handles[0]),
            handles.shape[0],
            cython.cast(cython.p_char, cython.address(out[0])),
            out.shape[0],
            page,
            consume,
        )

    def load_bytes(
        self,
        handles: cython.const[uint64_t][::1],
        page: uint32_t,
        nbytes: cython.Py_ssize_t,
        consume: cython.bint = True,
    ):
        self._open()
        data = PyBytes_FromStringAndSize(cython.NULL, nbytes)
        if handles.shape[0] == 0 or nbytes == 0:
            return data, LoadResult(-1, 0, 0)
        result = self._load(
            cython.address(handles[0]), handles.shape[0], PyBytes_AS_STRING(data), nbytes, page, consume
        )
        return (None if result.errno else data), result

    def free(self, handles: cython.const[uint64_t][::1]):
        c = self._open()
        if handles.shape[0] == 0:
            return -1, 0
        error: cython.int = 0
        n: int64_t = handles.shape[0]
        asked = private_copy(cython.address(handles[0]), n)
        some: uint64_t[256]
        bad: int64_t = -1
        done: int64_t = 0
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            if asked != cython.NULL:
                bad = free_entries(c, asked, n, cython.address(error))
            # Without memory it goes on all the same, since who frees has nothing else to try; only that what stands
            # before a bad handle is gone then.
            while asked == cython.NULL and done < n and bad < 0:
                step = n - done if n - done < 256 else 256
                memcpy(some, cython.address(handles[0]) + done, step * cython.sizeof(uint64_t))
                bad = free_entries(c, some, step, cython.address(error))
                if bad >= 0:
                    bad += done
                done += step
            uz_leave(cython.address(c.gate))
        free(asked)
        return bad, error

    def info(self, handle: uint64_t):
        c = self._open()
        t = cython.address(c.t)
        with cython.nogil:
            core_lock(c)
            e = entry_at(t, handle)
            known: cython.bint = e != cython.NULL and e.state != GOING_TO_DISK
            if known:
                copy = e[0]
                owner = owner_of(t, e)
            core_unlock(c)
        if not known:
            return None
        return EntryInfo(
            copy.state,
            copy.codec,
            copy.length_1 + 1 if copy.state in (IN_POOL, ON_DISK) else 0,
            copy.size_1 + 1,
            owner,
            copy.node,
            bool(copy.flags & REFERENCED),
            copy.data,
        )

    def places(self, handles: cython.const[uint64_t][::1]):
        c = self._open()
        n: int64_t = handles.shape[0]
        if n == 0:
            return Places(0, 0, 0, 0, 0, 0)
        asked = private_copy(cython.address(handles[0]), n)
        if asked == cython.NULL:
            raise MemoryError
        zswap: int64_t = 0
        disk: int64_t = 0
        unknown: int64_t = 0
        zswap_bytes: int64_t = 0
        disk_bytes: int64_t = 0
        i: int64_t = 0
        with cython.nogil:
            while i < n:
                core_lock(c)
                end: int64_t = i + HELD_PLACES if n - i > HELD_PLACES else n
                while i < end:
                    e = entry_at(cython.address(c.t), asked[i])
                    i += 1
                    if e == cython.NULL or e.state == GOING_TO_DISK:
                        unknown += 1
                    elif e.state == IN_POOL:
                        zswap += 1
                        zswap_bytes += cython.cast(int64_t, e.length_1) + 1
                    elif e.state == ON_DISK:
                        disk += 1
                        disk_bytes += cython.cast(int64_t, e.length_1) + 1
                core_unlock(c)
        free(asked)
        return Places(zswap, disk, n - zswap - disk - unknown, unknown, zswap_bytes, disk_bytes)

    def recompress(
        self,
        memcg: uint32_t,
        node: cython.int,
        codec: cython.int,
        level: cython.int,
        nr_to_scan: int64_t,
        budget: int64_t,
        since: uint64_t,
        position: uint64_t = 0,
        max_born: int64_t = (1 << 63) - 1,
        flags: cython.int = 0,
    ):
        self._memcg(memcg)
        self._node(node)
        if codec not in (ALG_LZ4, ALG_ZSTD):
            raise ValueError(f"codec {codec}")
        c = self.core
        w: Recompress
        memset(cython.address(w), 0, cython.sizeof(Recompress))
        w.memcg = memcg
        w.node = node
        w.algorithm = codec
        w.level = level
        w.nr_to_scan = nr_to_scan
        w.budget = budget
        w.since = since
        w.position = position
        w.youngest = 0xFFFFFFFF if max_born == (1 << 63) - 1 else born_units(max_born)
        w.flags = flags
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            recompress(c, cython.address(w))
            give_back(c)
            uz_leave(cython.address(c.gate))
        return RecompressResult(
            w.scanned,
            w.rotated,
            w.taken_bytes,
            w.entries,
            w.bytes_before,
            w.bytes_after,
            w.refused,
            w.gone,
            bool(w.exhausted),
            w.position,
            w.error,
        )

    def recompressed(self):
        c = self._open()
        with cython.nogil:
            core_lock(c)
            r = c.recompressed
            core_unlock(c)
        return Recompressed(r.entries, r.bytes_before, r.bytes_after, r.refused)

    def hold(self, handle: uint64_t):
        c = self._open()
        with cython.nogil:
            core_lock(c)
            e = entry_at(cython.address(c.t), handle)
            error = ESTALE if e == cython.NULL else EBUSY if e.flags & HELD or e.state == GOING_TO_DISK else 0
            if not error:
                e.flags |= HELD
            core_unlock(c)
        return -error

    def release(self, handle: uint64_t):
        c = self._open()
        with cython.nogil:
            core_lock(c)
            e = entry_at(cython.address(c.t), handle)
            if e != cython.NULL:
                e.flags &= ~HELD
            core_unlock(c)

    def check(self):
        return check_core(self._open())


@cython.cclass
class Writer:
    def __cinit__(self, engine: Engine, proactive: cython.bint = False):
        self.stream = cython.NULL
        self.engine = engine
        c = engine._open()
        if not c.has_device:
            raise ValueError("the engine has no device")
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            self.stream = stream_get(c)
            uz_leave(cython.address(c.gate))
        if self.stream == cython.NULL:
            raise MemoryError("no memory for a writeback stream")
        self.stream.proactive = proactive

    def __dealloc__(self):
        if self.stream != cython.NULL and self.engine.core != cython.NULL:
            self.finish()

    def walk(
        self,
        lrus: uint64_t[::1],
        positions: uint64_t[::1],
        nr_to_scan: int64_t,
        budget: int64_t,
        since: uint64_t,
        max_born: int64_t = (1 << 63) - 1,
        flags: cython.int = 0,
    ):
        c = self.engine._open()
        if self.stream == cython.NULL:
            raise ValueError("the writer is finished")
        if lrus.shape[0] == 0 or positions.shape[0] < lrus.shape[0]:
            raise ValueError(f"{lrus.shape[0]} LRUs, {positions.shape[0]} positions")
        i: cython.Py_ssize_t
        for i in range(lrus.shape[0]):
            if lrus[i] >> 8 >= c.t.next_memcg or (lrus[i] & 0xFF) >= NR_NODES:
                raise ValueError(f"LRU {lrus[i]:#x}")
        w: Walk
        memset(cython.address(w), 0, cython.sizeof(Walk))
        n: cython.Py_ssize_t = lrus.shape[0]
        w.heap = cython.cast(cython.pointer(uint32_t), malloc(n * cython.sizeof(uint32_t)))
        w.lrus = private_copy(cython.address(lrus[0]), n)
        w.positions = private_copy(cython.address(positions[0]), n)
        if w.heap == cython.NULL or w.lrus == cython.NULL or w.positions == cython.NULL:
            free(w.heap)
            free(w.lrus)
            free(w.positions)
            raise MemoryError
        w.nr_lrus = cython.cast(uint32_t, lrus.shape[0])
        w.nr_to_scan = nr_to_scan
        w.budget = budget
        w.since = since
        w.youngest = 0xFFFFFFFF if max_born == (1 << 63) - 1 else born_units(max_born)
        w.flags = flags
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            walk(c, self.stream, cython.address(w))
            uz_leave(cython.address(c.gate))
            memcpy(cython.address(positions[0]), w.positions, n * cython.sizeof(uint64_t))
        free(w.heap)
        free(w.lrus)
        free(w.positions)
        return WalkResult(
            w.scanned, w.rotated, w.entries, w.nbytes, w.exist, w.nospace, bool(w.stopped), bool(w.exhausted)
        )

    def finish(self):
        if self.stream == cython.NULL:
            return self.result
        c = self.engine._open()
        s = self.stream
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            stream_finish(c, s)
            uz_leave(cython.address(c.gate))
        self.result = FlushResult(s.entries, s.nbytes, s.failed, s.error, s.gone)
        self.stream = cython.NULL
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            stream_put(c, s)
            give_back(c)
            uz_leave(cython.address(c.gate))
        return self.result
