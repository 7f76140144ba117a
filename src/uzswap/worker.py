"""Background work: what is woken, and runs until there is nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from uzswap.condition import Condition
from uzswap.signals import block_all_signals

__all__ = ["Worker"]


class Worker:
    """One job, run by a thread that lives only while there is work (the kernel's work queue).

    Waking it while it runs makes the job run once more.  So at most one thread is in the job at any time, and an engine
    that nobody closed does not keep a thread.

    Parameters
    ----------
    name
        Of the thread.
    job
        Called without arguments.  What it raises is reported by ``threading.excepthook``, and the worker stays usable.
    """

    def __init__(self, name: str, job: Callable[[], None]) -> None:
        self._name = name
        self._job = job
        self._changed = Condition()
        self._woken = False
        self._running = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have the job run soon.  Returns at once; after :meth:`close` it does nothing."""
        with self._changed:
            if self._closed or self._woken:
                return
            self._woken = True
            if not self._running:
                self._running = True
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Wait until it is idle."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running)

    def close(self) -> None:
        """Drop what is not begun and wait for the rest; the job should end early by itself."""
        with self._changed:
            self._closed = True
            self._woken = False
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        block_all_signals()
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
