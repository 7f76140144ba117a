"""Calls of libc that fail on command, in a child process that has support/failing.c preloaded.

done = child.run(
    '''
    from tests.support import failing
    failing.plan("mmap", after=2, errno=errno.ENOMEM)
    ...
    ''',
    env=failing.preloaded(),
)
"""

from __future__ import annotations

import ctypes
import errno as errors
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.support import child

#: The kinds of calls; what a uffd_* fails is the ioctl of that name.
KINDS: Final = (
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "mmap",
    "munmap",
    "mprotect",
    "madvise",
    "pthread_create",
    "pwrite",
    "pread",
    "fallocate",
    "ftruncate",
    "sync_file_range",
    "open",
    "pipe",
    "io_setup",
    "io_submit",
    "io_getevents",
    "userfaultfd",
    "close_range",
    "uffd_api",
    "uffd_register",
    "uffd_unregister",
    "uffd_wake",
    "uffd_copy",
    "uffd_zeropage",
    "uffd_move",
    "uffd_writeprotect",
    "uffd_poison",
)
#: What becomes of a call: it fails; part of it is done, and that is said, or not; nothing is done, and success is said;
#: a bit is another; it is done in another segment; it takes 20 ms longer.  Of io_getevents, all but "fail" is about the
#: event: "short", or it says the errno.
MODES: Final = ("fail", "short", "torn", "lost", "flip", "astray", "late")


@cache
def _compiled() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="uzswap-failing-")
    _directories.append(directory)  # until this process ends
    library = Path(directory.name, "failing.so")
    source = Path(__file__).with_suffix(".c")
    Path(directory.name).chmod(0o755)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", library, source], check=True)
    return library


_directories: list[tempfile.TemporaryDirectory[str]] = []


def preloaded() -> dict[str, str]:
    """The environment of a child that is to use this module; skips the test where it cannot be had."""
    if not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("the preloaded library is for glibc")
    try:
        return child.preloaded(_compiled())
    except FileNotFoundError:
        pytest.skip("no C compiler: apt install gcc")


def only(part_of_path: str) -> None:
    """Meet only calls that come right from libraries with this in their path, of those that are loaded now."""
    ctypes.CDLL(None).failing_only(part_of_path.encode())


def plan(
    kind: str, after: int = 0, count: int = 1, errno: int = errors.ENOMEM, least: int = 0, mode: str = "fail"
) -> None:
    """Let `after` more calls for at least `least` bytes succeed, then have `count` fail with `errno`; 0 ends it."""
    numbers = (after, count, errno, least, MODES.index(mode))
    ctypes.CDLL(None).failing_plan(KINDS.index(kind), *map(ctypes.c_long, numbers))


def met(kind: str) -> int:
    """Calls that the last plan has met."""
    return int(ctypes.CDLL(None).failing_met(KINDS.index(kind)))


def struck(kind: str) -> int:
    """Calls that were not done as they were asked for, of the last plan."""
    return int(ctypes.CDLL(None).failing_struck(KINDS.index(kind)))


def refuse_memory(refuse: bool) -> int:
    """Refuse all memory from now on, Python's too, or end that; how often it was refused."""
    return int(_memory()(refuse))


@cache
def _memory() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None).failing_memory
    function.restype = ctypes.c_long
    return function


def set_clock(ahead: int) -> None:
    """Have the wall clock be so many seconds ahead."""
    ctypes.CDLL(None).failing_clock(ctypes.c_long(ahead))


def refuse_direct() -> None:
    """From now on no file system knows O_DIRECT, whoever asks."""
    ctypes.CDLL(None).failing_direct(1)
