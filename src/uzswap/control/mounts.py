"""Mount points: what is mounted where, and taking away what a dead process left."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from uzswap.errors import os_error

__all__ = ["FSTYPE", "is_stale", "mounted_type", "prepare", "take_away"]

_log = logging.getLogger(__name__)

#: in /proc/self/mountinfo
FSTYPE: Final = "fuse.uzswap"
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def mounted_type(path: str | os.PathLike[str]) -> str | None:
    """Return the type of the file system that is mounted at a path, the topmost one; None when nothing is.

    It does not touch the file system itself, which may be dead.
    """
    # proc(5): mount ID, parent, device, root, mount point, options, optional fields, "-", type, ...
    wanted = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
    found = None
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            where = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), before.split()[4])
            if os.fsdecode(where) == wanted:
                found = after.split()[0].decode()
    return found


def is_stale(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a mount of uzswap whose process is gone."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED) and mounted_type(path) == FSTYPE
    return False


def take_away(path: str | os.PathLike[str]) -> None:
    """Unmount what somebody left behind, also while it is in use.

    Raises
    ------
    OSError
        EPERM: it belongs to somebody else.
    """
    said = []
    for command in (["fusermount3", "-u", "-z"], ["umount", "-l"]):
        try:
            done = subprocess.run([*command, "--", os.fspath(path)], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            said.append(str(error))
            continue
        if not done.returncode:
            return
        said.append(done.stderr.strip())
    raise os_error(errno.EPERM, f"this stale mount cannot be unmounted: {'; '.join(said)}", os.fspath(path))


def prepare(path: Path) -> bool:
    """Make sure that a path can be mounted on; returns whether the directory was made for it.

    Raises
    ------
    OSError
        As :class:`~uzswap.control.fuse.Mount`.
    """
    if is_stale(path):
        _log.warning("%s: the process that had mounted this is gone; taking it over", path)
        take_away(path)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise os_error(errno.EACCES, "a mount needs /dev/fuse: modprobe fuse, or give the container the device")
    there = mounted_type(path)
    if there is not None:
        raise os_error(
            errno.EBUSY, f"{there} is mounted here: choose another directory, or unmount it", os.fspath(path)
        )
    try:
        if any(path.iterdir()):
            raise os_error(
                errno.ENOTEMPTY, "a mount would hide what is in this directory: choose an empty one", str(path)
            )
    except FileNotFoundError:
        path.mkdir(mode=0o700)
        return True
    return False
