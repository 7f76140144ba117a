"""Requests to memory.reclaim: at most one under way for each cgroup, each with a deadline, none waiting for another.

They are made by threads, and one that hangs holds up nobody.  One that takes longer than its deadline is interrupted by
the root (EINTR); one that does not even end then is left alone, and its cgroup with it, until it ends.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from uzswap.agent.lowered import Lowered
from uzswap.agent.observe import STOLEN, WRITTEN, number_of, numbers, reclaimed_of
from uzswap.agent.policies.policy import MEMORY, PAGE, RECOMPRESS, ZSWAP, Decision, Done
from uzswap.agent.tree import Tree
from uzswap.client.root import PATIENCE, Root
from uzswap.threads import start_thread

__all__ = ["Finished", "InlineRequests", "Request", "Requests", "ThreadedRequests", "carry_out", "file_of", "text_of"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request."""

    #: of the cgroup
    inode: int
    path: str
    decision: Decision
    #: what its counter was when it was decided; None: not known
    before: int | None = None


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
    """Return what is written to the file of :func:`file_of`.

    >>> text_of(Decision(1, 4096, "open")), text_of(Decision(2, 100, "open", min_age=120))
    ('4096', '100 source=zswap min_age=120')
    >>> text_of(Decision(3, 4096, "open", min_age=60, codec="zstd"))
    '4096 codec=zstd min_age=60'
    """
    key = {MEMORY: "", ZSWAP: " source=zswap", RECOMPRESS: f" codec={decision.codec}"}[decision.stage]
    age = "" if decision.min_age is None else f" min_age={decision.min_age}"
    return f"{decision.nbytes}{key}{age}"


def file_of(decision: Decision) -> str:
    """Return the control file of a request."""
    return "uzswap.recompress" if decision.stage == RECOMPRESS else "memory.reclaim"


def carry_out(
    root: Root,
    directory: str,
    decision: Decision,
    within: float | None,
    lowered: Lowered | None = None,
    before: int | None = None,
) -> Done:
    """Make one request, and return what came of it, by the counters: EAGAIN is success in part.

    Parameters
    ----------
    before
        What the counter was, from the observation that was decided by; None reads it.
    """
    began = time.monotonic()
    if decision.by_limit:
        number, done = _by_limit(root, directory, decision, within, lowered)
    else:
        number, done = _by_request(root, directory, decision, within, before)
    return Done(decision.stage, decision.nbytes, done, number, time.monotonic() - began)


def _by_request(
    root: Root, directory: str, decision: Decision, within: float | None, before: int | None
) -> tuple[int, int]:
    """Return errno and bytes."""
    told_by = _told_by(decision)
    try:
        if decision.stage == RECOMPRESS:
            before = 0  # its file tells of the last request alone
        elif before is None:
            before = _amount(decision, root.read(f"{directory}/{told_by}"))
    except OSError as error:
        return error.errno or errno.EIO, 0
    failed, text = root.act(directory, file_of(decision), text_of(decision).encode(), told_by, within=within)
    number = 0 if failed is None else failed.errno or errno.EIO
    if decision.stage == RECOMPRESS and number == errno.ENOENT and _is_there(root, directory):
        number = errno.EINVAL  # it is the codec that there is not
    if text is None or (decision.stage == RECOMPRESS and number not in _BEGUN):
        return number, 0
    return number, max(0, _amount(decision, text) - before)


def _by_limit(
    root: Root, directory: str, decision: Decision, within: float | None, lowered: Lowered | None
) -> tuple[int, int]:
    """Return errno and bytes."""
    number = 0
    try:
        before = _on_device(root, directory)
    except OSError as error:
        return error.errno or errno.EIO, 0
    try:
        if lowered is not None:
            _push_out(root, directory, decision, within, lowered)
    except OSError as error:
        number = error.errno or errno.EIO
    try:
        return number, max(0, _on_device(root, directory) - before)
    except OSError as error:  # gone
        return number or error.errno or errno.EIO, 0


def _push_out(root: Root, directory: str, decision: Decision, within: float | None, lowered: Lowered) -> None:
    """Have pages that are stored push others out: each frees about one entry over the limit (SPEC 3.4)."""
    now = int(root.read(f"{directory}/memory.zswap.current"))
    limit = max(0, now - decision.nbytes) // PAGE * PAGE
    if not limit:
        return  # 0 would turn zswap off
    seconds = PATIENCE + (within or PATIENCE)
    with lowered.to(f"{directory}/memory.zswap.max", limit, seconds):
        root.write(f"{directory}/memory.reclaim", f"{decision.nbytes}".encode(), within=within)


