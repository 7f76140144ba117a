"""Waiting for news of many control files with one thread: what a mount and a socket need to serve polls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from uzswap.locks import Order, make_lock
from uzswap.threads import start_thread

if TYPE_CHECKING:
    from uzswap.cgroup.tree import CgroupTree
    from uzswap.files.file import ControlFile

__all__ = ["Watch"]

Answer = Callable[[bool], object]


class Watch:
    """Answers those who wait when their file has news.  Its thread lives while anybody waits.

    Every answer that is given to :meth:`add` is called exactly once: with True when the file has something to tell
    (which is not taken from it), with False when nobody waits for it any more.

    Threads: any.  Answers come from the watch's own thread or from the caller's, never with a lock held.
    """

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._lock = make_lock(Order.WATCH)
        self._waiting: dict[Hashable, tuple[ControlFile[Any], Answer]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, key: Hashable, file: ControlFile[Any], answer: Answer) -> None:
        """Wait for news of a file under a key; whoever waited under that key is told False.

        Raises
        ------
        OSError
            EAGAIN: no thread can be had to wait with.  ``answer`` was told False.
        """
        refused: OSError | None = None
        with self._lock:
            replaced = self._waiting.pop(key, None)
            waits = not self._closed
            if waits and self._thread is None:
                try:
                    self._thread = start_thread("uzswap-watch", self._run)
                except OSError as error:
                    refused, waits = error, False
            if waits:
                self._waiting[key] = file, answer
        if replaced is not None:
            replaced[1](False)
        if not waits:
            answer(False)
        if refused is not None:
            raise refused
        # What happened before it was added has moved the count already: have the thread look at it.
        self._tree.wake()

    def drop(self, key: Hashable) -> None:
        """Wait no more under a key, if anybody does."""
        with self._lock:
            dropped = self._waiting.pop(key, None)
        if dropped is not None:
            dropped[1](False)

    def close(self) -> None:
        """Tell everybody False, and end the thread.  Calling it again does nothing."""
        with self._lock:
            self._closed = True
            thread = self._thread
            dropped = list(self._waiting.values())
            self._waiting.clear()
        self._tree.wake()
        if thread is not None:
            thread.join()
        for _, answer in dropped:
            answer(False)

    def _run(self) -> None:
        changed = self._tree.changed
        seen = -1
        while True:
            with changed:
                while self._tree.changes == seen and not self._closed:
                    changed.wait()
                seen = self._tree.changes
            with self._lock:
                if self._closed or not self._waiting:
                    self._thread = None
                    return
                told = [key for key, (file, _) in self._waiting.items() if file.ready()]
                answers = [self._waiting.pop(key)[1] for key in told]
            for answer in answers:
                answer(True)
