"""Python code in a process of its own: for what kills, forks, or needs another user.

    done = run("import os; os.abort()")
    assert done.signal == signal.SIGABRT

A child sees the same modules as the test, `support` included.  It is forked from a process that has imported numpy and
uzswap (:mod:`tests.support.zygote`), unless it is `fresh`: an interpreter that is started for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import select
import signal
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from .zygote import Forked, Zygote

#: Seconds until a child counts as hung.  Generous: it only matters when it is.
PATIENCE = 240.0

#: What children are forked from; None: each is started.  tests/conftest.py sets it.
warm: Zygote | None = None

#: How variables begin that are read when a program starts, by its loader, libc, or the interpreter.
_AT_START = ("LD_", "MALLOC_", "PYTHON")

_OPTIONS = ("-u", "-X", "faulthandler", "-c")

#: Of the environment, what every process of the tests needs: how long they are, and a sanitizer (scripts/sanitize).
_EVERYWHERE = ["UZSWAP_SOAK"]
if "UZSWAP_SANITIZER" in os.environ:
    _EVERYWHERE += ["UZSWAP_SANITIZER", "LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"]
    _EVERYWHERE += ["OPENBLAS_NUM_THREADS"]


def preloaded(*libraries: str | Path) -> dict[str, str]:
    """Return the environment of a child that has these libraries preloaded, before a sanitizer's."""
    before = [os.environ["LD_PRELOAD"]] if "UZSWAP_SANITIZER" in os.environ else []
    return {"LD_PRELOAD": ":".join([*map(str, libraries), *before])}


