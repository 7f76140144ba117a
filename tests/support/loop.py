"""Real block devices: loop devices over files, more nodes for them, and file systems on them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .mounts import make_mount_point, unmount


@contextmanager
def loop_device(image: Path, nbytes: int | None = None) -> Iterator[str]:
    """The block device over a file, which is made, full of holes, when a size is given.

    Skips the test, with the way to enable it, where there are none.
    """
    if os.geteuid() != 0:
        pytest.skip("loop devices need root: run the tests as root")
    if nbytes is not None:
        with image.open("wb") as file:
            file.truncate(nbytes)
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices ({done.stderr.strip()}): modprobe loop; in a container --privileged -v /dev:/dev")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def second_node(device: str, path: Path) -> Path:
    """Another name of a block device, as containers get them."""
    try:
        os.mknod(path, 0o600 | 0o060000, os.stat(device).st_rdev)
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError as error:
        pytest.skip(f"{error}: mount {path.parent} without nodev, and in a container add --cap-add MKNOD")
    return path


def make_file_system(device: str) -> subprocess.CompletedProcess[str]:
    """Run mkfs.ext4 as a person would, who overlooks its questions."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4: apt install e2fsprogs")
    return subprocess.run(["mkfs.ext4", "-q", "-F", device], capture_output=True, text=True, check=False)


@contextmanager
def mounted(device: str) -> Iterator[Path]:
    """The file system on a device; CalledProcessError when it cannot be mounted."""
    where = make_mount_point()
    try:
        subprocess.run(["mount", device, where], capture_output=True, text=True, check=True)
        yield where
    finally:
        unmount(where)
