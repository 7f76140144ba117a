"""A disk that is really full after so many bytes: a tmpfs of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .mounts import make_mount_point, unmount


@contextmanager
def small_tmpfs(nbytes: int, owner: int = 0) -> Iterator[Path]:
    """An empty directory of a user's that holds `nbytes` (rounded up to pages) and then gives ENOSPC.

    Skips the test where mounting is not allowed.  Unmounted at the end, also when files in it are still open.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root: run the tests as root")
    where = make_mount_point()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes},mode=0700,uid={owner},nosuid,nodev", "tmpfs", str(where)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a tmpfs ({done.stderr.strip()}): in a container add --cap-add SYS_ADMIN")
        yield where
    finally:
        unmount(where)


def use_up(where: Path) -> Path:
    """Fill what is left with a file; return the file."""
    filler = where / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:  # ENOSPC
        return filler
    finally:
        os.close(fd)
