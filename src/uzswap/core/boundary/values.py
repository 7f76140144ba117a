"""The engine for compiled owners of many small values: one crossing a value or a batch, and no objects between.

Who calls has the GIL.  What may take long gives it up, and is to be called within the engine's lifetime
(engine/lifetime.py); the rest keeps it, so that no engine is closed meanwhile.  A closed engine is EBADF.

Who forks has the GIL from the first step to the last (forking.py): so only what gives it up goes through the gate.
"""

import cython
from cython.cimports.libc.errno import EBADF, ENOMEM
from cython.cimports.libc.stdint import int64_t, uint32_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memset
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.codecs import codec_hold, codec_put
from cython.cimports.uzswap.core.store.entries import C_RESIDENT, MEMCG_ONLINE, NO_MEMCG, ON_DISK, Delta, entry_at
from cython.cimports.uzswap.core.store.memcgs import delta_add, delta_apply
from cython.cimports.uzswap.core.store.reading import Load
from cython.cimports.uzswap.core.store.state import Charge, core_charge
from cython.cimports.uzswap.core.store.swap_cache import swap_cache_add, swap_cache_drop, swap_cache_take
from cython.cimports.uzswap.core.store.swap_in import free_entries, load_from_pool, swap_in
from cython.cimports.uzswap.core.store.swap_out import Store, swap_out

from uzswap.core.boundary.engine import StoreResult


@cython.cclass
class Batch:
    def __cinit__(self):
        self.codec = self.small = -1

    def __len__(self):
        return self.n

    def takes(self, nbytes):
        """Whether one more value fits."""
        return self.n < BATCH_VALUES and (self.n == 0 or self.nbytes + nbytes <= BATCH_BYTES)

    def add(self, data, size):
        """Its memory has to stay until the batch is stored."""
        self.spans[self.n].data = data
        self.spans[self.n].size = size
        self.handles[self.n] = 0
        self.n += 1
        self.nbytes += size

    def empty(self):
        self.n = 0
        self.nbytes = 0

    def refused(self):
        i: cython.int
        count: cython.int = 0
        for i in range(self.n):
            count += self.handles[i] == 0
        return count

    def store(self, engine: Engine, memcg: uint32_t, start: int64_t, flags: cython.int):
        engine._memcg(memcg)
        if not 0 <= start <= self.n:
            raise ValueError(f"start={start} of {self.n}")
        s: Store
        s.spans = self.spans
        s.data = cython.NULL
        s.nbytes = 0
        s.page = 1
        s.memcg = memcg
        s.node = 0
        s.handles = self.handles
        s.start = start
        s.n = self.n
        s.folio = 1
        s.flags = flags | self.flags
        s.filter = self.filter
        s.small_bytes = self.small_bytes
        s.shares = 0
        c = engine.core
        with cython.nogil:
            uz_enter(cython.address(c.gate))
            s.asked = codec_hold(c, self.codec)
            s.small = codec_hold(c, self.small)
            swap_out(c, cython.address(s))
            codec_put(c, s.asked)
            codec_put(c, s.small)
            uz_leave(cython.address(c.gate))
        return StoreResult(s.next, s.reason, s.error)

    def free(self, engine: Engine):
        """Give up what was stored of it."""
        i: cython.int
        for i in range(self.n):
            if self.handles[i]:
                free_handles(engine, cython.address(self.handles[i]), 1)
                self.handles[i] = 0


def charge(engine, memcg, nbytes):
    """Charge resident memory if that meets no limit.  False: nothing was charged, and policy is to be asked."""
    if engine.core == cython.NULL:
        return 0
    met: Charge
    if core_charge(engine.core, memcg, nbytes, 0, cython.address(met)) or met.over_max != NO_MEMCG:
        return 0
    if met.over_high != NO_MEMCG:
        uncharge(engine, memcg, nbytes)
        return 0
    return 1


def uncharge(engine, memcg, nbytes):
    """Take back a charge of an online memcg.  False: the engine is closed."""
    c = engine.core
    if c == cython.NULL:
        return 0
    d: Delta
    memset(cython.address(d), 0, cython.sizeof(Delta))
    pthread_mutex_lock(cython.address(c.lock))
    if c.t.memcgs[memcg].state == MEMCG_ONLINE:
        delta_add(cython.address(c.t), cython.address(d), memcg, C_RESIDENT, -nbytes)
        delta_apply(cython.address(c.t), cython.address(d))
    pthread_mutex_unlock(cython.address(c.lock))
    return 1


def size_at(engine, handle):
    """Bytes of an entry whose owner keeps it: they never change, so no lock is needed.  0 without an entry."""
    if engine.core == cython.NULL:
        return 0
    e = entry_at(cython.address(engine.core.t), handle)
    return 0 if e == cython.NULL else cython.cast(uint32_t, e.size_1) + 1


def place_of(engine, handle):
    """Where an entry's bytes are on the device, for who wants them in that order; 0 when they are elsewhere."""
    if engine.core == cython.NULL:
        return 0
    # Without the lock: it may be on its way there.
    e = entry_at(cython.address(engine.core.t), handle)
    return e.data if e != cython.NULL and e.state == ON_DISK else 0


def load_value(engine, handle, out, size):
    """Load and consume one entry if it is in the pool, without giving up the GIL: 0, ELSEWHERE or an errno."""
    return EBADF if engine.core == cython.NULL else load_from_pool(engine.core, handle, out, size, 1)


def load_spans(engine, handles, n, spans, disk_ns):
    """Load n entries and keep them, giving up the GIL.  0 or an errno."""
    if engine.core == cython.NULL:
        return EBADF
    load = cython.cast(cython.pointer(Load), malloc(cython.sizeof(Load)))
    if load == cython.NULL:
        return ENOMEM
    load.handles = handles
    load.n = n
    load.spans = spans
    load.out = cython.NULL
    load.nbytes = load.page = 0
    load.consume = 0
    c = engine.core
    with cython.nogil:
        uz_enter(cython.address(c.gate))
        swap_in(c, load)
        uz_leave(cython.address(c.gate))
    error = load.error
    disk_ns[0] = load.disk_ns
    free(load)
    return error


def swap_cache_keeps(engine, handles, n):
    """Whether the entries of a value that was loaded, and will not change, may stay on the device: all, or none.

    Like the two below it keeps the GIL.
    """
    return engine.core != cython.NULL and swap_cache_add(engine.core, handles, n)


def swap_cache_gives(engine, handles, n):
    """Whether they are all there still, and ordinary entries again; else none is left."""
    return engine.core != cython.NULL and swap_cache_take(engine.core, handles, n)


def swap_cache_forgets(engine, handles, n):
    """Free those that are there still."""
    if engine.core != cython.NULL:
        swap_cache_drop(engine.core, handles, n)


def free_handles(engine, handles, n):
    """Drop entries without giving up the GIL: a few, or others wait.  0 or an errno."""
    if engine.core == cython.NULL:
        return EBADF
    error: cython.int = 0
    free_entries(engine.core, handles, n, cython.address(error))
    return error
