"""What a test may not leave behind: descriptors, threads, child processes, shared mappings, mounts."""

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from .mounts import PREFIX, mount_points

#: What a sanitizer (scripts/sanitize) has for itself: a thread without a name, a program that tells it the names of
#: functions, with pipes to that, and reports, which are told of anyway.
SANITIZED = "UZSWAP_SANITIZER" in os.environ
SYMBOLIZER = "llvm-symbolizer"
REPORTS = "/uzswap-reports-"
#: Seconds a thread that was joined may take to leave /proc: it wakes its joiner first and ends afterwards.
SETTLE = 10.0


def _open_files() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    if SANITIZED:
        pipes = _pipes_of_symbolizers()
        found = {fd: link for fd, link in found.items() if link not in pipes and REPORTS not in link}
    return found


def _pipes_of_symbolizers() -> set[str]:
    pipes = set()
    for pid in _pids_of_children():
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{pid}/comm").read_text().startswith(SYMBOLIZER):
                pipes |= {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1)}
    return pipes


def _threads() -> dict[str, str]:
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    found = {}
    of_program = Path("/proc/self/comm").read_text().strip()
    for tid in os.listdir("/proc/self/task"):
        try:
            comm = Path(f"/proc/self/task/{tid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if SANITIZED and tid not in names and comm == of_program:
            continue
        found[tid] = names.get(tid) or f"{comm} (not one of Python's)"
    return found


def _pids_of_children() -> Iterator[str]:
    for tid in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            yield from Path(f"/proc/self/task/{tid}/children").read_text().split()


def _children() -> dict[str, str]:
    found = {}
    # Without CONFIG_PROC_CHILDREN every process has to be asked whose it is.
    known = os.path.exists("/proc/thread-self/children")
    for pid in _pids_of_children() if known else filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, *_ = rest.split()
        if int(parent) == os.getpid() and not (SANITIZED and SYMBOLIZER in name):
            found[pid] = name.partition("(")[2] + (" that nobody waited for" if state == "Z" else "")
    return found


def _shared_mappings() -> dict[str, str]:
    found = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, permissions, _, _, _, *name = line.split(maxsplit=5)
        if permissions[3] == "s":
            found[where] = " ".join(name)
    return found


def _mounts() -> dict[str, str]:
    return {where: "is still mounted" for where in mount_points() if Path(where).name.startswith(PREFIX)}


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "file descriptor": _open_files,
    "thread": _threads,
    "child process": _children,
    "shared mapping": _shared_mappings,
    "mount": _mounts,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What this process holds, by kind."""

    held: dict[str, dict[str, str]]

    @classmethod
    def take(cls) -> Self:
        return cls({kind: look() for kind, look in KINDS.items()})

    def leaked(self, settle: float = SETTLE) -> list[str]:
        """What is held now and was not when this snapshot was taken, in words.

        What the garbage collector takes is nobody's leak, but it is asked only where there seems to be one: it takes
        longer than most tests.  Threads that are ending have up to `settle` seconds to end.
        """
        if not self._new():
            return []
        gc.collect()
        deadline = time.monotonic() + settle
        while (new := self._new()) and time.monotonic() < deadline and all(text.startswith("thread") for text in new):
            os.sched_yield()
        return new

    def _new(self) -> list[str]:
        return [
            f"{kind} {key}: {text}"
            for kind, found in self.take().held.items()
            for key, text in found.items()
            if self.held[kind].get(key) != text
        ]
