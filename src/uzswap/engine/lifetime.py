"""When an engine may be used: not after it was closed, and in a forked child when it came along.

Closing frees memory that a call in another thread may be reading, so it waits for the calls under way.

A child that Python forked has the engine as it was at the fork, and uses it as its own from then on (core.boundary.
forking).  Of its parent's threads only the one that forked is there: what others were at in the engine is over, and
entries that they were storing or freeing just then go, as does what they had charged (engine/paging.py,
reclaim/limits.py, store/slots.py).  Where an engine did not come along, because C code forked or no userfaultfd could
be had, its memory is in any state: the child gets a clear error instead.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

from uzswap.core.boundary.forking import announce
from uzswap.errors import os_error
from uzswap.locks import renew_locks

__all__ = ["ForkedEngine", "ForkedLifetime", "Lifetime", "on_fork"]

Owner = TypeVar("Owner")

_CLOSED: Final = "the engine is closed: make a new one"
_FORKED: Final = "the engine belongs to the parent process: make a new one after the fork"


class Lifetime:
    """A context manager around each call; :meth:`end` keeps new calls out and waits for those under way.

    Calls nest: who is inside may enter again until it has left.
    """

    def __init__(self) -> None:
        #: thread -> how deep it is inside
        self._inside: dict[int, int] = {}
        self._ended = False
        #: free when it is worth while to look whether everybody has left
        self._left = threading.Lock()
        self._left.acquire()

    def __enter__(self) -> Self:
        thread = threading.get_ident()
        depth = self._inside.get(thread, 0)
        if self._ended and not depth:
            raise os_error(errno.EBADF, _CLOSED)
        self._inside[thread] = depth + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = threading.get_ident()
        depth = self._inside[thread] - 1
        if depth:
            self._inside[thread] = depth
            return
        del self._inside[thread]
        if self._ended and self._left.locked():
            self._left.release()

    def forked(self) -> None:
        """In a forked child: nobody is inside but the thread that forked, if it was."""
        me = threading.get_ident()
        self._inside = {thread: depth for thread, depth in self._inside.items() if thread == me}
        self._left = threading.Lock()
        self._left.acquire()

    def require_outside(self) -> None:
        """Raise EBUSY in a thread that is inside: it would wait for itself."""
        if threading.get_ident() in self._inside:
            raise os_error(errno.EBUSY, "the engine cannot be closed from within one of its own calls")

    def end(self) -> None:
        """Keep new calls out, and wait until nobody is inside; for one thread at a time.

        A signal handler may raise out of it: then it is to be called again.
        """
        self._ended = True
        while self._inside:
            self._left.acquire()


class ForkedLifetime(Lifetime):
    """The lifetime of an engine in a forked child with which it did not come: over.  It touches no lock."""

    def __enter__(self) -> NoReturn:
        raise RuntimeError(_FORKED)


class ForkedEngine:
    """Stands where the data plane was, in a forked child."""

    closed = True

    def __init__(self, engine: object) -> None:
        # Kept and not freed: its memory may be in any state, and goes with the process.
        _abandoned.append(engine)

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(_FORKED)


_abandoned: list[object] = []
_owners: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def on_fork(owner: Owner, callback: Callable[[Owner], None]) -> None:
    """Have ``callback(owner)`` called in every child that this process forks while the owner lives.

    In the order in which they were asked for: the engine's comes before those of what is in it, which can tell by
    its lifetime then whether it came along.  All locks have been renewed.
    """
    _owners[owner] = callback


def _after_fork_in_child() -> None:
    announce(False)
    # What finalizers use has to be whole again first.
    collects = gc.isenabled()
    gc.disable()
    try:
        renew_locks()
        for owner, callback in list(_owners.items()):
            callback(owner)
    finally:
        if collects:
            gc.enable()


os.register_at_fork(
    before=lambda: announce(True), after_in_parent=lambda: announce(False), after_in_child=_after_fork_in_child
)
