"""Paged memory, open from its making to close(), and the lock that everything here takes: see memory.pyi."""

import weakref

import cython
from cython.cimports.libc.errno import EBUSY, EIO
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.posix.unistd import getpid
from cython.cimports.uzswap.core.boundary.engine import Engine
from cython.cimports.uzswap.core.boundary.forking import kin_pager
from cython.cimports.uzswap.core.gate import uz_enter, uz_leave
from cython.cimports.uzswap.core.libc_ext import (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from cython.cimports.uzswap.core.paging.areas import space_open
from cython.cimports.uzswap.core.paging.handlers import handler_open, is_blocked
from cython.cimports.uzswap.core.paging.keeper import pager_close, pager_start, pager_stop
from cython.cimports.uzswap.core.paging.pagetable import Pager, table_close, table_open, work_get, work_put
from cython.cimports.uzswap.core.paging.signal_faults import fault_here
from cython.cimports.uzswap.core.paging.syscalls import serve_call
from cython.cimports.uzswap.core.paging.uffd import (
    pthread_cond_broadcast,
    pthread_cond_destroy,
    pthread_cond_init,
    pthread_cond_wait,
)


def pager_lock(p):
    """The lock, and the gate: what is read and written between the two is never seen half done by a forked child."""
    uz_enter(cython.address(p.gate))
    pthread_mutex_lock(cython.address(p.lock))


def pager_unlock(p):
    pthread_mutex_unlock(cython.address(p.lock))
    uz_leave(cython.address(p.gate))


def work_done(p, w):
    pthread_mutex_lock(cython.address(p.lock))
    work_put(p, w)
    pthread_mutex_unlock(cython.address(p.lock))


@cython.cclass
class Paged:
    def __cinit__(
        self,
        engine: Engine,
        user_mode_only: cython.bint = False,
        old_kernel: cython.bint = False,
        by_signal: cython.bint = False,
    ):
        self.pager = cython.NULL
        pthread_mutex_init(cython.address(self.gate), cython.NULL)
        pthread_cond_init(cython.address(self.passed), cython.NULL)
        self.engine = engine
        core = engine._open()
        if engine.memory is not None and engine.memory() is not None:
            raise ValueError("the engine has paged memory already")
        p = cython.cast(cython.pointer(Pager), calloc(1, cython.sizeof(Pager)))
        if p == cython.NULL:
            raise MemoryError
        p.c = core
        with cython.nogil:
            error = -EBUSY if by_signal and is_blocked() else 0
            if not error:
                error = table_open(p, user_mode_only, old_kernel, by_signal, serve_call)
            if not error and by_signal:
                error = handler_open(fault_here)
            if not error:
                error = space_open(p)
            if not error:
                error = pager_start(p)
            if error:
                table_close(p)
                free(p)
        if error:
            raise OSError(-error, "userfaultfd")
        with cython.nogil:
            kin_pager(core, p)
        self.pager = p
        engine.memory = weakref.ref(self)

    def __dealloc__(self):
        self.close()
        pthread_mutex_destroy(cython.address(self.gate))
        pthread_cond_destroy(cython.address(self.passed))

    def forked(self):
        """In a forked child: whether the memory came along.  Calls that were under way there are not here."""
        pthread_mutex_init(cython.address(self.gate), cython.NULL)
        pthread_cond_init(cython.address(self.passed), cython.NULL)
        self.users = self.closing = 0
        if self.pager != cython.NULL and self.pager.pid != getpid():
            self.pager = cython.NULL
            self.engine.memory = None
        return self.pager != cython.NULL

    def close(self):
        """Unmap everything.  No array may be alive, and the engine must still be open.

        Calls of other threads that are under way end first; those that come later are refused.
        """
        with cython.nogil:
            pthread_mutex_lock(cython.address(self.gate))
            p = self.pager
            self.pager = cython.NULL
            if p == cython.NULL:
                # Another thread may be at it.
                while self.closing:
                    pthread_cond_wait(cython.address(self.passed), cython.address(self.gate))
            self.closing = p != cython.NULL
            pthread_mutex_unlock(cython.address(self.gate))
        if p == cython.NULL:
            return
        self.engine.memory = None
        broken: cython.bint = p.broken
        if broken:
            # Threads may hang in there for good: nothing of it can be freed.
            p.c.abandoned = 1
        with cython.nogil:
            kin_pager(p.c, cython.NULL)
            if not broken:
                pager_close(p)
            pthread_mutex_lock(cython.address(self.gate))
            while self.users and not broken:
                pthread_cond_wait(cython.address(self.passed), cython.address(self.gate))
            pthread_mutex_unlock(cython.address(self.gate))
            if not broken:
                pager_stop(p)
                table_close(p)
                free(p)
            pthread_mutex_lock(cython.address(self.gate))
            self.closing = 0
            pthread_cond_broadcast(cython.address(self.passed))
            pthread_mutex_unlock(cython.address(self.gate))

    def _enter(self):
        """The pager, which stays until _leave(), or an exception.

        Memory.gate is held for a moment, and nothing is waited for with it: so it may be taken with the GIL.
        """
        pthread_mutex_lock(cython.address(self.gate))
        p = self.pager
        broken: cython.bint = p != cython.NULL and p.broken
        if p != cython.NULL and not broken:
            self.users += 1
        pthread_mutex_unlock(cython.address(self.gate))
        if p == cython.NULL:
            raise ValueError("the engine is closed")
        if broken:
            raise OSError(EIO, "a thread that serves page faults was killed")
        return p

    def _leave(self):
        pthread_mutex_lock(cython.address(self.gate))
        self.users -= 1
        if not self.users:
            pthread_cond_broadcast(cython.address(self.passed))
        pthread_mutex_unlock(cython.address(self.gate))

    def _work(self, p: cython.pointer(Pager)):
        with cython.nogil:
            pager_lock(p)
            w = work_get(p)
            pager_unlock(p)
        if w == cython.NULL:
            raise MemoryError
        return w
