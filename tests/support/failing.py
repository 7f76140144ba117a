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

#: The kinds of calls; what a uffd_* fails is the ioctl of that name.
KINDS: Final = (
    "malloc",
    "calloc",
    "posix_memalign",
    "mmap",
    "madvise",
    "pthread_create",
    "uffd_copy",
    "uffd_zeropage",
    "uffd_move",
)


@cache
def _compiled() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="uzswap-failing-")
    _directories.append(directory)  # until this process ends
    library = Path(directory.name, "failing.so")
    source = Path(__file__).with_suffix(".c")
    Path(directory.name).chmod(0o755)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source], check=True)
    return library


_directories: list[tempfile.TemporaryDirectory[str]] = []


def preloaded() -> dict[str, str]:
    """The environment of a child that is to use this module; skips the test where it cannot be had."""
    if not sys.platform.startswith("linux") or os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("the preloaded library is for glibc")
    try:
        return {"LD_PRELOAD": str(_compiled())}
    except FileNotFoundError:
        pytest.skip("no C compiler: apt install gcc")


def plan(kind: str, after: int = 0, count: int = 1, errno: int = errors.ENOMEM, least: int = 0) -> None:
    """Let `after` more calls for at least `least` bytes succeed, then have `count` fail with `errno`; 0 ends it."""
    ctypes.CDLL(None).failing_plan(KINDS.index(kind), *(ctypes.c_long(n) for n in (after, count, errno, least)))


def met(kind: str) -> int:
    """Calls that the last plan has met."""
    return int(ctypes.CDLL(None).failing_met(KINDS.index(kind)))


def set_clock(ahead: int) -> None:
    """Have the wall clock be so many seconds ahead."""
    ctypes.CDLL(None).failing_clock(ctypes.c_long(ahead))
