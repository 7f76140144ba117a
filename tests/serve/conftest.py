"""Engines with a way in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.serve.doors import Door, open_door
from tests.support.mounts import make_mount_point, unmount

from uzswap import Zswap

NO_FUSE = None
if not os.access("/dev/fuse", os.R_OK | os.W_OK):
    NO_FUSE = "a mount needs /dev/fuse: modprobe fuse, or give the container the device"
elif not shutil.which("fusermount3"):
    NO_FUSE = "a mount needs fusermount3: apt install fuse3"

needs_fuse = pytest.mark.skipif(NO_FUSE is not None, reason=NO_FUSE or "")


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for mounts and sockets; entries of engines go there too.  Nothing stays mounted in it."""
    directory = make_mount_point()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    yield directory
    unmount(directory / "m", fuse=True)
    shutil.rmtree(directory)


@pytest.fixture(params=["python", pytest.param("mount", marks=needs_fuse), "socket"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each way in, in turn."""
    return str(request.param)


@pytest.fixture
def enter(kind: str, private: Path) -> Iterator[Callable[[Zswap], Door]]:
    """``enter(z)`` opens the way in."""
    with ExitStack() as stack:
        yield lambda z: stack.enter_context(open_door(kind, z, private))
