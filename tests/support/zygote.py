"""Many children of one interpreter that has imported everything already: each starts in a tenth of the time.

    with Zygote(Child, ["numpy", "uzswap"]) as zygote:
        with zygote.child("tests.some_module", "some_function", ["its", "arguments"]) as child:
            ...

What it forks are processes as any other: each calls a function, falls off the end of the program, and ends.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.child import PATIENCE, Child

_MOST_BYTES = 1 << 16
_numbers = itertools.count()


class Zygote:
    """An interpreter that waits for work; `kind` says as whom it runs.  A context manager; one child at a time."""

    def __init__(self, kind: type[Child], imports: Sequence[str]) -> None:
        self._kind, self._imports = kind, imports

    def __enter__(self) -> Self:
        # An abstract address: whoever it runs as may connect.
        address = f"\0uzswap-test-{os.getpid()}-{next(_numbers)}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(address)
            listener.listen(1)
            listener.settimeout(PATIENCE)
            code = "from tests.support.zygote import serve; serve()"
            self._process = self._kind(code, [address[1:], *self._imports], timeout=10 * PATIENCE)
            self._socket, _ = listener.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        with self._process:
            self._process.wait(PATIENCE)

    def child(self, module: str, function: str, arguments: Sequence[Any], timeout: float = PATIENCE) -> Child:
        """Fork a child that calls a function with arguments that are fit for JSON."""
        return _Forked(self._socket, json.dumps([module, function, *arguments]), timeout)


class _Forked(Child):
    def __init__(self, zygote: socket.socket, task: str, timeout: float) -> None:
        self._zygote = zygote
        super().__init__(task, timeout=timeout)

    def _start(self, arguments: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        stdin, stdout = os.pipe(), os.pipe()
        socket.send_fds(self._zygote, [arguments[-1].encode()], [stdin[0], stdout[1], self._stderr.fileno()])
        os.close(stdin[0])
        os.close(stdout[1])
        return _Process(self._zygote, stdin[1], stdout[0])  # type: ignore[return-value]


class _Process:
    """As much of a Popen as Child needs, of a process that is the zygote's child."""

    def __init__(self, zygote: socket.socket, stdin: int, stdout: int) -> None:
        self._zygote = zygote
        self.returncode: int | None = None
        self.stdin, self.stdout = os.fdopen(stdin, "wb", buffering=0), os.fdopen(stdout, "rb", buffering=0)
        self.pid = int(zygote.recv(_MOST_BYTES))

    def poll(self) -> int | None:
        self._zygote.setblocking(False)
        try:
            return self.wait()
        except BlockingIOError:
            return None
        finally:
            self._zygote.setblocking(True)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._zygote.settimeout(timeout if self._zygote.gettimeout() is None else 0)
            try:
                self.returncode = int(self._zygote.recv(_MOST_BYTES))
            finally:
                self._zygote.settimeout(None)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve() -> None:
    """The zygote's own program.  Returns in each child when its function has returned, and in the zygote at the end."""
    _, address, *imports = sys.argv
    for name in imports:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tests:
        tests.connect("\0" + address)
        while True:
            task, fds, _, _ = socket.recv_fds(tests, _MOST_BYTES, 3)
            if not task:
                return
            child = os.fork()
            if not child:
                break
            for fd in fds:
                os.close(fd)
            tests.send(str(child).encode())
            tests.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    module, function, *arguments = json.loads(task)
    getattr(importlib.import_module(module), function)(*arguments)
