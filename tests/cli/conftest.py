"""Engines that the command finds, and no others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.support.mounts import make_mount_point, unmount

from uzswap import MemCgroup, Zswap
from uzswap.client.runtime import engines

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The runtime directory, empty: short, for the path of a socket has to be."""
    base = Path(tempfile.mkdtemp(prefix="uzswap-cli-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    for name in ("UZSWAP_ENGINE", "UZSWAP_CONFIG", "UZSWAP_SOAK"):
        monkeypatch.delenv(name, raising=False)
    yield base / "uzswap"
    engines()  # takes away what killed programs have left mounted
    shutil.rmtree(base)


@pytest.fixture
def z(engine: EngineFactory) -> Zswap:
    """An engine that is served."""
    z = engine(max_pool="64M")
    z.serve()
    return z


@pytest.fixture
def filled() -> Iterator[Callable[[Zswap, str], MemCgroup]]:
    """``filled(z, path)`` makes a cgroup with 2048 entries that do not compress, 8 MiB, in zswap."""
    data = np.random.default_rng(7).integers(0, 60, 2048 * 4096, dtype=np.uint8)
    held = []

    def fill(z: Zswap, path: str) -> MemCgroup:
        cgroup = z.cgroup(path)
        held.append((z, z.swap_out_many(data, cgroup)))
        return cgroup

    yield fill
    for z, handles in held:
        if not z.core.closed:
            z.free_many(handles)


@pytest.fixture
def mount_point() -> Iterator[Path]:
    """A place to mount on."""
    directory = make_mount_point()
    yield directory
    unmount(directory, fuse=True)
