"""What objects of other libraries have in common: found again by what they are in, and by a token."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

import uzswap
from uzswap.caches import Bounded
from uzswap.caches.contents import contents_of, recall

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def test_contents_are_found_again_as_long_as_somebody_has_them(engine: EngineFactory) -> None:
    group = engine().cgroup("/a")
    one = contents_of("zarr", group)
    assert contents_of("zarr", group) is one
    assert contents_of("joblib", group) is not one
    assert recall(os.getpid(), one.token) is one
    assert recall(os.getpid() + 1, one.token) is None
    token = one.token
    one.mapping["a"] = b"1"
    del one
    gc.collect()
    assert recall(os.getpid(), token) is None
    assert "a" not in contents_of("zarr", group).mapping


def test_of_a_mapping_the_mapping_is_used(engine: EngineFactory) -> None:
    mapping = Bounded(uzswap.Store[str, bytes](engine().cgroup("/a")), memory="1M")
    contents = contents_of("zarr", mapping)
    assert contents.mapping is mapping
    assert contents_of("zarr", mapping) is contents
    mapping["a/b"] = b"123"
    assert contents.size("a/b") == 3
    assert contents.keys("a/") == ["a/b"]
    contents.discard(["a/b", "a/c"])
    assert len(mapping) == 0


@pytest.mark.parametrize("size", [1, 63, 70_000])
def test_the_size_of_a_value_is_told_wherever_it_is(engine: EngineFactory, size: int) -> None:
    contents = contents_of("zarr", engine().cgroup("/a"))
    store = contents.mapping
    assert isinstance(store, uzswap.Store)
    store["a"] = os.urandom(size)
    assert contents.size("a") == size
    store.evict("a")
    assert contents.size("a") == size
    assert store.where("a") != "resident"
    with pytest.raises(KeyError):
        contents.size("b")
