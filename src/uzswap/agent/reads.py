"""What is read of a root, by a thread that may be left alone: a read that hangs holds up nobody.

A read cannot be interrupted where it is served by somebody else: a mount or a socket of an engine that is stopped, a
file system whose server is gone.  So all reads of a round are made by one thread, to which one message goes and from
which one comes: with hundreds of cgroups more would be dear.  Where it makes no progress within the deadline it is left
alone with the read that it is at, and another one goes on with the rest.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from uzswap.client.root import Root
from uzswap.errors import os_error
from uzswap.threads import start_thread

__all__ = ["InlineReads", "Reads", "ThreadedReads"]

T = TypeVar("T")

#: threads that are left alone; with so many it is the root that hangs, and nothing is begun there
_LEFT_ALONE: Final = 2
#: seconds until another one tries all the same, doubled each time: another file system may have been mounted there
_AGAIN: Final = 60.0


class Reads(Protocol):
    """Carries reads out."""

    def all(self, jobs: Sequence[Callable[[Root], T]]) -> list[T | OSError]:
        """Do each of some jobs with a root, in order; return what they returned, or the error.

        ETIMEDOUT is a job that did not come back, or was not begun since the root hangs.
        """
        ...

    def close(self) -> None: ...


class InlineReads:
    """In the caller's thread: for a replay, whose files are always there."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def all(self, jobs: Sequence[Callable[[Root], T]]) -> list[T | OSError]:
        found: list[T | OSError] = []
        for job in jobs:
            try:
                found.append(job(self._root))
            except OSError as error:
                found.append(error)
        return found

    def close(self) -> None:
        """Do nothing: the root is its owner's."""


class _Reader:
    """A thread, and what it is to do."""

    def __init__(self, again: Callable[[], Root]) -> None:
        self._again = again
        self._changed = threading.Condition()
        self._jobs: Sequence[Callable[[Root], object]] = ()
        self._results: list[object] = []
        self._over = False
        self.thread = start_thread("uzswap-reads", self._run)

    def _run(self) -> None:
        with self._again() as root:
            while self._wait_for_jobs():
                for job in self._jobs:
                    try:
                        result: object = job(root)
                    except BaseException as error:  # the caller's
                        result = error
                    if self._over:  # another one goes on with the rest
                        return
                    self._results.append(result)
                with self._changed:
                    self._changed.notify_all()

    def _wait_for_jobs(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._over or len(self._results) < len(self._jobs))
            return not self._over

    def do(self, jobs: Sequence[Callable[[Root], object]], within: float) -> list[object]:
        """Return the results of those jobs that came back, in order; the one after them makes no progress."""
        with self._changed:
            self._jobs, self._results = jobs, []
            self._changed.notify_all()
            before = -1
            while before < len(self._results) < len(jobs):
                before = len(self._results)
                self._changed.wait_for(lambda: len(self._results) == len(jobs), within)
            # What comes back later is nobody's.
            results, self._results = self._results, []
            self._over = len(results) < len(jobs)
            self._jobs = ()
            return results

    def end(self) -> None:
        """Have it end, when it comes to it."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class ThreadedReads:
    """See the module.  For one thread.

    Parameters
    ----------
    again
        Makes a root for a thread.
    within
        Seconds that a job may make no progress for.
    """

    def __init__(self, again: Callable[[], Root], within: float) -> None:
        self._again = again
        self._within = within
        self._reader: _Reader | None = None
        #: those that have not come back
        self._left_alone: list[_Reader] = []
        #: when the last of them was left alone, monotonic seconds
        self._left_at = 0.0

    def all(self, jobs: Sequence[Callable[[Root], T]]) -> list[T | OSError]:
        found: list[T | OSError] = []
        while len(found) < len(jobs):
            self._left_alone = [reader for reader in self._left_alone if reader.thread.is_alive()]
            more = len(self._left_alone) - _LEFT_ALONE
            if more >= 0 and time.monotonic() < self._left_at + _AGAIN * 2**more:
                late = os_error(errno.ETIMEDOUT, "not read: earlier reads of this root have not come back")
                return [*found, *[late] * (len(jobs) - len(found))]
            try:
                if self._reader is None:
                    self._reader = _Reader(self._again)
            except OSError as error:  # no thread can be had
                return [*found, *[error] * (len(jobs) - len(found))]
            rest = jobs[len(found) :]
            for result in self._reader.do(rest, self._within):
                if isinstance(result, BaseException) and not isinstance(result, OSError):
                    raise result
                found.append(result)  # type: ignore[arg-type]
            if len(found) < len(jobs):
                found.append(os_error(errno.ETIMEDOUT, f"it was not read within {self._within:g} s"))
                self._left_alone.append(self._reader)
                self._left_at = time.monotonic()
                self._reader = None
        return found

    def close(self) -> None:
        """Leave alone what does not come back."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None
