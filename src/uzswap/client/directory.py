"""Control files in a file system: the kernel's, or those of a mounted engine.  The one module that touches them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Final, Self

from uzswap.client.deadlines import Deadlines
from uzswap.client.kernel import explain
from uzswap.client.root import PATIENCE, Interrupts, Name, Root
from uzswap.errors import os_error
from uzswap.threads import start_thread

__all__ = ["DirectoryRoot"]

#: bytes that are read at once: more than most control files have
_PART: Final = 1 << 16
#: what the process that writes runs: data on stdin, the errno on stdout, 0 for none and -1 for a part
_WRITER: Final = """
import os, sys
data = sys.stdin.buffer.read()
try:
    answer = 0 if os.write(int(sys.argv[1]), data) == len(data) else -1
except OSError as error:
    answer = error.errno
os.write(1, b"%d" % answer)
"""


class DirectoryRoot(Root):
    """A tree in a file system; paths are those of the file system.

    Parameters
    ----------
    deadlines
        Interrupts writes that have to end ``within`` some time; without it each of those is made by a process of its
        own.  Such a write may take longer than it should where the system call cannot be interrupted: it is for a
        thread that can be left alone.
    """

    def __init__(self, deadlines: Deadlines | None = None) -> None:
        self._deadlines = deadlines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: a file system has nothing to close."""

    def again(self) -> DirectoryRoot:
        return self

    def read(self, path: str) -> str:
        # Without a file object, which costs more than the read: an agent makes hundreds a second.
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                parts = [os.read(fd, _PART)]
                while parts[-1]:
                    parts.append(os.read(fd, _PART))
            finally:
                os.close(fd)
        except OSError as error:
            with explain(path):
                raise error
        return b"".join(parts).decode(errors="surrogateescape")

    def write(
        self, path: str, data: bytes, *, within: float | None = None, interrupts: Interrupts | None = None
    ) -> None:
        """Write to a file; see :meth:`Root.write`.

        With ``interrupts`` alone, for the main thread: a signal handler that raises is what ends a system call.  With
        ``within`` it is a process of its own that writes, since nothing else ends a system call of any thread.
        """

        def interrupt() -> None:
            # Out of the system call, which Python would make again (PEP 475).
            raise os_error(errno.EINTR, "interrupted", path)

        with explain(path, data):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                with contextlib.nullcontext() if interrupts is None else interrupts.call(interrupt):
                    if within is None:
                        whole = os.write(fd, data) == len(data)
                    elif self._deadlines is not None:
                        whole = self._deadlines.write(fd, data, within)
                    else:
                        whole = _write_within(fd, data, within)
            finally:
                os.close(fd)
        if not whole:
            raise os_error(errno.EIO, "only a part of it was taken", path)

    def names(self, path: str) -> list[Name]:
        with explain(path), os.scandir(path) as entries:
            found = []
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    there = entry.stat()
                    found.append(Name(entry.name, entry.is_dir(), there.st_mode & 0o7777, there.st_ino))
        return sorted(found, key=lambda name: (name.is_directory, name.name))

    def directories(self, path: str) -> list[tuple[str, int]]:
        # Type and inode are in the directory itself: no look at each of hundreds of cgroups.
        with explain(path), os.scandir(path) as entries:
            return sorted((entry.name, entry.inode()) for entry in entries if entry.is_dir(follow_symlinks=False))

    def files(self, path: str) -> set[str]:
        with explain(path), os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}

    def inode(self, path: str) -> int:
        with explain(path):
            return os.stat(path).st_ino

    def stat(self, path: str, files: Collection[str] | None = None) -> list[dict[str, Any]] | None:
        """Read what an engine's mount has beside the directory of its root cgroup: see :meth:`Root.stat`."""
        parts = path.rstrip("/").split("/")
        for place in range(len(parts) - 1, 0, -1):
            if parts[place] != "cgroup":
                continue
            # If it is none, the files themselves tell what is wrong.
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                told = json.loads(self.read("/".join([*parts[:place], "uzswap.stat"])))["cgroups"]
                within = "".join([f"/{part}" for part in parts[place + 1 :]]) + "/"
                return [one for one in told if f"{one['cgroup'].rstrip('/')}/".startswith(within)] or None
        return None

    def mkdir(self, path: str) -> None:
        with explain(path):
            os.mkdir(path)

    def rmdir(self, path: str) -> None:
        with explain(path):
            os.rmdir(path)


def _write_within(fd: int, data: bytes, within: float) -> bool:
    """Write in a process of its own, which is killed when it takes longer; returns whether all was taken."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WRITER, str(fd)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[fd],
    )
    try:
        answer = int(child.communicate(data, timeout=within)[0] or errno.EIO)
    except subprocess.TimeoutExpired:
        child.kill()
        _wait_patiently(child)
        raise os_error(errno.EINTR, f"interrupted: it took longer than {within:g} s") from None
    except BaseException:
        child.kill()
        _wait_patiently(child)
        raise
    if answer > 0:
        raise OSError(answer, os.strerror(answer))
    return answer == 0


def _wait_patiently(child: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was killed; raises ETIMEDOUT when the kernel does not let go of it."""
    try:
        child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        # Whenever it ends, somebody has to have waited for it.
        start_thread("uzswap-left-alone", child.communicate)
        raise os_error(errno.ETIMEDOUT, f"it did not even end within {PATIENCE:g} s of being killed") from None
