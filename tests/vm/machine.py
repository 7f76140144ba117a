"""A machine of our own to try the agent on: cgroups of a kernel with processes in them, and who writes to which file.

The kernel is one of Debian's in qemu (``make test-vm``); what is done there to cgroups, swap and zswap must not be done
to the machine that others work on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import pytest
from tests.cli.command import COMMAND, environment
from tests.support.child import Child

from uzswap.agent.explain import explain
from uzswap.agent.records import read_records

__all__ = ["KERNEL", "MIB", "PAGE", "Worker", "Writes", "agent", "cgroup", "needs_vm", "settings", "stat"]

MIB: Final = 1 << 20
PAGE: Final = 4096
#: of the kernel that runs here, by ``scripts/vm``
KERNEL: Final = os.environ.get("UZSWAP_IN_VM", "")
needs_vm = pytest.mark.skipif(
    not KERNEL, reason="it changes cgroups, swap and zswap of the machine: run it in qemu, make test-vm"
)
TOP: Final = Path("/sys/fs/cgroup")
#: seconds until something that has not happened will not: emulation is slow, and slower beside others
PATIENCE: Final = 120.0

_WORKER: Final = """
import ctypes, mmap, random, select, sys, time

PAGE = 4096
noise = random.Random(7).randbytes(1 << 16)
regions = {}

def content(name, i):
    at = i * 1031 % (len(noise) - 1300)
    return (f"{name} {i} ".encode() + noise[at:at + 1200]).ljust(PAGE, b"\\0")

