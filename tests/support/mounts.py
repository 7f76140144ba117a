"""Mount points made by tests: where they are put, and taking them away again whatever happened."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from uzswap import mountinfo

#: Starts the name of every mount point of this process, so that the leak check can tell them from other people's.
PREFIX = f"uzswap-test-{os.getpid()}-"


def make_mount_point() -> Path:
    """A new private directory to mount on; remove it with :func:`unmount`."""
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def mount_points() -> list[str]:
    """Every mount point of this process's mount namespace."""
    return [point.path for point in mountinfo.mount_points()]


def unmount(where: Path, fuse: bool = False) -> None:
    """Take away what is mounted on `where`, lazily when it is busy, and the directory itself.

    Does nothing for what is gone already.  RuntimeError when it stays mounted.
    """
    tool = ["fusermount3", "-u"] if fuse and shutil.which("fusermount3") else ["umount"]
    lazy = "-z" if tool[0] == "fusermount3" else "-l"
    said = ""
    for command in ([*tool, str(where)], [*tool, lazy, str(where)]):
        if str(where) not in mount_points():
            break
        said += subprocess.run(command, capture_output=True, text=True, check=False).stderr
    if str(where) in mount_points():
        raise RuntimeError(f"{where} cannot be unmounted: {said.strip()}")
    with contextlib.suppress(FileNotFoundError):
        where.rmdir()
