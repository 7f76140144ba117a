"""The command in a process of its own: to its end, or talked with while it runs, on pipes or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import pytest
from tests.support.child import PATIENCE, Child

from uzswap import TraceEvent
from uzswap.signals import hold_back_signals

#: in an interpreter that has begun already
PROGRAM = "import warnings; warnings.simplefilter('error'); from uzswap.cli.main import main; main()"
COMMAND = [sys.executable, "-W", "error", "-c", "from uzswap.cli.main import main; main()"]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the command runs with."""
    return {**os.environ, "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(sys.path), **(more or {})}


def uzswap(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    with Child(PROGRAM, arguments, env={"COLUMNS": "200", **(env or {})}) as child:
        child.write(stdin)
        done = child.wait()
    return subprocess.CompletedProcess(arguments, done.returncode, done.stdout, done.stderr)


@contextmanager
def started(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the command, with pipes, for as long as the block takes at most."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(env),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Endless:
    """A trace that holds a walk up until somebody wants its request to end.

    ``z.trace = endless``: a request that was begun is then still under way, for as long as a test needs.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.over = threading.Event()

    def __call__(self, event: TraceEvent) -> None:
        self.begun.set()
        with hold_back_signals() as guard:
            deadline = time.monotonic() + PATIENCE
            while not guard.pending() and not self.over.is_set() and time.monotonic() < deadline:
                os.sched_yield()


class Terminal:
    """The command on a terminal of its own.  A context manager that leaves no process behind."""

    def __init__(self, *arguments: str, rows: int = 24, columns: int = 160) -> None:
        master, slave = pty.openpty()
        self._fd = master
        self._text = ""
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        env = environment({"TERM": "xterm", "COLUMNS": str(columns), "LINES": str(rows)})
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def send(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until a pattern turns up in what was shown since the last one; what is before its end is then over."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self._text, re.DOTALL)):
            left = deadline - time.monotonic()
            if left <= 0 or not self._receive(left):
                pytest.fail(f"{pattern!r} was not shown, but\n{self._text}", pytrace=False)
        self._text = self._text[found.end() :]
        return found

    def wait(self) -> int:
        """Wait until it ends; returns its exit code."""
        while self._receive(PATIENCE):
            pass
        return self.process.wait(PATIENCE)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.send("\x03")

    @property
    def rest(self) -> str:
        """What was shown since the last match."""
        return self._text

    def _receive(self, timeout: float) -> bool:
        if not select.select([self._fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            return False
        self._text += re.sub(r"\x1b[\[\]?][0-9;?]*[a-zA-Z]", "", data.decode(errors="replace")).replace("\r", "")
        return bool(data)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
