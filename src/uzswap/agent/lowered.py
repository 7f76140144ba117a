"""Limits that are lowered for a moment, and are what they were again whatever happens to the agent.

A kernel without ``source=zswap`` has only coarse substitutes for it (docs/spec.md, 9): ``memory.zswap.max`` below what
is in use has each page that is stored push one out.  That is a limit, and a limit must not outlive its purpose.  So a
small process of its own, the guard, is told before one is lowered.  It writes back what was there when the agent ends,
however it ends, and also when the agent takes longer than it said.  It needs no disk.  Where the agent and the guard
are both killed (with their whole cgroup, say), a file in the state directory tells the next agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

__all__ = ["Lowered"]

#: What the guard runs.  On stdin, a line of JSON each: ["+", seconds, path, value] before a limit is lowered, answered
#: with a newline, and ["-", path] when it is not any more.
_GUARD: Final = """
import json, os, select, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
lowered, rest = {}, b""
def restore(path):
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, lowered[path][0].encode())
        finally:
            os.close(fd)
    except OSError:
        pass  # the cgroup is gone, and its limit with it
    del lowered[path]
while True:
    soonest = min((until for _, until in lowered.values()), default=None)
    wait = None if soonest is None else max(0.0, soonest - time.monotonic())
    if select.select([0], [], [], wait)[0]:
        data = os.read(0, 65536)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            told = json.loads(line)
            if told[0] == "+":
                lowered[told[2]] = (told[3], time.monotonic() + told[1])
                os.write(1, b"\\n")
            else:
                lowered.pop(told[1], None)
    for path in [path for path, (_, until) in lowered.items() if until <= time.monotonic()]:
        restore(path)
for path in list(lowered):
    restore(path)
"""


class Lowered:
    """The guard, started when it is first needed.  Threads may share it.

    Parameters
    ----------
    journal
        The file for the next agent; None is none.
    say
        Told of what a former agent has left.
    """

    def __init__(self, journal: Path | None, say: Callable[[str], object]) -> None:
        self._journal = journal
        self._say = say
        self._lock = threading.Lock()
        self._guard: subprocess.Popen[bytes] | None = None
        self._now: dict[str, str] = {}

    def restore_left_behind(self) -> None:
        """Write back what the journal of a former agent has."""
        if self._journal is None:
            return
        try:
            left = json.loads(self._journal.read_text())
            pairs = [(str(path), str(value)) for path, value in left.items()]
        except (OSError, ValueError, AttributeError):
            return
        for path, value in pairs:
            with contextlib.suppress(OSError):  # the cgroup is gone
                _write(path, value)
                self._say(f"{path} was left lowered by an agent that was killed: it is {value} again")
        self._keep()

    @contextlib.contextmanager
    def to(self, path: str, value: int, within: float) -> Iterator[None]:
        """Lower a limit for a block, at most ``within`` seconds.

        Raises
        ------
        OSError
            It cannot be read or written, or there can be no guard.  It is as it was.
        """
        with open(path) as file:
            before = file.read().strip()
        try:
            with self._lock:
                self._now[path] = before
                self._keep()
                self._tell(["+", within, path, before], answered=True)
            _write(path, str(value))
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):  # gone
                _write(path, before)
            with self._lock:
                self._now.pop(path, None)
                self._keep()
                with contextlib.suppress(OSError):
                    self._tell(["-", path])

    def close(self) -> None:
        """End the guard, which has nothing to do any more."""
        with self._lock:
            if self._guard is not None:
                self._guard.communicate()
                self._guard = None

    def _tell(self, told: list[object], *, answered: bool = False) -> None:
        if self._guard is not None and self._guard.poll() is not None:
            self._guard.communicate()
            self._guard = None  # killed by somebody: another one
        if self._guard is None:
            if not answered:
                return
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _GUARD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.write(json.dumps(told).encode() + b"\n")
        if answered and not self._guard.stdout.read(1):
            raise OSError(5, "the guard of lowered limits ended: nothing is lowered")

    def _keep(self) -> None:
        """Keep what is lowered in the journal, if that can be; the guard does without."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                if self._now:
                    new = self._journal.with_suffix(".new")
                    new.write_text(json.dumps(self._now))
                    os.replace(new, self._journal)
                else:
                    self._journal.unlink(missing_ok=True)


def _write(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
