"""Above the bounds the least recently used values are dropped, and nothing else is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.caches.mappings import Dropped, run

from uzswap import Store, Zswap
from uzswap.caches import Bounded
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

KEYS = st.integers(0, 40)


@pytest.fixture
def store(engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    with Store[Any, Any](engine().cgroup("/a")) as store:
        yield store


class BoundedMachine(RuleBasedStateMachine):
    """Against a dict, of which the cache may have dropped what was used longest ago, as it has told."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.z = Zswap(swap=str(Path(self.directory.name) / "swap"), swap_size="64M")
        self.store: Store[int, bytes] = Store(self.z.cgroup("/a"))
        self.dropped = Dropped()
        self.cache = Bounded(self.store, memory="256K", disk="128K", on_evict=self.dropped)
        #: the least recently used first
        self.model: dict[int, bytes] = {}

    def teardown(self) -> None:
        self.z.close()
        self.directory.cleanup()

    def follow(self, but: int | None = None) -> None:
        """Drop in the model what was dropped, which has to be what was used longest ago."""
        for key, value, reason in self.dropped.take():
            assert reason == "full"
            assert key == next(one for one in self.model if one != but)
            expected = self.model.pop(key)
            assert value is None or value == expected

    def use(self, key: int) -> None:
        self.model[key] = self.model.pop(key)

    @rule(key=KEYS, size=st.integers(0, 60_000), random=st.booleans())
    def set(self, key: int, size: int, random: bool) -> None:
        value = os.urandom(size) if random else bytes([key]) * size
        self.cache[key] = value
        self.follow(key)
        self.model.pop(key, None)
        self.model[key] = value

    @rule(key=KEYS)
    def a_value_that_can_never_fit(self, key: int) -> None:
        with pytest.raises(MemoryError):
            self.cache[key] = bytes(300_000)
        assert not self.dropped
        if key in self.model:
            self.use(key)

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        assert self.cache.get(key) == self.model.get(key)
        if key in self.model:
            self.use(key)

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        assert self.cache.pop(key, None) == self.model.pop(key, None)

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        assert self.cache.discard(key) == (key in self.model)
        self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @rule()
    def reclaim(self) -> None:
        self.store.reclaim(1 << 20)

    @rule()
    def trim(self) -> None:
        self.cache.trim()
        self.follow()
        assert self.store.cgroup.usage() <= 256 << 10

    @invariant()
    def agrees(self) -> None:
        assert set(self.cache) == set(self.model)
        assert len(self.cache) == len(self.model)
        assert self.store.cgroup.stats()["uzswap.disk"] <= 128 << 10
        self.cache.check()


TestBoundedAgainstDict = pytest.mark.slow(BoundedMachine.TestCase)
TestBoundedAgainstDict.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)


def test_nothing_goes_to_the_disk_where_its_bound_is_zero(store: Store[Any, Any]) -> None:
    dropped = Dropped()
    cache = Bounded(store, memory="1M", disk=0, on_evict=dropped)
    for key in range(100):
        cache[key] = os.urandom(40_000)
        assert store.cgroup.usage() <= 1 << 20
    assert store.stats()["disk_bytes"] == 0
    kept = list(cache)
    assert [key for key, _, _ in dropped] + kept == list(range(100))
    assert len(kept) > 15


def test_values_are_compressed_before_any_is_dropped(store: Store[Any, Any]) -> None:
    dropped = Dropped()
    cache = Bounded(store, memory="1M", disk=0, on_evict=dropped)
    for key in range(100):
        cache[key] = [f"{key}: line {i}" for i in range(500)]  # 30 KB each, of which a tenth is left
    assert dropped == []
    assert all(cache[key][0] == f"{key}: line 0" for key in range(100))


def test_reading_decides_what_is_dropped(store: Store[Any, Any]) -> None:
    cache = Bounded(store, memory="1M", disk=0)
    for key in range(60):
        cache[key] = os.urandom(40_000)
        assert len(cache[0]) == 40_000
    assert 0 in cache
    assert 1 not in cache


