"""What an errno of a control file in a file system means.

An engine says in words what is wrong; through a file system only the errno arrives.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from uzswap.errors import os_error

__all__ = ["explain"]

_MEANING: Final = {
    errno.EACCES: "permission denied: it belongs to somebody else, or cannot be opened that way",
    errno.EPERM: "not permitted: this file system does not do that, or not for you",
    errno.ENODEV: "the cgroup was removed",
    errno.ENOTCONN: "the process that served this mount is gone: mount it again, or fusermount3 -u it",
    errno.EAGAIN: "less was reclaimed than asked for",
    errno.EINVAL: "this file does not take that",
    errno.EBUSY: "it is in use: it has children or members",
    errno.ERANGE: "the number is out of range",
    errno.E2BIG: "more than a control file takes",
}


@contextlib.contextmanager
def explain(path: str, data: bytes = b"") -> Iterator[None]:
    """Raise errors of a block again, in words, about ``path``; ``data`` is what was written."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        text = _about(number, path, data) or _MEANING.get(number) or error.strerror or str(error)
        raise os_error(number, text, path) from error


def _about(number: int, path: str, data: bytes) -> str | None:
    """Return what is wrong in particular, found out by looking around."""
    directory, name = os.path.split(path)
    if number == errno.ENOENT and name.startswith("memory.") and os.path.isdir(directory):
        return _missing_file(Path(directory), name)
    if number == errno.EINVAL and name == "memory.reclaim" and b"source=" in data:
        if off := _writeback_off(Path(directory)):
            return f"zswap writeback is off: {off} is 0"
        if not _knows_source(Path(directory)):
            return "this kernel's memory.reclaim knows no source=: it takes the proactive writeback series"
    return None


def _missing_file(directory: Path, name: str) -> str | None:
    try:
        controllers = (directory / "cgroup.controllers").read_text().split()
    except OSError:
        return None
    if "memory" not in controllers:
        if not (directory.parent / "cgroup.subtree_control").exists():
            return "this hierarchy has no memory controller: another one of version 1 has it, or the kernel does not"
        return f"this cgroup has no memory controller: echo +memory > {directory.parent}/cgroup.subtree_control"
    return f"there is no {name} here: the root cgroup has fewer files than its children, an older kernel too"


def _writeback_off(directory: Path) -> Path | None:
    """Return the memory.zswap.writeback that is 0, here or in an ancestor."""
    while (directory / "cgroup.controllers").exists():
        file = directory / "memory.zswap.writeback"
        with contextlib.suppress(OSError):
            if file.read_text().strip() == "0":
                return file
        directory = directory.parent
    return None


def _knows_source(directory: Path) -> bool:
    try:
        return "zswpwb_proactive_b" in (directory / "memory.stat").read_text()
    except OSError:
        return True
