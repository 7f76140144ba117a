"""Writes that end in time: a system call of any thread, interrupted by a signal to that thread.

A write to ``memory.reclaim`` may take long, and what ends it is a signal.  A process of its own for each write, which
is what :class:`~uzswap.client.directory.DirectoryRoot` does by itself, costs tens of milliseconds; a program that makes
many of them has one :class:`Deadlines` instead.  It takes a signal number for itself, so it is for programs that are
our own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Final, Self

from uzswap.errors import os_error
from uzswap.threads import start_thread

__all__ = ["Deadlines"]

#: Ignored by default, sent by nobody but sockets that asked for it: one that is late, or met by another thread, does
#: nothing.
SIGNAL: Final = signal.SIGURG
#: seconds from one signal to the next: the first may come before the thread is in the system call
_AGAIN: Final = 0.05

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.write.restype = ctypes.c_ssize_t
_libc.write.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle the signal: that there is a handler is what interrupts the system call."""


class Deadlines:
    """Watches writes, and interrupts those that take too long.  A context manager, entered by the main thread.

    Threads may share it; each that has written by it listens to its signal from then on.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: thread -> when its write is to be interrupted, monotonic seconds
        self._until: dict[int, float] = {}
        #: when the watch looks next; it is woken for what is earlier only
        self._looks = math.inf
        self._closed = False
        self._threads = threading.local()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        # Python's handlers are installed without SA_RESTART.
        self._before = signal.signal(SIGNAL, _nothing)
        self._thread = start_thread("uzswap-deadlines", self._watch)
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        signal.signal(SIGNAL, self._before)

    def write(self, fd: int, data: bytes, within: float) -> bool:
        """Write, as one write; returns whether all was taken.

        Raises
        ------
        OSError
            What the file says; EINTR it took longer than ``within`` seconds.
        """
        # Not os.write(), which makes the call again (PEP 475).  ctypes lets go of the GIL.
        with self._watched(within):
            taken = _libc.write(fd, data, len(data))
            number = ctypes.get_errno()
        if taken < 0:
            if number == errno.EINTR:
                raise os_error(errno.EINTR, f"interrupted: it took longer than {within:g} s")
            raise OSError(number, os.strerror(number))
        return bool(taken == len(data))

    @contextlib.contextmanager
    def _watched(self, within: float) -> Iterator[None]:
        me = threading.get_ident()
        if not hasattr(self._threads, "listens"):
            # Threads of ours leave signals to the main thread; this one is meant for them.  Once for each: to tell
            # what the mask was before takes longer than a write (Python makes a set of it).
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
            self._threads.listens = True
        with self._changed:
            self._until[me] = until = time.monotonic() + within
            if until < self._looks:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._until[me]

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for thread, until in self._until.items():
                    if until <= now:
                        # It is in _watched() as long as it is in the dict, so it lives.
                        signal.pthread_kill(thread, SIGNAL)
                        self._until[thread] = now + _AGAIN
                self._looks = min(self._until.values(), default=math.inf)
                self._changed.wait(None if self._looks == math.inf else max(0.0, self._looks - time.monotonic()))