def _is_there(root: Root, directory: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(root.inode(directory))
    return False


#: errnos of requests that may have done something
_BEGUN: Final = (0, errno.EINTR, errno.ENOMEM)


def _told_by(decision: Decision) -> str:
    """Return the file that tells what a request did."""
    return "uzswap.recompress" if decision.stage == RECOMPRESS else "memory.stat"


def _amount(decision: Decision, text: str) -> int:
    """Return bytes: what a stage did ever, or for a kernel that does not count it, what makes the same difference."""
    if decision.stage == RECOMPRESS:  # of the last request
        return int(numbers(text)["taken"])
    if decision.stage == ZSWAP:
        return number_of(text, WRITTEN) or 0
    pages = number_of(text, STOLEN)
    return reclaimed_of(numbers(text)) if pages is None else pages * PAGE


def _on_device(root: Root, directory: str) -> int:
    """Return bytes, compressed: what was pushed out, and what was refused while others had their second chance."""
    stat = numbers(root.read(f"{directory}/memory.stat"))
    held, was = int(stat.get("zswap", 0)), int(stat.get("zswapped", 0))
    on_device = int(root.read(f"{directory}/memory.swap.current")) - was
    return int(on_device * (held / was if was else 1.0))


class _Worker:
    """A thread that carries out requests, one after the other."""

    def __init__(self) -> None:
        #: since when it has been at one, monotonic seconds; None while it waits for one
        self.since: float | None = None


class ThreadedRequests:
    """A few threads, and another one for each that does not come back: one that hangs holds up nobody.

    Reclaim is work: hundreds of requests at once would be a peak, so there are ``at_once`` threads, and those that are
    overdue do not count.  Closing it waits for none of these.
    """

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
        self._at_once = max(1, at_once)
        lock = threading.RLock()
        #: there is something to do; and something has ended, which must not wake every thread that has nothing to do
        self._changed, self._over = threading.Condition(lock), threading.Condition(lock)
        #: inode -> since when it has been under way, or has waited for its turn
        self._under_way: dict[int, float] = {}
        self._waiting: deque[Request] = deque()
        self._workers: set[_Worker] = set()
        self._ended: list[Finished] = []
        self._closed = False

    def busy(self, inode: int) -> float | None:
        with self._changed:
            began = self._under_way.get(inode)
        return None if began is None else time.monotonic() - began

    def start(self, request: Request) -> None:
        with self._changed:
            if request.inode in self._under_way:
                raise OSError(errno.EBUSY, "a request is under way", request.path)
            self._under_way[request.inode] = time.monotonic()
            self._waiting.append(request)
            try:
                self._provide()
            except OSError:
                if not self._workers:  # nobody would ever take it
                    self._waiting.pop()
                    del self._under_way[request.inode]
                    raise
            self._changed.notify()

    def _provide(self) -> None:
        """Have a thread for what waits, if one more is allowed.  The lock is held."""
        now = time.monotonic()
        at_work = [worker.since for worker in self._workers]
        counted = sum(1 for since in at_work if since is None or now - since <= self._deadline)
        if len(self._waiting) <= at_work.count(None) or counted >= self._at_once:
            return
        worker = _Worker()
        start_thread("uzswap-request", self._work, worker)
        self._workers.add(worker)

    def _work(self, me: _Worker) -> None:
        try:
            with self._root() as root:
                while (request := self._take(me)) is not None:
                    self._carry_out(root, request)
        finally:
            with self._changed:
                self._workers.discard(me)
                self._over.notify_all()

    def _take(self, me: _Worker) -> Request | None:
        """Wait for a request; None ends the thread: all is over, or another one has taken its place."""
        with self._changed:
            me.since = None
            while not self._waiting:
                if self._closed or len(self._workers) > self._at_once:
                    return None
                self._changed.wait()
            request = self._waiting.popleft()
            me.since = self._under_way[request.inode] = time.monotonic()
            return request

    def _carry_out(self, root: Root, request: Request) -> None:
        done = Done(request.decision.stage, request.decision.nbytes, 0, errno.EIO)
        try:
            directory = self._tree.cgroup(request.path).path
            done = carry_out(root, directory, request.decision, self._deadline, self._lowered, request.before)
        finally:
            with self._changed:
                self._ended.append(Finished(request, done))
                self._over.notify_all()
            self._wake()

    def finished(self) -> list[Finished]:
        with self._changed:
            found, self._ended = self._ended, []
            # Only what was told about is over: its cgroup could not have a next one before.
            for one in found:
                del self._under_way[one.request.inode]
            with contextlib.suppress(OSError):  # no thread can be had: those that there are go on
                self._provide()
        return found

    def close(self) -> None:
        """Wait until those have ended that end when they are interrupted."""
        until = time.monotonic() + self._deadline + PATIENCE
        with self._changed:
            while len(self._ended) < len(self._under_way) and (left := until - time.monotonic()) > 0:
                self._over.wait(left)
            self._closed = True
            self._changed.notify_all()
            self._over.wait_for(lambda: all(worker.since is not None for worker in self._workers), PATIENCE)


class InlineRequests:
    """Each is carried out at once, in the caller's thread: for a replay, whose clock stands still meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._ended: list[Finished] = []

    def busy(self, inode: int) -> float | None:
        return None

    def start(self, request: Request) -> None:
        directory = self._tree.cgroup(request.path).path
        done = carry_out(self._tree.root, directory, request.decision, None, before=request.before)
        self._ended.append(Finished(request, done))

    def finished(self) -> list[Finished]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        """Do nothing: none is under way."""
