"""What a value is charged and when, and that no copy of a large one is made on its way."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import counters, evict, noise, packed

from uzswap import Store
from uzswap.store.arena import Memory

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

MIB = 1 << 20


def test_growth_in_place_is_seen_when_told(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["a"] = []
        before = store.resident_bytes
        store["a"].extend(float(i) for i in range(10_000))
        assert store.resident_bytes == before
        assert store.reweigh() == store.resident_bytes == counters(cgroup)["anon"] > 300_000
        store["a"].clear()
        assert store.reweigh() == counters(cgroup)["anon"] == before
        store["a"] += [float(i) for i in range(10_000)]  # sets it again
        assert store.resident_bytes == counters(cgroup)["anon"] > 300_000
        cgroup.write("memory.max", "1M")
        store["a"].append(bytearray(2 * MIB))
        with pytest.raises(MemoryError):
            store.reweigh()
        assert store.resident_bytes == counters(cgroup)["anon"] < MIB


def test_growth_in_place_is_seen_by_reclaim(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["a"] = []
        store["a"].extend(float(i) for i in range(10_000))
        evict(store)
        assert store.resident_bytes == counters(cgroup)["anon"] == 0
        assert store["a"][-1] == 9999.0
        assert store.resident_bytes == counters(cgroup)["anon"] > 300_000


def test_setting_the_same_object_again_charges_its_growth_only(engine: EngineFactory) -> None:
    z = engine(swap=None)
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "1M")
    with Store[str, Any](cgroup) as store:
        store["a"] = noise(600_000)
        for _ in range(5):
            store["a"] += noise(50_000)
        assert len(store["a"]) == 850_000
        assert store.resident_bytes == counters(cgroup)["anon"] < MIB
        del store["a"][100:]
        store["a"] = store["a"]
        assert store.resident_bytes == counters(cgroup)["anon"] < 900_000


def test_shared_data_is_charged_but_not_counted_as_freed(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        data = bytes(noise(500_000))
        store["a"] = [bytearray(3 * MIB), data]
        assert store.resident_bytes > 3 * MIB + 500_000
        evict(store)
        assert store.stats()["packed_bytes"] < 3 * MIB + 1000
        assert store["a"][1] == data
        store["b"] = [data]
        evict(store)
        assert packed(store) == ["a"]


def test_a_loaded_array_has_the_weight_it_had(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = np.arange(100_000)
        weight = store.resident_bytes
        for _ in range(3):
            evict(store)
            store["a"]
            assert weight <= store.resident_bytes < weight + 1000
            assert weight <= store.reweigh() < weight + 1000


def test_a_large_array_is_loaded_into_the_memory_it_keeps(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = np.arange(100_000)
        evict(store)
        base = store["a"].base
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, Memory)
        assert len(base) == 800_000
        assert store["a"].flags.writeable


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(2_000_000),
        lambda: bytes(noise(16_000_000)),
        lambda: noise(16_000_000),
        lambda: {"a": np.arange(1_000_000), "b": [bytes(noise(8_000_000))]},
    ],
    ids=["array", "bytes", "bytearray", "both in a dict"],
)
def test_large_values_are_copied_once_each_way(engine: EngineFactory, make: Callable[[], Any]) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = make()
        size = store.resident_bytes
        tracemalloc.start()
        try:
            evict(store)
            assert tracemalloc.get_traced_memory()[1] < size / 10  # straight from the value's memory
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            value = store["a"]
            assert tracemalloc.get_traced_memory()[1] - before < size * 1.1  # straight into the new value's
        finally:
            tracemalloc.stop()
        assert store.where("a") == "resident"
        assert type(value) is type(make())
