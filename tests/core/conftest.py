"""What tests of the data plane share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from uzswap.core.boundary import engine as core

MIB = 1 << 20


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[core.Engine]:
    fd = os.open(tmp_path / "swap", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    os.ftruncate(fd, 64 * MIB)
    engine = core.Engine()
    assert engine.attach_device(fd, 64 * MIB, True) == 0
    yield engine
    assert engine.check() == []
    engine.close()
    os.close(fd)
