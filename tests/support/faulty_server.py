"""The file system behind :class:`support.faulty.FaultySwap`; runs as a program of its own.

    python faulty_server.py MOUNTPOINT BACKING_FD CONTROL_FD OWNER

It serves one file, ``swap``, out of the open file BACKING_FD; it belongs to the user OWNER, who may be another than the
one that it runs as.  It obeys JSON lines that arrive at CONTROL_FD, a Unix socket; each line gets one JSON line as its
answer.  When the socket closes, also because the test was killed, it lets every waiting write go, unmounts and ends:
nothing stays mounted.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mfusepy

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

#: Write requests that can be held while reads still pass: more than any engine keeps in flight.
MOST_IN_FLIGHT = 64
KINDS = ("write", "read", "fallocate")


@dataclass
class Fault:
    """What happens to the requests of one kind: `after` more pass, then they fail with `errno`, `count` times."""

    errno: int = 0
    after: int = 0
    count: int | None = None

    def strike(self) -> int:
        """The errno of the next request, 0 for none."""
        if self.errno == 0 or self.count == 0:
            return 0
        if self.after > 0:
            self.after -= 1
            return 0
        if self.count is not None:
            self.count -= 1
        return self.errno


class State:
    """The switches and counters; every method may be called from any thread."""

    def __init__(self) -> None:
        self.client = os.getppid()
        self.changed = threading.Condition()
        self.faults = {kind: Fault() for kind in KINDS}
        self.seen = dict.fromkeys(KINDS, 0)
        #: the kind of requests that wait
        self.blocking: str | None = None
        self.pass_before_block = 0
        self.blocked = 0

    def enter(self, kind: str) -> None:
        """Called first by every request: count it, make it wait, then fail it, as the switches stand after the wait."""
        with self.changed:
            self.seen[kind] += 1
            if kind == self.blocking:
                self._wait_while_blocked(kind)
            fault = self.faults[kind].strike()
        if fault:
            raise OSError(fault, os.strerror(fault))

    def _wait_while_blocked(self, kind: str) -> None:
        if self.pass_before_block > 0:
            self.pass_before_block -= 1
            return
        self.blocked += 1
        self.changed.notify_all()
        while not self.changed.wait_for(lambda: self.blocking != kind, timeout=1):
            if dying(self.client):
                self.blocking = None
        self.blocked -= 1
        self.changed.notify_all()

    def fail(self, kind: str, errno: int, after: int, count: int | None) -> None:
        with self.changed:
            self.faults[kind] = Fault(errno, after, count)

    def block(self, kind: str, after: int) -> None:
        with self.changed:
            self.blocking = kind
            self.pass_before_block = after

    def wait_blocked(self, count: int, timeout: float) -> int:
        with self.changed:
            self.changed.wait_for(lambda: self.blocked >= count, timeout)
            return self.blocked

    def release(self) -> None:
        with self.changed:
            self.blocking = None
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.blocked == 0)

    def heal(self) -> None:
        with self.changed:
            self.faults = {kind: Fault() for kind in KINDS}
        self.release()

    def counts(self) -> dict[str, int]:
        with self.changed:
            return {**self.seen, "blocked": self.blocked}


class FaultyFs(mfusepy.Operations):  # type: ignore[misc, unused-ignore]
    """One directory with one file whose reads and writes go through :class:`State`."""

    use_ns = True

    def __init__(self, backing: int, state: State, control: socket.socket, owner: int) -> None:
        self.backing = backing
        self.owner = owner
        self.state = state
        self.control = control
        self.mode = 0o600

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        # The kernel's default of 12 asynchronous requests: a 13th io_submit() would block while writes are held.
        conn_info.max_background = MOST_IN_FLIGHT
        conn_info.congestion_threshold = MOST_IN_FLIGHT
        answer(self.control, {"ready": True})

    def _swap_only(self, path: str) -> None:
        if path != "/swap":
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        owner = {"st_uid": self.owner, "st_gid": os.getgid()}
        if path == "/":
            return {**owner, "st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
        self._swap_only(path)
        real = os.fstat(self.backing)
        times = {f"st_{t}time": getattr(real, f"st_{t}time_ns") for t in "amc"}
        sizes = {"st_size": real.st_size, "st_blocks": real.st_blocks, "st_blksize": real.st_blksize}
        return {**owner, **times, **sizes, "st_mode": stat.S_IFREG | self.mode, "st_nlink": 1}

    def readdir(self, path: str, fh: int) -> Iterable[str]:
        return [".", "..", "swap"]

    def chmod(self, path: str, mode: int) -> int:
        self._swap_only(path)
        self.mode = stat.S_IMODE(mode)
        return 0

    def open(self, path: str, flags: int) -> int:
        self._swap_only(path)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self.state.enter("read")
        return os.pread(self.backing, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.state.enter("write")
        return os.pwrite(self.backing, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._swap_only(path)
        os.ftruncate(self.backing, length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self.state.enter("fallocate")
        return 0 if _libc.fallocate(self.backing, mode, offset, size) == 0 else -ctypes.get_errno()

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        real = os.fstatvfs(self.backing)
        return {name: getattr(real, name) for name in ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail")}


def dying(pid: int) -> bool:
    """Whether the process is gone or has been killed.

    A process that is killed while it waits for a held write cannot end, nor close its control socket, before the write
    does (fs/fuse/dev.c, request_wait_answer), so the end of the socket does not tell.
    """
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return True
    killed = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return status["State"][0] in "ZX" or bool(killed & 1 << signal.SIGKILL - 1)


def answer(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def obey(state: State, control: socket.socket, mountpoint: str) -> None:
    """Serve the control socket until it closes, then end the process."""
    try:
        for line in control.makefile("rb"):
            request = json.loads(line)
            name = request.pop("do")
            answer(control, {"result": getattr(state, name)(**request)})
    finally:
        state.heal()
        for lazily in ([], ["-z"]):
            if (
                subprocess.run(["fusermount3", "-u", *lazily, mountpoint], capture_output=True, check=False).returncode
                == 0
            ):
                break
        with contextlib.suppress(OSError):
            os.rmdir(mountpoint)
        os._exit(0)


def main() -> None:
    mountpoint, (backing, control_fd, owner) = sys.argv[1], map(int, sys.argv[2:])
    control = socket.socket(fileno=control_fd)
    state = State()
    obeying = threading.Thread(target=obey, args=(state, control, mountpoint), daemon=True)
    obeying.start()
    options: dict[str, Any] = {} if owner == os.getuid() else {"allow_other": True}
    if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12):
        options["max_threads"] = MOST_IN_FLIGHT + 4  # 10 by default: that many held writes would hold the reads too
    mfusepy.FUSE(
        FaultyFs(backing, state, control, owner),
        mountpoint,
        foreground=True,
        direct_io=True,  # every read and write reaches this process: no page cache hides a fault
        attr_timeout=0,
        **options,
    )
    obeying.join()  # it has unmounted, and removes the directory before it ends the process


if __name__ == "__main__":
    main()
