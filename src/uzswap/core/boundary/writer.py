"""A writeback request: walks that write what they meet, to the device and to its end: see engine.pyi."""

import cython
from cython.cimports.libc.stdint import int64_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memcpy, memset
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.boundary.opened import core_lock, core_unlock, private_copy
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.store.entries import NR_NODES
from cython.cimports.uzswap.core.store.state import born_units, give_back
from cython.cimports.uzswap.core.store.stream import stream_finish, stream_get, stream_put
from cython.cimports.uzswap.core.store.walk import Walk, walk

from uzswap.core.boundary.names import FlushResult, WalkResult


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
        core_lock(c)
        nr_memcgs: uint32_t = c.t.next_memcg
        core_unlock(c)
        i: cython.Py_ssize_t
        for i in range(lrus.shape[0]):
            if lrus[i] >> 8 >= nr_memcgs or (lrus[i] & 0xFF) >= NR_NODES:
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
