"""An engine's state, open from its making to close(), and the lock that everything here takes: see engine.pyi."""

import cython
from cython.cimports.libc.stdint import int64_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memcpy
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.boundary.forking import kin_add, kin_drop
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import pthread_mutex_lock, pthread_mutex_unlock
from cython.cimports.uzswap.core.store.check import check_core
from cython.cimports.uzswap.core.store.entries import MEMCG_ONLINE, NR_NODES
from cython.cimports.uzswap.core.store.state import Core, core_destroy, core_init, core_now


def private_copy(values: cython.pointer(cython.const[uint64_t]), n: cython.size_t) -> cython.pointer(uint64_t):
    """A copy that is read and written under the lock: the caller's array may be paged memory, whose faults need it."""
    copy = cython.cast(cython.pointer(uint64_t), malloc(n * cython.sizeof(uint64_t)))
    if copy != cython.NULL:
        memcpy(copy, values, n * cython.sizeof(uint64_t))
    return copy


def core_lock(c):
    """The lock, and the gate: what is read and written between the two is never seen half done by a forked child."""
    uz_enter(cython.address(c.gate))
    pthread_mutex_lock(cython.address(c.lock))


def core_unlock(c):
    pthread_mutex_unlock(cython.address(c.lock))
    uz_leave(cython.address(c.gate))


@cython.cclass
class Opened:
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
        # With the GIL, here and in what else looks at a number or two: nobody waits for it with the lock.
        pthread_mutex_lock(cython.address(c.lock))
        online: cython.bint = memcg < c.t.next_memcg and c.t.memcgs[memcg].state == MEMCG_ONLINE
        pthread_mutex_unlock(cython.address(c.lock))
        if not online:
            raise ValueError(f"memcg {memcg} is not online")
        return cython.address(c.t.memcgs[memcg])

    # Time and order

    def now(self):
        return core_now(self._open())

    def advance(self, ns: int64_t):
        self._open().skew += ns

    def stamp(self):
        c = self._open()
        pthread_mutex_lock(cython.address(c.lock))
        stamp: uint64_t = c.t.last_stamp
        pthread_mutex_unlock(cython.address(c.lock))
        return stamp

    def _node(self, node):
        if not 0 <= node < self.core.nodes:
            raise ValueError(f"node {node}: this engine has nodes 0 to {self.core.nodes - 1}")
        return node

    def check(self):
        return check_core(self._open())
