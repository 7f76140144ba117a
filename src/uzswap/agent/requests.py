"""Requests to memory.reclaim: at most one under way for each cgroup, each with a deadline, none waiting for another.

Each has a thread of its own, so that one that hangs holds up nobody.  One that takes longer than its deadline is
interrupted by the root (EINTR); one that does not even end then is left alone, and its cgroup with it, until it ends.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from uzswap.agent.lowered import Lowered
from uzswap.agent.observe import numbers
from uzswap.agent.policies.policy import MEMORY, PAGE, Decision, Done
from uzswap.agent.tree import Tree
from uzswap.client.root import PATIENCE, Root
from uzswap.threads import start_thread

__all__ = ["Finished", "InlineRequests", "Request", "Requests", "ThreadedRequests", "carry_out", "text_of"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    #: of the cgroup
    inode: int
    path: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Finished:
    """A request that has ended."""

    request: Request
    done: Done


class Requests(Protocol):
    """Carries requests out."""

    def busy(self, inode: int) -> float | None:
        """Return for how many seconds a request has been under way in a cgroup, None without one.

        It is under way until :meth:`finished` has told of it.
        """
        ...

    def start(self, request: Request) -> None:
        """Begin a request.

        Raises
        ------
        OSError
            EAGAIN no thread can be had; EBUSY one is under way in this cgroup.
        """
        ...

    def finished(self) -> list[Finished]:
        """Return those that have ended since the last call."""
        ...

    def close(self) -> None: ...


def text_of(decision: Decision) -> str:
    """Return what is written to memory.reclaim.

    >>> text_of(Decision(1, 4096, "open")), text_of(Decision(2, 100, "open", min_age=120))
    ('4096', '100 source=zswap min_age=120')
    """
    if decision.stage == MEMORY:
        return f"{decision.nbytes}"
    age = "" if decision.min_age is None else f" min_age={decision.min_age}"
    return f"{decision.nbytes} source=zswap{age}"


#: keys of memory.stat that tell what a stage did
_WRITTEN: Final = "zswpwb_proactive_b"
_STOLEN: Final = "pgsteal_proactive"


def carry_out(
    root: Root, directory: str, decision: Decision, within: float | None, lowered: Lowered | None = None
) -> Done:
    """Make one request, and return what came of it, by the counters: EAGAIN is success in part."""
    began = time.monotonic()
    number, before, after = 0, None, None
    try:
        before = _amount(root, directory, decision)
        if not decision.by_limit:
            root.write(f"{directory}/memory.reclaim", text_of(decision).encode(), within=within)
        elif lowered is not None:
            _push_out(root, directory, decision, within, lowered)
    except OSError as error:
        number = error.errno or errno.EIO
    if before is not None:
        try:
            after = _amount(root, directory, decision)
        except OSError as error:  # gone
            number = number or error.errno or errno.EIO
    done = 0 if before is None or after is None else max(0, after - before)
    return Done(decision.stage, decision.nbytes, done, number, time.monotonic() - began)


def _push_out(root: Root, directory: str, decision: Decision, within: float | None, lowered: Lowered) -> None:
    """Have pages that are stored push others out: each frees about one entry over the limit (SPEC 3.4)."""
    now = int(root.read(f"{directory}/memory.zswap.current"))
    limit = max(0, now - decision.nbytes) // PAGE * PAGE
    if not limit:
        return  # 0 would turn zswap off
    seconds = PATIENCE + (within or PATIENCE)
    with lowered.to(f"{directory}/memory.zswap.max", limit, seconds):
        root.write(f"{directory}/memory.reclaim", f"{decision.nbytes}".encode(), within=within)


def _amount(root: Root, directory: str, decision: Decision) -> int:
    """Return bytes: what a stage did ever, or for a kernel that does not count it, what makes the same difference."""
    stat = numbers(root.read(f"{directory}/memory.stat"))
    if decision.by_limit:
        held, was = int(stat.get("zswap", 0)), int(stat.get("zswapped", 0))
        return int(int(stat.get("zswpwb", 0)) * PAGE * (held / was if was else 1.0))
    if decision.stage != MEMORY:
        return int(stat.get(_WRITTEN, 0))
    if _STOLEN in stat:  # 6.13 and later
        return int(stat[_STOLEN]) * PAGE
    return -int(stat.get("anon", 0)) - int(stat.get("file", 0))


class ThreadedRequests:
    """A thread for each request.  Closing it waits for none of them."""

    def __init__(
        self,
        tree: Tree,
        deadline: float,
        wake: Callable[[], object],
        root: Callable[[], Root],
        lowered: Lowered | None = None,
        at_once: int = 8,
    ) -> None:
        self._tree = tree
        self._deadline = deadline
        self._wake = wake
        self._root = root
        self._lowered = lowered
        self._slots = threading.BoundedSemaphore(max(1, at_once))
        self._lock = threading.Lock()
        self._under_way: dict[int, float] = {}
        self._ended: queue.SimpleQueue[Finished] = queue.SimpleQueue()

    def busy(self, inode: int) -> float | None:
        with self._lock:
            began = self._under_way.get(inode)
        return None if began is None else time.monotonic() - began

    def start(self, request: Request) -> None:
        with self._lock:
            if request.inode in self._under_way:
                raise OSError(errno.EBUSY, "a request is under way", request.path)
            self._under_way[request.inode] = time.monotonic()
        try:
            start_thread("uzswap-request", self._run, request)
        except OSError:
            with self._lock:
                del self._under_way[request.inode]
            raise

    def _run(self, request: Request) -> None:
        done = Done(request.decision.stage, request.decision.nbytes, 0, errno.EIO)
        # Reclaim is work: hundreds at once would be a peak.  But it is not waited for those that are overdue.
        turn = self._slots.acquire(timeout=self._deadline)
        with self._lock:
            self._under_way[request.inode] = time.monotonic()
        try:
            with self._root() as root:
                directory = self._tree.cgroup(request.path).path
                done = carry_out(root, directory, request.decision, self._deadline, self._lowered)
        finally:
            if turn:
                self._slots.release()
            self._ended.put(Finished(request, done))
            self._wake()

    def finished(self) -> list[Finished]:
        found = []
        while True:
            try:
                found.append(self._ended.get_nowait())
            except queue.Empty:
                break
        # Only what was told about is over: its cgroup could not have a next one before.
        with self._lock:
            for one in found:
                del self._under_way[one.request.inode]
        return found

    def close(self) -> None:
        """Wait until those have ended that end when they are interrupted."""
        until = time.monotonic() + self._deadline + PATIENCE
        while self._ended.qsize() < len(self._under_way) and time.monotonic() < until:
            time.sleep(0.01)


class InlineRequests:
    """Each is carried out at once, in the caller's thread: for a replay, whose clock stands still meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._ended: list[Finished] = []

    def busy(self, inode: int) -> float | None:
        return None

    def start(self, request: Request) -> None:
        directory = self._tree.cgroup(request.path).path
        self._ended.append(Finished(request, carry_out(self._tree.root, directory, request.decision, None)))

    def finished(self) -> list[Finished]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Do nothing: none is under way."""
