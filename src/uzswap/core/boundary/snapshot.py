"""Everything that is counted, of many memcgs in one call: see snapshot.pyi."""

import cython
import numpy as np
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.boundary.opened import core_lock, core_unlock
from cython.cimports.uzswap.core.store.entries import (
    CHUNK_ENTRIES,
    CLEAN,
    IN_POOL,
    MEMCG_ONLINE,
    NR_COUNTERS,
    NR_NODES,
    WRITING,
    Memcg,
    owner_of,
)
from cython.cimports.uzswap.core.store.state import Core, born_units, core_now

from uzswap.core.boundary.engine import COUNTERS

COLUMNS = (
    *COUNTERS,
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.max",
    "uzswap.resident.max",
    "memory.zswap.writeback",
    "memory.peak",
    "memory.swap.peak",
    *(f"node.{node}" for node in range(NR_NODES)),
)
UNLIMITED = 1 << 62

NO_LIMIT = cython.declare(int64_t, 1 << 62)
NR_SETTINGS = cython.declare(cython.int, 11)
WIDTH = cython.declare(cython.int, NR_COUNTERS + NR_SETTINGS + NR_NODES)
# memcgs between two breaths of the lock: 64 rows of 40 numbers take 2 us
HELD_ROWS = cython.declare(int64_t, 64)
NO_ROW = cython.declare(uint32_t, 0xFFFFFFFF)
PAGE_SHIFT = cython.declare(cython.int, 12)

assert len(COLUMNS) == NR_COUNTERS + 11 + NR_NODES


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def fill(row: cython.pointer(int64_t), g: cython.pointer(Memcg)) -> cython.void:
    k: cython.int
    for k in range(NR_COUNTERS):
        row[k] = g.counters[k]
    row += NR_COUNTERS
    row[0] = g.memory_min
    row[1] = g.memory_low
    row[2] = g.memory_high
    row[3] = g.memory_max
    row[4] = g.swap_high
    row[5] = g.swap_max
    row[6] = g.zswap_max if g.zswap_max >= NO_LIMIT else g.zswap_max << PAGE_SHIFT
    row[7] = g.resident_max
    row[8] = g.writeback
    row[9] = g.memory_peak
    row[10] = g.swap_peak
    for k in range(NR_NODES):
        row[NR_SETTINGS + k] = g.lru[k].length


def snapshot(engine: Engine, memcgs: cython.const[uint32_t][::1]):
    c: cython.pointer(Core) = engine._open()
    n: int64_t = memcgs.shape[0]
    # Memory of numpy's own, which is never an array of ours: no fault while the lock is held.
    found = np.full((n, len(COLUMNS)), -1, np.int64)
    if n == 0:
        return found
    rows: int64_t[:, ::1] = found
    # The caller's may be: it is read before.
    asked = np.array(memcgs)
    wanted: cython.const[uint32_t][::1] = asked
    i: int64_t = 0
    with cython.nogil:
        while i < n:
            core_lock(c)
            end: int64_t = i + HELD_ROWS if n - i > HELD_ROWS else n
            while i < end:
                m: uint32_t = wanted[i]
                if m < c.t.next_memcg and c.t.memcgs[m].state == MEMCG_ONLINE:
                    fill(cython.address(rows[i, 0]), cython.address(c.t.memcgs[m]))
                i += 1
            core_unlock(c)
    return found


def ages(engine: Engine, memcgs: cython.const[uint32_t][::1], bounds: cython.const[int64_t][::1]):
    c: cython.pointer(Core) = engine._open()
    n: int64_t = memcgs.shape[0]
    nr_bounds: cython.int = bounds.shape[0]
    found = np.zeros((2, n, nr_bounds), np.int64)
    if n == 0 or nr_bounds == 0:
        return found
    counts: int64_t[:, :, ::1] = found
    k: cython.int
    now: int64_t = core_now(c)
    youngest_of = np.empty(nr_bounds, np.uint32)
    youngest: uint32_t[::1] = youngest_of
    for k in range(nr_bounds):
        youngest[k] = 0xFFFFFFFF if bounds[k] <= 0 else born_units(now - bounds[k])
    core_lock(c)
    nr_memcgs: uint32_t = c.t.next_memcg
    core_unlock(c)
    row_of = cython.cast(cython.pointer(uint32_t), malloc(nr_memcgs * cython.sizeof(uint32_t)))
    if row_of == cython.NULL:
        raise MemoryError
    memset(row_of, 0xFF, nr_memcgs * cython.sizeof(uint32_t))
    i: int64_t
    for i in range(n):
        if memcgs[i] < nr_memcgs:
            row_of[memcgs[i]] = cython.cast(uint32_t, i)
    index: int64_t = 0
    with cython.nogil:
        while True:
            core_lock(c)
            last: int64_t = cython.cast(int64_t, c.t.next_chunk) * CHUNK_ENTRIES
            if index >= last:
                core_unlock(c)
                break
            if c.t.chunks[index // CHUNK_ENTRIES].live == 0:
                index += CHUNK_ENTRIES
                core_unlock(c)
                continue
            end: int64_t = index + CHUNK_ENTRIES
            while index < end:
                e = cython.address(c.t.entries[index])
                index += 1
                if e.gen == 0 or e.state != IN_POOL or e.flags & (CLEAN | WRITING):
                    continue
                m: uint32_t = owner_of(cython.address(c.t), e)
                if m >= nr_memcgs or row_of[m] == NO_ROW:
                    continue
                k = nr_bounds - 1
                while k > 0 and e.born > youngest[k]:
                    k -= 1
                counts[0, row_of[m], k] += cython.cast(int64_t, e.length_1) + 1
                counts[1, row_of[m], k] += 1
            core_unlock(c)
    free(row_of)
    return found
