"""A disk that fails on command: a FUSE file system with one file, run by a child process.

    with FaultySwap(16 << 20) as disk:
        z = engine(swap=disk.path)
        disk.fail_writes(errno.EIO)
        ...
        disk.heal()

Faults are switched over a Unix socket and are in force when the call returns.  A request is one read or write that the
kernel sends to the file system; writes of up to 1 MiB arrive whole (FUSE_MAX_MAX_PAGES), larger ones in pieces.  The
file can be opened with O_DIRECT and without; either way nothing is cached.
"""

import ctypes.util
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from .mounts import make_mount_point, unmount

#: Seconds until a file system process that does not answer is taken for dead: generous, it only matters when it is.
PATIENCE = 240.0


def unavailable() -> str | None:
    """Why no FUSE file system can be served here and what to do about it, or None."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse: modprobe fuse, or run the container with --device /dev/fuse --cap-add SYS_ADMIN"
    if ctypes.util.find_library("fuse3") is None or shutil.which("fusermount3") is None:
        return "no libfuse3: apt install fuse3 libfuse3-3"
    if importlib.util.find_spec("mfusepy") is None:
        return "no mfusepy: pip install mfusepy"
    return None


class FaultySwap:
    """A file of `size` bytes at :attr:`path` that behaves as told.  A context manager; for one thread at a time.

    Entering skips the test, with the way to enable it, where FUSE cannot be used.  Leaving heals the file, unmounts it
    (lazily when it is still open) and ends the child, also after a failed test.

    `owner` is the user who may open the file, by default this one; another takes root.
    """

    def __init__(self, size: int, owner: int | None = None) -> None:
        self.size = size
        self._owner = os.getuid() if owner is None else owner
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if reason := unavailable():
            pytest.skip(reason)
        self._mount_point = make_mount_point()
        self._backing = tempfile.TemporaryFile()
        self._backing.truncate(self.size)
        self._log = tempfile.TemporaryFile()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(PATIENCE)
        self._answers = self._control.makefile("rb")
        fds = (self._backing.fileno(), theirs.fileno())
        server = Path(__file__).with_name("faulty_server.py")
        try:
            self._child = subprocess.Popen(
                [sys.executable, str(server), str(self._mount_point), *map(str, fds), str(self._owner)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # a Ctrl-C is for the test, which then unmounts
            )
            theirs.close()
            if not self._answers.readline():
                self._child.wait(PATIENCE)
                pytest.skip(f"FUSE cannot mount here ({self._said()}): be root or add --cap-add SYS_ADMIN")
        except BaseException:
            theirs.close()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        return self._log.closed

    def close(self) -> None:
        """Unmount and reap the child.  Does nothing the second time."""
        if self.closed:
            return
        self._answers.close()
        self._control.close()  # the child sees the end of the socket, unmounts and exits
        if self._child is not None:
            try:
                self._child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        unmount(self._mount_point, fuse=True)
        self._backing.close()
        self._log.close()

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()

    def _tell(self, do: str, **arguments: Any) -> Any:
        try:
            self._control.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = self._answers.readline()
        except OSError as error:
            raise RuntimeError(f"the file system at {self.path} does not answer: {self._said()}") from error
        if not line:
            raise RuntimeError(f"the file system at {self.path} has died: {self._said()}")
        return json.loads(line)["result"]

    @property
    def path(self) -> str:
        """Of the swap file."""
        return str(self._mount_point / "swap")

    @property
    def writes(self) -> int:
        """Write requests that have arrived so far, failed and blocked ones too."""
        return int(self._tell("counts")["write"])

    @property
    def reads(self) -> int:
        """Read requests that have arrived so far, failed ones too."""
        return int(self._tell("counts")["read"])

    @property
    def fallocates(self) -> int:
        """fallocate() requests that have arrived so far."""
        return int(self._tell("counts")["fallocate"])

    def fail_writes(self, errno: int, after: int = 0, count: int | None = None) -> None:
        """Let `after` more writes pass, then fail `count` of them (all, when None) with `errno`; nothing is written."""
        self._tell("fail", kind="write", errno=errno, after=after, count=count)

    def fail_reads(self, errno: int, after: int = 0, count: int | None = None) -> None:
        """As :meth:`fail_writes`, for reads."""
        self._tell("fail", kind="read", errno=errno, after=after, count=count)

    def fail_fallocates(self, errno: int, after: int = 0, count: int | None = None) -> None:
        """As :meth:`fail_writes`, for fallocate(): EOPNOTSUPP makes it a file system that cannot punch holes."""
        self._tell("fail", kind="fallocate", errno=errno, after=after, count=count)

    def block_writes(self, after: int = 0) -> None:
        """Let `after` more writes pass; those that follow wait for :meth:`release`.  Reads go on."""
        self._tell("block", kind="write", after=after)

    def block_reads(self, after: int = 0) -> None:
        """As :meth:`block_writes`, for reads: one kind at a time."""
        self._tell("block", kind="read", after=after)

    def block_fallocates(self, after: int = 0) -> None:
        """As :meth:`block_writes`, for fallocate(): one kind at a time."""
        self._tell("block", kind="fallocate", after=after)

    def wait_blocked(self, count: int = 1, timeout: float = PATIENCE / 2) -> int:
        """Return the number of waiting requests as soon as `count` wait; TimeoutError after `timeout` seconds."""
        blocked = int(self._tell("wait_blocked", count=count, timeout=timeout))
        if blocked < count:
            raise TimeoutError(f"{blocked} of {count} requests to {self.path} arrived within {timeout} s")
        return blocked

    def release(self) -> None:
        """Let waiting requests go on, and stop blocking.  They fail if a method above was called meanwhile."""
        self._tell("release")

    def heal(self) -> None:
        """No more faults, and release what waits."""
        self._tell("heal")

    def corrupt(self, offset: int, count: int = 1) -> None:
        """Invert `count` bytes of the stored data, from `offset`.  ValueError outside the file."""
        old = os.pread(self._backing.fileno(), count, offset)
        if len(old) != count:
            raise ValueError(f"bytes {offset}..{offset + count} are outside {self.path}, which has {self.size}")
        os.pwrite(self._backing.fileno(), bytes(byte ^ 0xFF for byte in old), offset)

    def stored(self, offset: int, count: int) -> bytes:
        """What really lies on the disk there, past any fault."""
        return os.pread(self._backing.fileno(), count, offset)
