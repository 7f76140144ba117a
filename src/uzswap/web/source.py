"""One engine, looked at once a second over its socket; and the requests that were made of it here.

Threads: one looks; those of the server read what it found, write limits and carry out requests, each with a connection
of its own.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from uzswap.client.client import Client
from uzswap.client.over_socket import SocketRoot
from uzswap.errors import ReclaimError, os_error
from uzswap.threads import start_thread
from uzswap.web.history import History

__all__ = ["LIMITS", "Request", "Source"]

#: what can be edited, in the order in which it is shown
LIMITS: Final = (
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "uzswap.resident.max",
    "memory.zswap.max",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.writeback",
)
_INTERVAL: Final = 1.0
#: requests that are remembered
_MOST_REQUESTS: Final = 50
_PAGE: Final = 4096

Told = Mapping[str, Any]


@dataclass(slots=True)
class Request:
    """A write to memory.reclaim that was made here."""

    number: int
    cgroup: str
    text: str
    #: seconds since 1970
    began: float
    ended: float | None = None
    #: "" while it runs; then "done", or the name of an errno
    outcome: str = ""
    message: str = ""
    #: bytes that have been reclaimed or written back since it began
    done: int = 0
    #: what the cgroup had reclaimed before
    before: int = 0
    cancel: Callable[[], object] = field(default=lambda: None, repr=False)

    def as_json(self) -> dict[str, Any]:
        names = ("number", "cgroup", "text", "began", "ended", "outcome", "message", "done")
        return {name: getattr(self, name) for name in names}


class _Cancelling:
    """What interrupts a write: an :class:`uzswap.client.root.Interrupts`."""

    def __init__(self) -> None:
        self._act: Callable[[], object] | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self, act: Callable[[], object]) -> Iterator[None]:
        with self._lock:
            self._act = act
            if self._cancelled:
                act()
        try:
            yield
        finally:
            with self._lock:
                self._act = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._act is not None:
                self._act()


class Source:
    """An engine.

    Parameters
    ----------
    name
        As ``uzswap engines`` has it.
    socket
        Its path.
    decisions
        Returns the last decisions of an agent about a cgroup, in words; nothing where there is no agent.
    write_budget
        Bytes a second that an agent may write in the long run.
    """

    def __init__(
        self,
        name: str,
        socket: str,
        decisions: Callable[[str], list[dict[str, Any]]] = lambda cgroup: [],
        write_budget: int | None = None,
    ) -> None:
        self.name: Final = name
        self.decisions: Final = decisions
        self.write_budget: Final = write_budget
        self.history: Final = History()
        #: what every cgroup tells, by path; the root first
        self.told: dict[str, Told] = {}
        self.when = 0.0
        #: why nothing is told now; "" as long as the engine answers
        self.trouble = "not looked at yet"
        self._socket = socket
        self._stop = threading.Event()
        self._looked = threading.Condition()
        self.looks = 0
        self._numbers = itertools.count(1)
        self._requests: dict[int, Request] = {}
        self._lock = threading.Lock()
        self._thread = start_thread(f"uzswap-web-{name}", self._run)

    def close(self) -> None:
        """Stop looking, and cancel what runs."""
        self._stop.set()
        with self._looked:
            self._looked.notify_all()
        for request in self.requests():
            if request.ended is None:
                request.cancel()
        self._thread.join()

    def looked(self, looks: int, timeout: float) -> None:
        """Wait until there were more looks than so many, seconds at most."""
        with self._looked:
            self._looked.wait_for(lambda: self.looks > looks or self._stop.is_set(), timeout)

    def _run(self) -> None:
        client = Client(self._socket, timeout=30.0)
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                told = client.stat("/", recursive=True)
            except (OSError, ValueError) as error:
                self.trouble = getattr(error, "strerror", None) or str(error)
                client.close()
            else:
                self._take({one["cgroup"]: one for one in told})
            with self._looked:
                self.looks += 1
                self._looked.notify_all()
            due = max(due + _INTERVAL, time.monotonic())
            self._stop.wait(due - time.monotonic())
        client.close()

    def _take(self, told: dict[str, Told]) -> None:
        now = time.time()
        seconds = now - self.when
        samples = {path: _sample(one, self.told.get(path), seconds) for path, one in told.items()}
        self.told, self.when, self.trouble = told, now, ""
        self.history.add(now, samples)
        for request in self.requests():
            if request.ended is None:
                request.done = _reclaimed(told.get(request.cgroup, {}), request.text) - request.before

    # What is asked about one cgroup

    def ages(self, cgroup: str) -> dict[str, list[int]]:
        """Return compressed bytes and entries in the pool by age; raises OSError as the engine says."""
        with Client(self._socket, timeout=30.0) as client:
            return client.ages(cgroup)

    def write(self, cgroup: str, file: str, value: str) -> None:
        """Set a limit.

        Raises
        ------
        OSError
            EACCES it is none of LIMITS; otherwise what the file says.
        """
        if file not in LIMITS:
            raise os_error(errno.EACCES, f"{file!r} is not edited here: {', '.join(LIMITS)}")
        with SocketRoot(self._socket) as root:
            root.write(_file(cgroup, file), value.encode())

    # Requests

    def requests(self) -> list[Request]:
        """Return those that are remembered, the newest first."""
        with self._lock:
            return list(reversed(self._requests.values()))

    def reclaim(self, cgroup: str, text: str) -> Request:
        """Begin to write to memory.reclaim.  Raises OSError when no thread can be had, ENOENT for no such cgroup."""
        told = self.told.get(cgroup)
        if told is None:
            raise os_error(errno.ENOENT, "there is no such cgroup", cgroup)
        cancelling = _Cancelling()
        with self._lock:
            request = Request(
                next(self._numbers),
                cgroup,
                text,
                time.time(),
                before=_reclaimed(told, text),
                cancel=cancelling.cancel,
            )
            self._requests[request.number] = request
            for number in list(self._requests)[:-_MOST_REQUESTS]:
                if self._requests[number].ended is not None:
                    del self._requests[number]
        start_thread("uzswap-web-reclaim", self._reclaim, request, cancelling)
        return request

    def _reclaim(self, request: Request, cancelling: _Cancelling) -> None:
        try:
            with SocketRoot(self._socket) as root:
                root.write(_file(request.cgroup, "memory.reclaim"), request.text.encode(), interrupts=cancelling)
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or errno.EIO, "EIO")
            message = error.strerror or str(error)
            if isinstance(error, ReclaimError):
                request.done = error.result.written or error.result.reclaimed
        else:
            outcome, message = "done", ""
            with contextlib.suppress(OSError), Client(self._socket, timeout=30.0) as client:
                (told,) = client.stat(request.cgroup)
                last = told.get("uzswap.last_reclaim", {})
                request.done = int(last.get("written", 0) or last.get("reclaimed", 0))
        request.outcome, request.message = outcome, message
        request.ended = time.time()

    def cancel(self, number: int) -> None:
        """Interrupt a request; raises ENOENT when there is none of that number."""
        with self._lock:
            request = self._requests.get(number)
        if request is None:
            raise os_error(errno.ENOENT, f"no request has the number {number}")
        request.cancel()


def _file(cgroup: str, name: str) -> str:
    return f"/cgroup{cgroup.rstrip('/')}/{name}"


def _reclaimed(told: Told, text: str) -> int:
    """Return the bytes that requests of the kind of ``text`` have reclaimed ever."""
    stat = told.get("memory.stat", {})
    if "source=" in text:
        return int(stat.get("zswpwb_proactive_b", 0))
    return int(stat.get("pgsteal_proactive", 0)) * _PAGE


def _sample(told: Told, before: Told | None, seconds: float) -> dict[str, float]:
    """Return the numbers of :data:`uzswap.web.history.FIELDS`."""
    stat = told.get("memory.stat", {})
    past = before.get("memory.stat", {}) if before else stat

    def rate(key: str) -> float:
        # A cgroup that was removed and made again begins at 0.
        return max(0, stat.get(key, 0) - past.get(key, 0)) / seconds if seconds > 0 else 0.0

    return {
        "resident": stat.get("anon", 0),
        "zswap": stat.get("zswap", 0),
        "zswapped": stat.get("zswapped", 0),
        "disk": stat.get("uzswap.disk", 0),
        "written": rate("pswpout") * _PAGE,
        "refaults_zswap": rate("zswpin"),
        "refaults_disk": rate("pswpin"),
        "pressure": told.get("memory.pressure", {}).get("some", {}).get("avg10", 0.0),
    }