def fill(name, nbytes):
    m = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    m.madvise(mmap.MADV_NOHUGEPAGE)
    for i in range(nbytes // PAGE):
        m[i * PAGE:(i + 1) * PAGE] = content(name, i)
    regions[name] = m

def touch(name):
    m = regions[name]
    for at in range(0, len(m), PAGE):
        m[at]

def wrong(name):
    m = regions[name]
    return sum(m[i * PAGE:(i + 1) * PAGE] != content(name, i) for i in range(len(m) // PAGE))

def present(name):
    m = regions[name]
    first = ctypes.addressof(ctypes.c_char.from_buffer(m)) // PAGE
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(first * 8)
        entries = file.read(len(m) // PAGE * 8)
    return sum(byte >> 7 for byte in entries[7::8])  # bit 63: present

print("ready")
kept, due = [], 0.0
while True:
    # The hot set is used once a second, whatever else is asked for: that is what makes it hot.
    if kept and time.monotonic() >= due:
        for name in kept:
            touch(name)
        due = time.monotonic() + 1.0
    if not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()) if kept else None)[0]:
        continue
    verb, *words = sys.stdin.readline().split() or ["end"]
    began = time.monotonic()
    if verb == "fill":
        fill(words[0], int(words[1]))
    elif verb == "read":
        with open(words[0], "rb") as file:
            while file.read(1 << 20):
                pass
    elif verb == "keep":
        kept = words
    elif verb == "touch":
        touch(words[0])
    elif verb == "wrong":
        print(wrong(words[0]))
        continue
    elif verb == "present":
        print(present(words[0]))
        continue
    else:
        break
    print(time.monotonic() - began)
"""


class Worker:
    """A process in a cgroup of its own, with regions of memory that have names.  A context manager."""

    def __init__(self, cgroup: Path) -> None:
        self.cgroup = cgroup
        self._child = Child(_WORKER, timeout=2 * PATIENCE)
        self.sizes: dict[str, int] = {}

    def __enter__(self) -> Self:
        assert self._child.read_line() == "ready"
        (self.cgroup / "cgroup.procs").write_text(f"{self._child.pid}")
        return self

    def __exit__(self, *exception: object) -> None:
        self._child.__exit__(None, None, None)

    def fill(self, name: str, nbytes: int) -> None:
        """Make a region: pages that are all different, and compress to about a third."""
        self.sizes[name] = nbytes
        self._ask(f"fill {name} {nbytes}")

    def keep(self, *names: str) -> None:
        """From now on use regions once a second each; those of the last call are left alone."""
        self._ask(f"keep {' '.join(names)}")

    def touch(self, name: str) -> float:
        """Use each page of a region once; returns seconds."""
        return self._ask(f"touch {name}")

    def read(self, path: Path) -> None:
        """Have a file in the page cache."""
        self._ask(f"read {path}")

    def wrong(self, name: str) -> int:
        """Return how many pages of a region are not what they were; it takes all of them back."""
        return int(self._ask(f"wrong {name}"))

    def resident(self, name: str) -> float:
        """Return the share of a region that is in memory; it takes nothing back."""
        return self._ask(f"present {name}") * PAGE / self.sizes[name]

    def _ask(self, text: str) -> float:
        self._child.write_line(text)
        return float(self._child.read_line())


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """Make a cgroup below a slice of ours, with the memory controller."""
    above = TOP / "slice"
    above.mkdir(exist_ok=True)
    (above / "cgroup.subtree_control").write_text("+memory")
    path = above / name
    path.mkdir()
    try:
        yield path
    finally:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                path.rmdir()
                break
            except OSError:  # EBUSY: its last process is on its way out
                assert time.monotonic() < deadline
                os.sched_yield()


def stat(cgroup: Path) -> dict[str, int]:
    """Return memory.stat."""
    return {
        key: int(value) for key, value in (line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    }


#: what can be written and read, and changes by itself
_NO_SETTING: Final = ("cgroup.procs", "cgroup.threads", "memory.peak", "memory.swap.peak", ".pressure")


def settings(*more: Path) -> dict[str, str]:
    """Return the content of every control file that sets something: of all cgroups, of zswap, and of the VM."""
    found = {}
    for top in (TOP, Path("/sys/module/zswap/parameters"), Path("/proc/sys/vm"), *more):
        for path in sorted(top.rglob("*")):
            if path.is_file() and path.stat().st_mode & 0o600 == 0o600 and not path.name.endswith(_NO_SETTING):
                with contextlib.suppress(OSError):  # some can only be written, whatever their mode
                    found[str(path)] = path.read_text()
    return found


_libc: Final = ctypes.CDLL(None, use_errno=True)
_IN_MODIFY: Final = 2
_EVENT: Final = struct.Struct("iIII")
#: what the kernel itself notifies about
_NOTIFIED: Final = ("cgroup.events", "memory.events", "memory.events.local", "memory.swap.events")


class Writes:
    """Every file that anybody writes to in some directories, by inotify.  A context manager."""

    def __init__(self, *directories: Path) -> None:
        self._directories = directories
        self._names: dict[int, Path] = {}

    def __enter__(self) -> Self:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        for directory in self._directories:
            watch = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_MODIFY)
            assert watch >= 0, os.strerror(ctypes.get_errno())
            self._names[watch] = directory
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)

    def seen(self) -> set[Path]:
        """Return those since the last call."""
        found: set[Path] = set()
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return found
            while data:
                watch, mask, _, length = _EVENT.unpack_from(data)
                assert watch in self._names, f"events were lost: {mask:#x}"
                name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode()
                data = data[_EVENT.size + length :]
                if name not in _NOTIFIED:
                    found.add(self._names[watch] / name)


class Running:
    """An agent that runs; its rounds are heard by way of sd_notify."""

    def __init__(self, process: subprocess.Popen[str], manager: socket.socket, state: Path) -> None:
        self.process = process
        self._manager = manager
        self._state = state

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Look after each round whether something has come true."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"never: {what}\n{self.why()}")
            self._manager.recv(1000)

    def why(self) -> str:
        """Return what it did, and said, in words."""
        said = (self._state / "said").read_text()
        return "\n".join([*map(explain, read_records(self._state)), said])

    def guarded(self, what: str, condition: Callable[[], bool]) -> None:
        """Look whether what is left after its end does its work."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"never: {what}")
            os.sched_yield()

    def rounds(self, count: int) -> None:
        """Wait for some rounds."""
        for _ in range(count):
            self._manager.recv(1000)


@contextlib.contextmanager
def agent(state: Path, *given: str) -> Iterator[Running]:
    """Run ``uzswap agent`` on the kernel's cgroups, with settings; what it says is in the file ``said``."""
    options = [option for one in ("agent.watch=/slice/*", *given) for option in ("--set", one)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (state / "said").open("w") as said:
        manager.bind(str(state / "notify"))
        manager.settimeout(PATIENCE)
        # The watchdog has it tell of a round once a second.
        env = environment({"NOTIFY_SOCKET": str(state / "notify"), "WATCHDOG_USEC": "2000000"})
        command = [*COMMAND, "agent", "run", "--state", str(state), *options]
        with subprocess.Popen(command, stderr=said, text=True, env=env) as process:
            try:
                yield Running(process, manager, state)
            finally:
                process.terminate()
                process.wait(PATIENCE)
        (state / "notify").unlink()