@dataclass(frozen=True, slots=True)
class Finished:
    """How a child ended and what it said."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def signal(self) -> signal.Signals | None:
        """What killed it, or None."""
        return signal.Signals(-self.returncode) if self.returncode < 0 else None

    def check(self) -> Self:
        """Fail the test unless the child exited with 0."""
        if self.returncode != 0:
            pytest.fail(f"the child {self.how()}\n{self.said()}", pytrace=False)
        return self

    def how(self) -> str:
        return f"was killed by {self.signal.name}" if self.signal else f"exited with {self.returncode}"

    def said(self) -> str:
        return f"--- its stdout\n{self.stdout}\n--- its stderr\n{self.stderr}"


class Child:
    """A running child to talk with, line by line.  A context manager that leaves no process behind.

    Parameters
    ----------
    code
        Python source; it may be indented.
    args
        ``sys.argv[1:]`` of the child.
    env
        Added to the environment.
    timeout
        Seconds for everything together; a child that takes longer is killed and the test fails with what it said.
    fresh
        Start an interpreter: for what the first import, the process's memory, or its name has to do with.
    zygote
        Fork it from this one, with its environment.
    """

    def __init__(
        self,
        code: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
        *,
        fresh: bool = False,
        zygote: Zygote | None = None,
    ) -> None:
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed when the child is reaped
        self._stdout = b""
        self._unread = b""
        try:
            self._process = self._start(textwrap.dedent(code), args, dict(env or {}), fresh, zygote)
        except BaseException:
            self._stderr.close()
            raise

    def _start(
        self, code: str, args: Sequence[str], env: dict[str, str], fresh: bool, zygote: Zygote | None
    ) -> subprocess.Popen[bytes] | Forked:
        if zygote is not None:
            return zygote.fork(code, args, self._stderr.fileno(), None)
        every = {**os.environ, "PYTHONPATH": os.pathsep.join(_search_path()), **env}
        if warm is not None and not fresh and not any(name.startswith(_AT_START) for name in env):
            return warm.fork(code, args, self._stderr.fileno(), every)
        return subprocess.Popen(
            [sys.executable, *_OPTIONS, code, *args],
            env=every,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _receive(self) -> bytes:
        assert self._process.stdout is not None
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
            self._process.kill()
            said = self._finish().said()
            pytest.fail(f"the child did not finish within {self._timeout:g} s and was killed\n{said}", pytrace=False)
        data = os.read(self._process.stdout.fileno(), 65536)
        self._stdout += data
        return data

    def read_line(self) -> str:
        """The next line the child prints, without its end; fails the test when the child ends instead."""
        while b"\n" not in self._unread:
            data = self._receive()
            if not data:
                done = self._finish()
                pytest.fail(f"the child {done.how()} where a line was expected\n{done.said()}", pytrace=False)
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def write_line(self, text: str) -> None:
        """One line for the child's ``input()``."""
        self.write(text + "\n")

    def write(self, text: str) -> None:
        """What the child finds in its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def send_signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> Finished:
        """SIGKILL, and wait."""
        self._process.kill()
        return self.wait()

    def wait(self, timeout: float | None = None) -> Finished:
        """Close the child's stdin, and wait until it ends and everything it printed is read.

        `timeout` seconds from now on, or what is left of the child's own.
        """
        if timeout is not None:
            self._deadline = time.monotonic() + timeout
            self._timeout = timeout
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        while self._receive():
            pass
        return self._finish()

    def _finish(self) -> Finished:
        self._process.wait(PATIENCE)
        self._stderr.seek(0)
        stderr = self._stderr.read().decode(errors="replace")
        return Finished(self._process.returncode, self._stdout.decode(errors="replace"), stderr)


def run(
    code: str,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
    *,
    fresh: bool = False,
) -> Finished:
    """Run `code` to its end; see :class:`Child` for the parameters."""
    with Child(code, args, env, timeout, fresh=fresh) as child:
        return child.wait()


class NobodysChild(Child):
    """A child that runs as the user nobody, in ``/``.  Skips the test unless it runs as root.

    nobody often may not walk to this interpreter and these sources (they are in somebody's home directory).  What lies
    behind such a directory is handed over as an open directory and named ``/proc/self/fd/N/...``: that needs no search
    permission on what is above it.  The files themselves must be readable for others, else the test is skipped.
    """

    def _start(
        self, code: str, args: Sequence[str], env: dict[str, str], fresh: bool, zygote: Zygote | None
    ) -> subprocess.Popen[bytes] | Forked:
        if os.geteuid() != 0:
            pytest.skip("running as another user needs root: run the tests as root")
        user = pwd.getpwnam("nobody")
        base = Path(sys.base_prefix).resolve()
        program = Path(sys.executable).resolve()  # the real one: a virtual environment only has a link to it
        search = [Path(entry) for entry in _search_path()]
        with _handed_over([base, *search]) as (names, fds):
            if sysconfig.get_config_var("Py_ENABLE_SHARED"):
                # Where the interpreter looks for its libpython may be behind such a directory, too.
                env = {"LD_LIBRARY_PATH": os.path.join(names[base], "lib"), **env}
            return subprocess.Popen(
                [os.path.join(names[base], program.relative_to(base)), *_OPTIONS, code, *args],
                env={
                    "PATH": os.defpath,
                    "PYTHONPATH": os.pathsep.join(names[entry] for entry in search),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **{name: os.environ[name] for name in _EVERYWHERE if name in os.environ},
                    **env,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                cwd="/",
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                pass_fds=fds,
            )


def run_as_nobody(
    code: str, args: Sequence[str] = (), env: Mapping[str, str] | None = None, timeout: float = PATIENCE
) -> Finished:
    """As :func:`run`, as the user nobody; see :class:`NobodysChild`."""
    with NobodysChild(code, args, env, timeout) as child:
        return child.wait()


@cache
def _search_path() -> tuple[str, ...]:
    """Directories a child needs in PYTHONPATH to import what the test can."""
    entries = [entry for entry in sys.path if entry and os.path.isdir(entry)]
    package = importlib.util.find_spec("uzswap")
    if package is not None and package.origin is not None:
        entries.append(str(Path(package.origin).parents[1]))  # an editable install need not be in sys.path
    return tuple(dict.fromkeys(os.path.abspath(entry) for entry in entries))


def _open_to_others(path: Path) -> bool:
    """Whether any user may walk to the directory and list it."""
    above = all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
    return above and path.stat().st_mode & 0o005 == 0o005


def closed_to_others() -> Path | None:
    """A directory of what any interpreter imports that nobody reaches by a descriptor only; None when there is none."""
    ours = [Path(entry) for entry in _search_path() if not Path(entry).is_relative_to(sys.base_prefix)]
    return next((entry for entry in ours if not _open_to_others(entry)), None)


@contextlib.contextmanager
def _handed_over(directories: Sequence[Path]) -> Iterator[tuple[dict[Path, str], list[int]]]:
    """A name for each directory that works for nobody in a child that inherits the descriptors."""
    names: dict[Path, str] = {}
    fds: list[int] = []
    try:
        for directory in dict.fromkeys(directories):
            if directory.stat().st_mode & 0o005 != 0o005:
                pytest.skip(f"nobody may not read {directory}: chmod -R o+rX {directory}")
            if _open_to_others(directory):
                names[directory] = str(directory)
                continue
            fds.append(os.open(directory, os.O_PATH | os.O_DIRECTORY))
            names[directory] = f"/proc/self/fd/{fds[-1]}"
        yield names, fds
    finally:
        for fd in fds:
            os.close(fd)
