"""Many children of one interpreter that has imported everything already: each starts in a tenth of the time.

    with Zygote(Child, ["hypothesis"]) as zygote:
        with zygote.child("import sys; print(sys.argv[1])", ["argument"]) as child:
            ...

What it forks are processes as any other: their code is the program ``__main__``, and they end as it ends.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, TracebackType
from typing import Self

from tests.support.child import PATIENCE, Child

#: What most children ask for.  The package's names come with their modules, each when it is first used.
IMPORTS = (
    "numpy",
    "uzswap.arrays.advice",
    "uzswap.arrays.managed",
    "uzswap.arrays.take",
    "uzswap.cli.files",
    "uzswap.cli.interrupts",
    "uzswap.core.boundary.snapshot",
    "uzswap.engine.default",
    "uzswap.serve.server",
    "uzswap.store.store",
)
_DAY = 86400.0
_MOST_BYTES = 1 << 18  # of a message, more than Linux lets pass
_numbers = itertools.count()


class Zygote:
    """An interpreter that waits for work; `kind` says as whom it runs.  A context manager; any thread may ask it.

    It starts beside whoever makes it: only the first child waits for that.
    """

    def __init__(self, kind: type[Child], imports: Sequence[str] = ()) -> None:
        self._kind, self._imports = kind, [*IMPORTS, *imports]

    def __enter__(self) -> Self:
        # An abstract address: whoever it runs as may be asked.
        self._address = f"\0uzswap-test-{os.getpid()}-{next(_numbers)}"
        code = "exec(__import__('tests.support.zygote', fromlist=['serve']).serve())"
        self._process = self._kind(code, [self._address[1:], *self._imports], timeout=_DAY, fresh=True)
        self._ready = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            if error is None:
                self._process.wait(PATIENCE).check()

    def child(self, code: str, args: Sequence[str] = (), timeout: float = PATIENCE) -> Child:
        """Fork a child with the zygote's own environment and directory; see :class:`Child` for the parameters."""
        return Child(code, args, timeout=timeout, zygote=self)

    def fork(self, code: str, args: Sequence[str], stderr: int, env: Mapping[str, str] | None) -> Forked:
        """Fork a process that runs `code`; with an environment it has that, and the directory of this process."""
        if not self._ready:
            self._process.read_line()
            self._ready = True
        directory = None if env is None else os.getcwd()
        return Forked(self._address, json.dumps([code, list(args), directory, env and dict(env)]).encode(), stderr)


class Forked:
    """As much of a Popen as Child needs, of a process that is the zygote's child."""

    def __init__(self, address: str, task: bytes, stderr: int) -> None:
        stdin, stdout = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.stdin, self.stdout = os.fdopen(stdin[1], "wb", buffering=0), os.fdopen(stdout[0], "rb", buffering=0)
        self._zygote = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._zygote.connect(address)
            socket.send_fds(self._zygote, [task], [stdin[0], stdout[1], stderr])
            self.pid = int(self._zygote.recv(_MOST_BYTES))
        finally:
            os.close(stdin[0])
            os.close(stdout[1])

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except BlockingIOError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._zygote.settimeout(timeout)
            self.returncode = int(self._zygote.recv(_MOST_BYTES))
            self._zygote.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve() -> CodeType:
    """The zygote's own program.  Returns what is to run then: in each child its program, in the zygote nothing."""
    _, address, *imports = sys.argv
    for name in imports:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("\0" + address)
    listener.listen()
    print("ready", flush=True)
    running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd
    while True:
        readable = select.select([0, listener, *running], (), ())[0]
        for pidfd in running.keys() & readable:
            pid, asker = running.pop(pidfd)
            os.close(pidfd)
            with asker:
                asker.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        if listener in readable:
            asker, _ = listener.accept()
            task, fds, _, _ = socket.recv_fds(asker, _MOST_BYTES, 3)
            pid = os.fork()
            if not pid:
                for ours in (listener, asker, *(asker for _, asker in running.values())):
                    ours.close()
                for pidfd in running:
                    os.close(pidfd)
                return _become(task, fds)
            for fd in fds:
                os.close(fd)
            asker.send(str(pid).encode())
            running[os.pidfd_open(pid)] = pid, asker
        if 0 in readable:  # whoever made this zygote is gone, or wants it to go
            return compile("", "<string>", "exec")


def _become(task: bytes, fds: Sequence[int]) -> CodeType:
    """Make this process what the task says; returns its program."""
    code, arguments, directory, environment = json.loads(task)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    if directory is not None:
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    return compile(code, "<string>", "exec")
