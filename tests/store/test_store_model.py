"""A store does what a dict does, however often and in whatever way it is reclaimed from in between."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.store.values import counters, noise

from uzswap import ReclaimIncomplete, Store, Zswap

KEYS = st.one_of(st.integers(0, 5), st.sampled_from(["a", "b"]), st.tuples(st.integers(0, 1), st.booleans()))
#: What a value is made of.  It is made twice, once for the store and once for the model: neither holds the other's.
RECIPES = st.one_of(
    st.tuples(st.sampled_from(["bytes", "noise", "floats", "records", "array", "nested"]), st.integers(0, 9000)),
    st.tuples(st.sampled_from(["None", "small", "function"]), st.integers(0, 3)),
)
LIMITS = ["max", "2M", "256K", "64K"]


def function() -> None:
    """Pickled by name."""


def make(recipe: tuple[str, int]) -> Any:
    kind, n = recipe
    match kind:
        case "bytes":
            return bytes(bytearray(n * 10))
        case "noise":
            return bytes(noise(n * 10))
        case "floats":
            return [float(i) for i in range(n)]
        case "records":
            return [{"name": f"name {i}", "n": i, "none": None} for i in range(n // 20)]
        case "array":
            return np.arange(n * 3, dtype=np.float32)
        case "nested":
            return {"n": n, "deep": [([n, float(n)], {"x": {n, n + 1}})], "array": [np.arange(n) for _ in range(3)]}
        case "small":
            return [n]
        case "function":
            return [function] * n
    return None


def same(one: Any, other: Any) -> bool:
    if isinstance(other, np.ndarray):
        return type(one) is np.ndarray and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(other, dict):
        return isinstance(one, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in other)
    if isinstance(other, list):
        return isinstance(one, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.z = Zswap(swap=str(Path(self.directory.name) / "swap"), swap_size="64M")
        self.cgroup = self.z.cgroup("/jobs/a")
        self.store: Store[Any, Any] = Store(self.cgroup)
        self.model: dict[Any, Any] = {}
        self.held: dict[Any, Any] = {}

    def teardown(self) -> None:
        self.held.clear()
        self.store.close()
        assert counters(self.cgroup)["current"] == 0
        self.z.flush_work()
        self.z.check()
        self.z.close()
        self.directory.cleanup()

    def limited(self) -> Any:
        """What memory.max may forbid."""
        return contextlib.suppress(MemoryError)

    @rule(key=KEYS, recipe=RECIPES)
    def set(self, key: Any, recipe: tuple[str, int]) -> None:
        with self.limited():
            self.store[key] = make(recipe)
            self.model[key] = make(recipe)
            self.held.pop(key, None)

    @rule(key=KEYS, recipe=RECIPES)
    def setdefault(self, key: Any, recipe: tuple[str, int]) -> None:
        with self.limited():
            assert same(self.store.setdefault(key, make(recipe)), self.model.get(key, make(recipe)))
            self.model.setdefault(key, make(recipe))

    @rule(key=KEYS)
    def get(self, key: Any) -> None:
        with self.limited():
            assert same(self.store.get(key), self.model.get(key))

    @rule(key=KEYS)
    def getitem(self, key: Any) -> None:
        with self.limited():
            try:
                value = self.store[key]
            except KeyError:
                assert key not in self.model
            else:
                assert same(value, self.model[key])

    @rule(key=KEYS)
    def pop(self, key: Any) -> None:
        assert same(self.store.pop(key, None), self.model.pop(key, None))
        self.held.pop(key, None)

    @precondition(lambda self: self.model)
    @rule()
    def popitem(self) -> None:
        key, value = self.store.popitem()
        expected_key, expected = self.model.popitem()
        assert key == expected_key
        assert same(value, expected)
        self.held.pop(key, None)

    @rule(key=KEYS)
    def discard(self, key: Any) -> None:
        assert self.store.discard(key) == (key in self.model)
        self.model.pop(key, None)
        self.held.pop(key, None)

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()
        self.held.clear()

    @rule(key=KEYS)
    def hold(self, key: Any) -> None:
        """Keep a reference, through which the value may be changed later."""
        with self.limited():
            if isinstance(self.model.get(key), (list, dict)):
                self.held[key] = self.store[key]

    @rule()
    def let_go(self) -> None:
        self.held.clear()

    @rule(key=KEYS)
    def change_through_what_is_held(self, key: Any) -> None:
        for value in (self.held.get(key), self.model.get(key) if key in self.held else None):
            if isinstance(value, list):
                value.append("changed")
            elif isinstance(value, dict):
                value["changed"] = [1]

    @rule(key=KEYS)
    def change_in_place(self, key: Any) -> None:
        if isinstance(self.model.get(key), list):
            with self.limited():
                self.store[key].append([key])
                self.model[key].append([key])

    @rule(nbytes=st.integers(0, 1 << 18))
    def reclaim_from_the_store(self, nbytes: int) -> None:
        self.store.reclaim(nbytes)

    @rule(nbytes=st.integers(0, 1 << 18), source=st.sampled_from([None, "zswap"]))
    def memory_reclaim(self, nbytes: int, source: str | None) -> None:
        with contextlib.suppress(ReclaimIncomplete):
            self.cgroup.reclaim(nbytes, source=source)

    @rule(name=st.sampled_from(["memory.max", "memory.high"]), limit=st.sampled_from(LIMITS), parent=st.booleans())
    def limit(self, name: str, limit: str, parent: bool) -> None:
        (self.z.cgroup("/jobs") if parent else self.cgroup).write(name, limit)

    @rule(name=st.sampled_from(["memory.zswap.max", "memory.swap.max"]), limit=st.sampled_from(["max", "64K", "0"]))
    def swap_limit(self, name: str, limit: str) -> None:
        self.cgroup.write(name, limit)

    @rule(compressor=st.sampled_from(["lz4", "zstd"]))
    def compressor(self, compressor: str) -> None:
        self.z.parameters.set("compressor", compressor)

    @rule()
    def reweigh(self) -> None:
        with self.limited():
            self.store.reweigh()

    @invariant()
    def agrees(self) -> None:
        self.z.flush_work()
        assert list(self.store) == list(self.model)
        stats = self.store.stats()
        memory = counters(self.cgroup)
        assert memory["anon"] == self.store.resident_bytes == stats["resident_bytes"]
        assert memory["zswap"] == stats["zswap_bytes"]
        assert stats["values"] == stats["resident"] + stats["packed"] == len(self.model)
        for key, value in self.held.items():
            assert self.store.where(key) == "resident"
            assert same(value, self.model[key])
        self.z.check()
        self.store.check()


TestStoreAgainstDict = pytest.mark.slow(StoreMachine.TestCase)
TestStoreAgainstDict.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
