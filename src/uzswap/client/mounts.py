"""Mount points: what is mounted where, mounting, and taking away, also what a dead process left."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import logging
import os
import socket
import subprocess
from pathlib import Path
from typing import Final

from uzswap.errors import os_error
from uzswap.mountinfo import MountPoint, mount_points
from uzswap.units import is_path

__all__ = ["FSTYPE", "attach", "is_stale", "mounted_on", "mounted_type", "prepare", "take_away"]

_log = logging.getLogger(__name__)

#: in /proc/self/mountinfo
FSTYPE: Final = "fuse.uzswap"
#: include/uapi/linux/mount.h
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mounted_type(path: str | os.PathLike[str]) -> str | None:
    """Return the type of the file system that is mounted at a path; None when nothing is."""
    there = mounted_on(path)
    return None if there is None else there.type


def mounted_on(path: str | os.PathLike[str]) -> MountPoint | None:
    """Return what is mounted at a path, the topmost; None when nothing is.

    It does not touch the file system itself, which may be dead.
    """
    wanted = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(path))), os.path.basename(path))
    found = None
    for point in mount_points():
        if point.path == wanted:
            found = point
    return found


def is_stale(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a mount of uzswap whose process is gone."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED) and mounted_type(path) == FSTYPE
    return False


def take_away(path: str | os.PathLike[str]) -> None:
    """Unmount, also while it is in use.

    Raises
    ------
    OSError
        EPERM: it belongs to somebody else.
    """
    if not _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        return
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
    raise os_error(errno.EPERM, f"this cannot be unmounted: {'; '.join(said)}", os.fspath(path))


def prepare(path: Path) -> bool:
    """Make sure that a path can be mounted on; returns whether the directory was made for it.

    Raises
    ------
    OSError
        As :class:`~uzswap.serve.fuse.Mount`.
    """
    if not is_path(str(path)):
        raise os_error(errno.EINVAL, "a path has no NUL in it, and no characters that stand for no bytes", ascii(path))
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


def attach(path: Path, *, allow_other: bool) -> int:
    """Mount a file system of ours that nobody serves yet; return /dev/fuse, where its requests will be read.

    Raises
    ------
    OSError
        EACCES, EPERM it may not be mounted here; the text says what fusermount3 said.
    """
    device = _attach_directly(path, allow_other=allow_other)
    return _attach_by_helper(path, allow_other=allow_other) if device is None else device


def _attach_directly(path: Path, *, allow_other: bool) -> int | None:
    """Mount as who has CAP_SYS_ADMIN can; None when this process has not."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions"
    if allow_other:
        options += ",allow_other"
    where = os.fsencode(path)
    if not _libc.mount(b"uzswap", where, FSTYPE.encode(), _MS_NOSUID | _MS_NODEV, options.encode()):
        return device
    number = ctypes.get_errno()
    os.close(device)
    if number in (errno.EPERM, errno.EACCES):
        return None
    raise os_error(number, f"this cannot be mounted: {os.strerror(number)}", str(path))


def _attach_by_helper(path: Path, *, allow_other: bool) -> int:
    """Have fusermount3, which is setuid root, mount it; it sends the descriptor through a socket (libfuse does so)."""
    options = "fsname=uzswap,subtype=uzswap,default_permissions,nosuid,nodev" + (",allow_other" if allow_other else "")
    mine, its = socket.socketpair()
    with mine, its:
        try:
            done = subprocess.run(
                ["fusermount3", "-o", options, "--", os.fspath(path)],
                env={**os.environ, "_FUSE_COMMFD": str(its.fileno())},
                pass_fds=[its.fileno()],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError:
            text = "who is not root needs fusermount3 to mount: on Debian, apt install fuse3"
            raise os_error(errno.EPERM, text, str(path)) from None
        its.close()
        if done.returncode:
            raise os_error(errno.EPERM, f"this cannot be mounted: {done.stderr.strip()}", str(path))
        _, received, _, _ = mine.recvmsg(1, socket.CMSG_SPACE(4))
        fds = array.array("i")
        for level, kind, data in received:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[:4])
    if not fds:
        with contextlib.suppress(OSError):
            take_away(path)
        raise os_error(errno.EPROTO, "fusermount3 has sent no descriptor", str(path))
    os.set_inheritable(fds[0], False)
    return fds[0]
