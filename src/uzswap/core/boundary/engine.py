"""The boundary of the data plane: see engine.pyi."""

import cython
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.errno import EBUSY, EINVAL, ESTALE
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.boundary.backing import Backing
from cython.cimports.uzswap.core.boundary.opened import core_lock, core_unlock, private_copy
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.store.codec import ALG_LZ4, ALG_ZSTD, MAX_ENTRY_BYTES, NR_CODECS
from cython.cimports.uzswap.core.store.codecs import codec_hold, codec_put
from cython.cimports.uzswap.core.store.entries import (
    GOING_TO_DISK,
    HELD,
    IN_POOL,
    ON_DISK,
    REFERENCED,
    entry_at,
    owner_of,
)
from cython.cimports.uzswap.core.store.reading import Load
from cython.cimports.uzswap.core.store.recompress import Recompress, recompress
from cython.cimports.uzswap.core.store.state import born_units, give_back
from cython.cimports.uzswap.core.store.swap_in import free_entries, swap_in
from cython.cimports.uzswap.core.store.swap_out import STORE_DONE, Store, swap_out

from uzswap.core.boundary.codecs import train_dictionary as train_dictionary
from uzswap.core.boundary.memcgs import share_of_protection as share_of_protection
from uzswap.core.boundary.names import *  # noqa: F403  whoever calls the boundary finds them here
from uzswap.core.boundary.names import (
    EntryInfo,
    LoadResult,
    Places,
    Recompressed,
    RecompressResult,
    StoreResult,
)

# Entries looked at in one hold of the lock.
HELD_PLACES = cython.declare(int64_t, 1024)


@cython.cclass
class Engine(Backing):
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
        storing = self._begin_storing(n - start)
        if s == cython.NULL or storing == cython.NULL:
            free(s)
            self._stored(storing)
            raise MemoryError
        found = cython.address(storing.handles[0])
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
            uz_leave(cython.address(c.gate))
        # Not within the gate, for which a fault may wait: the array may be paged.  With the GIL, so nobody forks.
        memcpy(cython.address(handles[0]) + start, found, (s.next - start) * cython.sizeof(uint64_t))
        self._stored(storing)
        result = StoreResult(s.next, s.reason, s.error)
        free(s)
        return result

    def _begin_storing(self, n):
        """NULL without memory."""
        nbytes: cython.size_t = cython.sizeof(Storing) + n * cython.sizeof(uint64_t)
        storing = cython.cast(cython.pointer(Storing), calloc(1, nbytes))
        if storing != cython.NULL:
            storing.n = n
            storing.next = self.storing
            self.storing = storing
        return storing

    def _stored(self, storing):
        """Their handles are the caller's now."""
        if storing == cython.NULL:
            return
        at = cython.address(self.storing)
        while at[0] != storing:
            at = cython.address(at[0].next)
        at[0] = storing.next
        free(storing)

    def forked(self):
        c = self._open()
        ignored: cython.int = 0
        i: int64_t
        while self.storing != cython.NULL:
            storing = self.storing
            for i in range(storing.n):
                if storing.handles[i]:
                    free_entries(c, cython.address(storing.handles[i]), 1, cython.address(ignored))
            self._stored(storing)

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
