"""A fork that Python is told of only afterwards, as some servers' C code makes it: no hook has run before."""

from __future__ import annotations

import _imp
import ctypes
import sys

__all__ = ["c_fork"]

#: PyOS_AfterFork_Child() lets go of the import lock, and is a fatal error when nobody has it.
_UNLOCKS = sys.version_info >= (3, 13)


def c_fork() -> int:
    """As os.fork()."""
    if _UNLOCKS:
        _imp.acquire_lock()
    pid: int = ctypes.PyDLL(None).fork()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    elif _UNLOCKS:
        _imp.release_lock()
    return pid