def test_reading_many_at_once_is_a_use_of_each(store: Store[Any, Any]) -> None:
    cache = Bounded(store, memory="1M", disk=0)
    for key in range(60):
        cache[key] = os.urandom(40_000)
        assert len(cache.get_many([0, -1])) == 1
    assert 0 in cache


def test_the_disk_is_filled_to_its_bound_before_values_are_dropped(store: Store[Any, Any]) -> None:
    dropped = Dropped()
    cache = Bounded(store, memory="1M", disk="1M", on_evict=dropped)
    for key in range(100):
        cache[key] = os.urandom(40_000)
        assert store.stats()["disk_bytes"] <= 1 << 20
    assert store.stats()["disk_bytes"] > 1 << 19
    assert len(cache) > 40
    assert [key for key, _, _ in dropped] == list(range(len(dropped)))


def test_who_lowers_the_limit_lowers_the_bound(store: Store[Any, Any]) -> None:
    cache = Bounded(store, memory="2M", disk=0)
    for key in range(40):
        cache[key] = os.urandom(40_000)
    store.cgroup.write("memory.max", "512K")
    assert cache.memory == 512 << 10
    assert cache.trim() > 0
    assert store.cgroup.usage() <= 512 << 10
    assert 39 in cache


def test_what_was_there_before_is_dropped_first(store: Store[Any, Any]) -> None:
    for key in range(40):
        store[key] = os.urandom(40_000)
    cache = Bounded(store, memory="1M", disk=0)
    assert store.cgroup.usage() <= 1 << 20
    assert 0 not in cache
    assert 39 in cache


def test_bad_bounds_change_nothing(store: Store[Any, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Bounded(store, memory="much")
    with pytest.raises(InvalidArgumentError):
        Bounded(store, memory="1M", disk=-1)
    with pytest.raises(TypeError, match=r"no uzswap\.Store"):
        Bounded({}, memory="1M")
    assert store.cgroup.read("memory.max") == "max\n"
    assert store.cgroup.read("memory.zswap.writeback") == "1\n"


def test_threads_share_the_bounds(store: Store[Any, Any]) -> None:
    dropped = Dropped()
    cache = Bounded(store, memory="256K", disk=0, on_evict=dropped)

    def work(me: int) -> None:
        for step in range(60):
            key = me, step % 20
            cache[key] = me.to_bytes(2, "big") + os.urandom(10_000)
            value = cache.get((step % 3, step % 20))
            assert value is None or value[:2] == (step % 3).to_bytes(2, "big")
            if step % 7 == 0:
                cache.discard(key)

    run(*(lambda me=me: work(me) for me in range(3)))
    cache.check()
    assert store.cgroup.usage() <= 256 << 10
    assert dropped


def test_what_is_pinned_is_not_dropped(store: Store[Any, Any]) -> None:
    cache = Bounded(store, memory="256K", disk=0)
    cache["pinned"] = os.urandom(20_000)
    cache.pin("pinned")
    for number in range(40):
        cache[number] = os.urandom(20_000)
    assert "pinned" in cache
    assert 0 not in cache
    assert cache.info("pinned").pinned
    assert cache.evict("pinned") == 0
    cache.unpin("pinned")
    for number in range(40, 80):
        cache[number] = os.urandom(20_000)
    assert "pinned" not in cache
    with pytest.raises(KeyError):
        cache.pin("pinned")
    cache.check()


def test_where_all_is_pinned_there_is_no_room(store: Store[Any, Any]) -> None:
    cache = Bounded(store, memory="256K", disk=0)
    for number in range(8):
        cache[number] = os.urandom(28_000)
        cache.pin(number)
    with pytest.raises(MemoryError):
        cache["more"] = os.urandom(60_000)
    assert set(cache) == set(range(8))
    cache.check()
