"""Where a swap file without a name is put."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from uzswap.errors import os_error
from uzswap.mountinfo import mount_points

__all__ = ["IN_MEMORY", "choose_directory", "file_system_type"]

#: Their files are memory: swapping to them frees nothing.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})


@dataclass(frozen=True, slots=True)
class _Place:
    directory: str
    on_disk: bool
    free: int


def _directories() -> Iterator[str]:
    """Yield candidates, the user's own wish first; /var/tmp is by convention a disk even where /tmp is not."""
    if "TMPDIR" in os.environ:
        yield os.environ["TMPDIR"]
    yield "/var/tmp"
    yield os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    yield tempfile.gettempdir()


def file_system_type(directory: str) -> str:
    """Return the type of the mount that holds a directory, as in /proc/self/mountinfo; "" when that can't be read.

    By the longest mount point, not by st_dev: subvolumes of btrfs have device numbers of their own.
    """
    real = os.path.realpath(directory)
    found, found_type = "", ""
    try:
        for point in mount_points():
            inside = real == point.path or real.startswith(point.path.rstrip("/") + "/")
            if inside and len(point.path) >= len(found):
                found, found_type = point.path, point.type
    except OSError:
        return ""
    return found_type


def choose_directory(nbytes: int) -> str:
    """Return the directory for a swap file of up to ``nbytes``: on a disk before in memory, then the first with room.

    Where none has room for all of it, the one with most: nothing is reserved, and a full device is an orderly ENOSPC.

    Raises
    ------
    OSError
        ENOENT when there is no directory to write to.
    """
    places = []
    for directory in _directories():
        if os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK):
            status = os.statvfs(directory)
            on_disk = file_system_type(directory) not in IN_MEMORY
            places.append(_Place(directory, on_disk, status.f_bavail * status.f_frsize))
    if not places:
        raise os_error(
            errno.ENOENT, f"no directory for a swap file: make {tempfile.gettempdir()} writable, or give swap=PATH"
        )
    return max(places, key=lambda place: (place.on_disk, min(place.free, nbytes))).directory
