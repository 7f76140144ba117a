"""Fixtures of tests of paged arrays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import uzswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture
def z(engine: EngineFactory) -> Iterator[uzswap.Zswap]:
    """An engine that can have arrays; without userfaultfd the test is skipped."""
    z = engine()
    try:
        z.arena.open()
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")
    yield z
    gc.collect()


@pytest.fixture
def group(z: uzswap.Zswap) -> uzswap.MemCgroup:
    return z.cgroup("/a")
