"""Condition variables and locks that an exception of a signal handler leaves whole.

``with threading.Condition():`` runs Python code on entry and exit.  A handler that raises there leaves the lock held
for ever, or has one released that is not held.  This module is compiled: no handler runs between its steps (setup.py,
``UNTORN``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from uzswap.core.boundary.ordered import LockOrderError

__all__ = ["Condition", "Regardless"]


class Lockable(Protocol):
    def acquire(self) -> bool: ...
    def release(self) -> None: ...


class Regardless:
    """Holds a lock for the length of a block that has to be done: to undo something, say.

    While a lock is waited for handlers run, and one may raise: the wait goes on, and what the last one raised is raised
    when the block is over.
    """

    __slots__ = ("_lock", "_raised")

    def __init__(self, lock: Lockable) -> None:
        self._lock = lock
        self._raised: BaseException | None = None

    def __enter__(self) -> None:
        while True:
            try:
                self._lock.acquire()
                return
            except LockOrderError:
                raise
            except BaseException as error:
                self._raised = error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        if self._raised is not None:
            raise self._raised


class Condition:
    """The part of :class:`threading.Condition` that is used here; the lock is reentrant.

    Reentrant because a signal handler, or a finalizer that garbage collection runs, may use what the lock guards in the
    very thread that holds it.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._waiters: list[threading.Lock] = []

    def __enter__(self) -> bool:
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def acquire(self) -> bool:
        return self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Give the lock up until :meth:`notify_all` or for ``timeout`` seconds; return whether it was the former."""
        lock = self._lock
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        state = lock._release_save()  # type: ignore[attr-defined]
        try:
            # Handlers run in here, and may raise.
            return waiter.acquire(True, -1 if timeout is None else max(timeout, 0))
        finally:
            try:
                lock._acquire_restore(state)  # type: ignore[attr-defined]
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until the predicate, which is asked with the lock, is true; return what it said last."""
        end = None if timeout is None else time.monotonic() + timeout
        while not (done := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return done

    def notify_all(self) -> None:
        """Wake everybody who waits; called with the lock."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    def forget_waiters(self) -> None:
        """In a forked child: nobody of those who wait is here."""
        self._waiters = []
