"""Where each page is, and which memory of the process is the engine's own: see places.pyi."""

import cython
import numpy as np
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.uzswap.core.boundary.areas import AT_DISK, AT_LOST, AT_NONE, AT_RESIDENT, AT_ZSWAP, place_of
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.boundary.memory import Memory
from cython.cimports.uzswap.core.boundary.paged import pager_lock, pager_unlock
from cython.cimports.uzswap.core.device.read_around import NR_WINDOWS, WINDOW_BYTES
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.paging.areas import leaf_end
from cython.cimports.uzswap.core.paging.pagetable import (
    BATCH_PAGES,
    HOLD_PAGES,
    LEAF_PAGES,
    NR_BATCHES,
    PAGE_BYTES,
    Area,
    Page,
    Pager,
)
from cython.cimports.uzswap.core.store.pool import EXTENT_BYTES
from cython.cimports.uzswap.core.store.state import Core

NONE, RESIDENT, ZSWAP, DISK, LOST = AT_NONE, AT_RESIDENT, AT_ZSWAP, AT_DISK, AT_LOST


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def look(p: cython.pointer(Pager), a: uint32_t, first: uint64_t, n: uint64_t, out: cython.pointer(uint8_t)) -> uint64_t:
    """Write down where an area's pages are, those from number `first` on, as many as one hold of the locks is for.

    Where to go on; `n` is the end of `out`.  Another thread may free the area meanwhile, and make another one of it.
    """
    i: uint64_t
    pager_lock(p)
    pthread_mutex_lock(cython.address(p.c.lock))
    area = cython.address(p.areas[a])
    end: uint64_t = n
    last: uint64_t = area.pages if area.pages < n else n
    if area.used and last > first:
        end = first + HOLD_PAGES if last - first > HOLD_PAGES else last
        beyond: uint64_t = leaf_end(p, area.first + first) - area.first
        if beyond > first:
            end = beyond if beyond < last else last
        else:
            for i in range(first, end):
                out[i] = place_of(p, area.first + i)
    pthread_mutex_unlock(cython.address(p.c.lock))
    pager_unlock(p)
    return end


def pages(memory: Memory, area: uint32_t):
    p: cython.pointer(Pager) = memory._enter()
    a: Area
    at: uint64_t = 0
    try:
        memory._area(p, area, cython.address(a))
        n: uint64_t = a.pages
        # numpy could make an array of ours, on which a fault would wait for the locks.  0 is AT_NONE.
        found = bytearray(n)
        out: uint8_t[::1] = found
        with cython.nogil:
            while at < n:
                at = look(p, area, at, n, cython.address(out[0]))
        return np.frombuffer(found, np.uint8)
    finally:
        memory._leave()


def areas(memory: Memory):
    p: cython.pointer(Pager) = memory._enter()
    a: Area
    number: uint32_t = 0
    found = []
    try:
        while True:
            number += 1
            used = memory._look(p, number, cython.address(a))
            if used < 0:
                break
            if used:
                found.append((number, a.memcg, a.pages))
    finally:
        memory._leave()
    return found


def mappings(engine: Engine, memory: Memory = None):
    c: cython.pointer(Core) = engine._open()
    found = [
        ("pool", cython.cast(cython.size_t, c.pool.mapping), c.pool.mapping_bytes + EXTENT_BYTES),
        ("tables", cython.cast(cython.size_t, c.t.entries), c.t.mapping_bytes),
        ("tables", cython.cast(cython.size_t, c.t.memcgs), c.t.memcgs_bytes),
    ]
    if c.t.sums != cython.NULL:
        found.append(("tables", cython.cast(cython.size_t, c.t.sums), c.t.sums_bytes))
    pthread_mutex_lock(cython.address(c.lock))
    around = cython.cast(cython.size_t, c.around.memory)
    pthread_mutex_unlock(cython.address(c.lock))
    if around:
        found.append(("read_around", around, NR_WINDOWS * WINDOW_BYTES))
    if memory is None:
        return found
    p: cython.pointer(Pager) = memory._enter()
    try:
        found += [
            ("arrays", cython.cast(cython.size_t, p.base), p.nr_pages * PAGE_BYTES),
            ("tables", cython.cast(cython.size_t, p.pages), p.nr_pages * cython.sizeof(Page)),
            (
                "tables",
                cython.cast(cython.size_t, p.untouched),
                (p.nr_pages // LEAF_PAGES + 1) * cython.sizeof(uint32_t),
            ),
            (
                "tables",
                cython.cast(cython.size_t, p.came_back_for),
                (p.nr_pages // LEAF_PAGES + 1) * cython.sizeof(cython.int),
            ),
            ("tables", cython.cast(cython.size_t, p.areas), p.max_areas * cython.sizeof(Area)),
            ("tables", cython.cast(cython.size_t, p.memcgs), p.memcgs_bytes),
            ("frames", cython.cast(cython.size_t, p.staging), NR_BATCHES * BATCH_PAGES * PAGE_BYTES),
        ]
    finally:
        memory._leave()
    return found
