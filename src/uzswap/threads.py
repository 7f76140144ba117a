"""Threads of our own: how each of them is started, and what happens when there can be none.

The number of threads is limited (RLIMIT_NPROC, pids.max of a cgroup), a stack takes address space, and so does what the
interpreter has for each thread.  A program that uses these up can be refused a thread at any time, and have one again a
moment later.

This module is compiled (setup.py, ``UNTORN``): what is called in a new thread before it has any memory needs no frame.
"""

from __future__ import annotations

import _thread
import errno
import threading
from collections.abc import Callable
from typing import ParamSpec

from uzswap.errors import os_error
from uzswap.signals import block_all_signals

__all__ = ["start_thread"]

P = ParamSpec("P")


def start_thread(name: str, target: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> threading.Thread:
    """Run a function in a background thread, which leaves all signals to the program's own; return the thread.

    Raises
    ------
    OSError
        EAGAIN: no thread can be had now.  Nothing was begun.
    """
    thread = _Thread(target=target, name=name, args=args, kwargs=kwargs, daemon=True)
    beginning = thread.beginning
    failed: BaseException | None = None
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:  # pthread_create failed; the interpreter is ending
        failed = error
    except BaseException:  # of a signal handler
        beginning.settle(False)
        raise
    if beginning.settle(False):
        return thread
    failed = failed or beginning.error
    # It is no thread that threading.enumerate() should tell of.
    getattr(threading, "_limbo", {}).pop(thread, None)
    why = str(failed) or "no memory"
    text = f"no thread can be had for {name} ({why}): raise ulimit -u, -v or pids.max, or end some threads"
    raise os_error(errno.EAGAIN, text) from failed


class _Beginning:
    """Whether a thread has begun, or never will, said once: by the thread, or by who gave it up.

    :class:`threading.Thread` has an Event for the former alone, and start() waits for it.  But a new thread may find no
    memory for its first frame (16 KiB, mapped), and the interpreter then reports MemoryError and ends it.  So this
    stands in the Event's place.  Nothing in it needs memory.
    """

    def __init__(self) -> None:
        self._settled = _thread.allocate_lock()
        self._settled.acquire()
        #: None: nobody has said yet
        self._begun: bool | None = None
        self._set = False
        #: why it has not begun
        self.error: BaseException | None = None

    def settle(self, begun: bool, error: BaseException | None = None) -> bool:
        """Return whether it has begun, which is `begun` for who comes first."""
        if self._begun is None:
            self._begun = begun
            self.error = error
            self._settled.release()
        return self._begun

    # As threading.Thread uses its Event.

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self) -> None:
        self._settled.acquire()
        self._settled.release()

    def _at_fork_reinit(self) -> None:
        """In a forked child: who was waiting, and for whom, is not there."""
        self._settled._at_fork_reinit()  # type: ignore[attr-defined]


class _Thread(threading.Thread):
    """A thread that says when it cannot begin."""

    def __init__(
        self,
        *,
        target: Callable[..., object],
        name: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        daemon: bool,
    ) -> None:
        super().__init__(target=target, name=name, args=args, kwargs=kwargs, daemon=daemon)
        self.beginning = self._started = _Beginning()

    def _bootstrap(self) -> None:
        """What start() has a new thread call."""
        beginning = self.beginning
        try:
            super()._bootstrap()  # type: ignore[misc]
        except BaseException as error:
            if beginning.settle(False, error):
                raise
        finally:
            beginning.settle(False)

    def run(self) -> None:
        try:
            block_all_signals()
        except BaseException as error:  # told by who starts it
            self.beginning.settle(False, error)
            return
        if self.beginning.settle(True):
            super().run()
