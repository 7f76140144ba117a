"""Background work: what is woken, and runs until there is nothing to do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from uzswap.locks import Order, make_condition
from uzswap.threads import start_thread

__all__ = ["Worker"]

_log = logging.getLogger(__name__)


class Worker:
    """One job, run by a thread that lives only while there is work (the kernel's work queue).

    Waking it while it runs makes the job run once more.  So at most one thread is in the job at any time, and an engine
    that nobody closed does not keep a thread.

    When no thread can be had the work stays asked for: every later :meth:`wake` tries again, and :meth:`flush` does it
    in its caller's thread.  Until then what it was to bring down stays up, which hurts nobody: hard limits are enforced
    by whoever meets them.

    Parameters
    ----------
    name
        Of the thread.
    job
        Called without arguments.  What it raises is reported by ``threading.excepthook``, and the worker stays usable.
    order
        Of its lock.
    """

    def __init__(self, name: str, job: Callable[[], None], order: Order = Order.WORKER) -> None:
        self._name = name
        self._job = job
        self._changed = make_condition(order)
        self._woken = False
        self._running = False
        self._closed = False
        #: the one that was started last
        self._thread: threading.Thread | None = None
        self._told = False

    def wake(self) -> None:
        """Have the job run soon.  Returns at once; after :meth:`close` it does nothing."""
        with self._changed:
            if self._closed:
                return
            comes = self._woken and self._thread is not None and self._thread.is_alive()
            self._woken = True
            if not self._running and not comes:
                self._start()

    def flush(self) -> None:
        """Wait until it is idle, and nothing is left to do."""
        with self._changed:
            while self._woken or self._running:
                if not self._running and not self._start():
                    break
                self._changed.wait()
            else:
                return
        self._run()

    def forked(self) -> None:
        """In a forked child: the thread is not here, so what it was at is to be done again, when it is next woken."""
        self._woken = self._woken or self._running
        self._running = False
        self._thread = None

    def close(self) -> None:
        """Drop what is not begun and wait for the rest; the job should end early by itself."""
        with self._changed:
            self._closed = True
            self._woken = False
            self._changed.wait_for(lambda: not self._running)
            thread = self._thread
        if thread is not None:
            thread.join()

    def _start(self) -> bool:
        """Start a thread; called with the lock held.  One too many finds nothing to do.  False when there can be none.

        Who runs is said by the threads themselves, so nothing is torn when starting one is interrupted.
        """
        try:
            self._thread = start_thread(self._name, self._run)
        except OSError as error:
            if not self._told:
                self._told = True
                _log.warning("%s; the work waits until it is asked for again", error.strerror)
            return False
        self._told = False
        return True

    def _run(self) -> None:
        with self._changed:
            if self._running:
                return
            self._running = True
        try:
            while self._take():
                self._job()
        except BaseException:
            with self._changed:
                self._stop()
            raise

    def _take(self) -> bool:
        with self._changed:
            if not self._woken:
                # In the same breath as the last look: whoever wakes us from now on starts another thread.
                self._stop()
                return False
            self._woken = False
            return True

    def _stop(self) -> None:
        self._running = self._woken = False
        self._changed.notify_all()
