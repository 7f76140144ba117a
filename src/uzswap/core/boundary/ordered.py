"""A lock that knows its place in the order of all locks, and refuses to be taken out of it: see ordered.pyi.

Compiled, since an exception of a signal handler may come after any bytecode: a lock in Python could be left taken by
it, which those of :mod:`threading` cannot.
"""

import os
import sys
import threading

import cython

# Frames of a stack that are noted.
MOST_FRAMES = cython.declare(cython.int, 16)

held: dict = {}  # thread -> its locks, in the order in which it took them, each with the stack of that moment


class LockOrderError(AssertionError):
    pass


def _stack():
    frames = []
    frame = sys._getframe()
    while frame is not None and len(frames) < MOST_FRAMES:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return frames


def _told(stack):
    return "".join(f"\n    {code.co_filename}:{line} in {code.co_qualname}" for code, line in stack)


@cython.cclass
class OrderedLock:
    def __cinit__(self, rank: cython.int, name: str, reentrant: cython.bint = False):
        self.rank = rank
        self.name = name
        self.reentrant = reentrant
        self.owner = 0
        self.depth = 0
        self.lock = threading.Lock()

    def __repr__(self):
        return f"<OrderedLock {self.name} (rank {self.rank})>"

    def acquire(self, blocking: cython.bint = True, timeout: float = -1):
        """As threading.Lock and RLock; a lock that is only tried may be taken in any order, since nobody waits."""
        me = threading.get_ident()
        if self.owner == me:
            if self.reentrant:
                self.depth += 1
                return True
            if blocking:
                raise LockOrderError(f"{self!r} is taken by a thread that has it: it would wait for itself")
            return False
        if blocking:
            for other, stack in held.get(me, ()):
                if cython.cast(OrderedLock, other).rank >= self.rank:
                    raise LockOrderError(
                        f"{self!r} is taken under {other!r}, which comes after it (docs/locking.md)\n"
                        f"  {other.name} was taken at{_told(stack)}\n  {self.name} is taken at{_told(_stack())}"
                    )
        # Made first: whatever is made may set off garbage collection, and a finalizer takes locks in this very thread.
        entry = (self, _stack())
        fresh: list = []
        if not self.lock.acquire(blocking, timeout):
            return False
        self.owner = me
        self.depth = 1
        held.setdefault(me, fresh).append(entry)
        return True

    def release(self):
        me = threading.get_ident()
        if self.owner != me:
            raise RuntimeError(f"{self!r} is released by a thread that does not have it")
        self.depth -= 1
        if self.depth:
            return
        mine: list = held[me]
        i: cython.Py_ssize_t
        for i in range(len(mine) - 1, -1, -1):
            if mine[i][0] is self:
                del mine[i]
                break
        if not mine:
            del held[me]
        self.owner = 0
        self.lock.release()

    def locked(self):
        return self.lock.locked()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *exception):
        self.release()

    def _at_fork_reinit(self):
        """As of threading's: in a child, where the owner may not be."""
        self.lock = threading.Lock()
        self.owner = 0
        self.depth = 0

    # What threading.Condition asks of its lock

    def _is_owned(self):
        return self.owner == threading.get_ident()

    def _release_save(self):
        depth = self.depth
        self.depth = 1
        self.release()
        return depth

    def _acquire_restore(self, depth):
        """Handlers run meanwhile, and may raise; the lock is taken all the same, as RLock takes it."""
        raised = None
        while True:
            try:
                self.acquire()
                break
            except LockOrderError:
                raise
            except BaseException as error:
                raised = error
        self.depth = depth
        if raised is not None:
            raise raised


def _forked():
    """Of the threads only this one is left, and the names of others may be those of new ones."""
    me = threading.get_ident()
    for thread in list(held):
        if thread != me:
            del held[thread]


os.register_at_fork(after_in_child=_forked)
