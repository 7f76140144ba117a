"""What is mounted where, in this process's mount namespace."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["MountPoint", "mount_points"]

#: how blanks and backslashes are written in it
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class MountPoint(NamedTuple):
    """One line of /proc/self/mountinfo, the parts that are wanted here."""

    path: str
    #: of the file system, such as "cgroup2" or "fuse.uzswap"
    type: str
    #: as ``st_dev`` has it
    device: int


def mount_points() -> Iterator[MountPoint]:
    """Iterate over all mounts in the order in which they were made: a later one hides an earlier one.

    No file system is touched: one may be dead.

    Raises
    ------
    OSError
        There is no /proc.
    """
    # proc(5): mount ID, parent, device, root, mount point, options, optional fields, "-", type, ...
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            # At single blanks: a path may have any other white space in it as it is.
            fields = before.split(b" ")
            major, _, minor = fields[2].partition(b":")
            path = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
            yield MountPoint(os.fsdecode(path), os.fsdecode(after.split(b" ")[0]), os.makedev(int(major), int(minor)))
