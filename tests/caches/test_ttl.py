"""Values are gone when their time has come, and not before."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.caches.mappings import PATIENCE, Clock, Dropped, run

from uzswap import Store, Zswap
from uzswap.caches import TTL, Bounded
from uzswap.errors import InvalidArgumentError

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

KEYS = st.integers(0, 8)
TTLS = st.one_of(st.none(), st.integers(1, 20).map(float))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    with Store[Any, Any](engine().cgroup("/a")) as store:
        yield store


class TTLMachine(RuleBasedStateMachine):
    """Against a dict of values and times, over a store that is reclaimed from."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.z = Zswap(swap=str(Path(self.directory.name) / "swap"), swap_size="64M")
        self.store: Store[int, list[int]] = Store(self.z.cgroup("/a"))
        self.clock = Clock()
        self.dropped = Dropped()
        self.ttl = TTL(self.store, 10.0, clock=self.clock, on_evict=self.dropped)
        self.model: dict[int, tuple[int, float]] = {}
        self.told: list[int] = []
        self.serial = 0

    def teardown(self) -> None:
        self.z.close()
        self.directory.cleanup()

    def live(self) -> list[int]:
        return [key for key, (_, at) in self.model.items() if at > self.clock.now]

    def value(self, key: int) -> list[int]:
        return [key, self.model[key][0]] * 500

    def forget_expired(self, key: int) -> None:
        if key in self.model and self.model[key][1] <= self.clock.now:
            del self.model[key]

    @rule(key=KEYS, ttl=TTLS)
    def set(self, key: int, ttl: float | None) -> None:
        self.serial += 1
        self.ttl.set(key, [key, self.serial] * 500, ttl)
        self.forget_expired(key)
        self.model[key] = self.serial, math.inf if ttl is None else self.clock.now + ttl

    @rule(key=KEYS)
    def setitem(self, key: int) -> None:
        self.serial += 1
        self.ttl[key] = [key, self.serial] * 500
        self.forget_expired(key)
        self.model[key] = self.serial, self.clock.now + 10

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        assert self.ttl.get(key) == (self.value(key) if key in self.live() else None)

    @rule(key=KEYS)
    def setdefault(self, key: int) -> None:
        self.serial += 1
        found = self.ttl.setdefault(key, [key, self.serial] * 500)
        if key not in self.live():
            self.forget_expired(key)
            self.model[key] = self.serial, self.clock.now + 10
        assert found == self.value(key)

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: int, ttl: float | None) -> None:
        if key in self.live():
            self.ttl.touch(key, ttl)
            self.model[key] = self.model[key][0], math.inf if ttl is None else self.clock.now + ttl
        else:
            with pytest.raises(KeyError):
                self.ttl.touch(key, ttl)

    @rule(key=KEYS)
    def pop(self, key: int) -> None:
        expected = self.value(key) if key in self.live() else None
        assert self.ttl.pop(key, None) == expected
        self.model.pop(key, None)

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        assert self.ttl.discard(key) == (key in self.live())
        self.model.pop(key, None)

    @precondition(lambda self: self.live())
    @rule()
    def popitem(self) -> None:
        key = self.live()[-1]
        assert self.ttl.popitem() == (key, self.value(key))
        del self.model[key]

    @rule()
    def clear(self) -> None:
        self.ttl.clear()
        self.model.clear()

    @rule(seconds=st.integers(0, 15))
    def time_goes_by(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def reclaim(self) -> None:
        self.store.reclaim(1 << 20)

    @rule()
    def count(self) -> None:
        """``len`` drops what has expired; so nothing else is below any more."""
        assert len(self.ttl) == len(self.live()) == len(self.store)

    @invariant()
    def agrees(self) -> None:
        assert list(self.ttl) == self.live()
        assert [key for key in range(9) if key in self.ttl] == sorted(self.live())
        for key in self.live():
            left = self.model[key][1] - self.clock.now
            assert self.ttl.expires_in(key) == (None if left == math.inf else left)
        for key, value, reason in self.dropped.take():
            assert reason == "expired"
            assert value is None or value[0] == key
        self.ttl.check()


TestTTLAgainstDict = pytest.mark.slow(TTLMachine.TestCase)
TestTTLAgainstDict.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_value_is_dropped_and_told_of_when_it_is_asked_for(store: Store[Any, Any], clock: Clock) -> None:
    dropped = Dropped()
    ttl = TTL(store, 10, clock=clock, on_evict=dropped)
    ttl["a"] = ["value"]
    clock.now += 9.999
    assert ttl["a"] == ["value"]
    clock.now += 0.001
    with pytest.raises(KeyError):
        ttl["a"]
    assert dropped == [("a", ["value"], "expired")]
    assert "a" not in store


def test_many_at_once_are_those_that_have_not_expired(store: Store[Any, Any], clock: Clock) -> None:
    ttl = TTL(store, 10, clock=clock)
    ttl["a"] = 1
    ttl.set("b", 2, ttl=20)
    clock.now += 10
    assert ttl.get_many("abc") == {"b": 2}


def test_a_value_that_would_have_to_be_loaded_is_told_of_as_none(store: Store[Any, Any], clock: Clock) -> None:
    dropped = Dropped()
    ttl = TTL(store, 10, clock=clock, on_evict=dropped)
    ttl["a"] = ["value"] * 1000
    store.reclaim(1 << 20)
    clock.now += 10
    assert len(ttl) == 0
    assert dropped == [("a", None, "expired")]
    assert store.stats()["loaded"] == 0


def test_sets_drop_what_has_expired_a_few_at_a_time(store: Store[Any, Any], clock: Clock) -> None:
    ttl = TTL(store, 10, clock=clock)
    for key in range(100):
        ttl[key] = key
    clock.now += 10
    ttl["new"] = 1
    left = len(store)
    assert 90 < left < 100
    for _ in range(50):
        ttl["new"] = 1
    assert list(store) == ["new"]


def test_what_is_replaced_and_deleted_is_not_told(store: Store[Any, Any], clock: Clock) -> None:
    dropped = Dropped()
    ttl = TTL(store, 10, clock=clock, on_evict=dropped)
    ttl["a"] = 1
    ttl["a"] = 2
    del ttl["a"]
    ttl["b"] = 1
    ttl.clear()
    clock.now += 100
    assert len(ttl) == 0
    assert dropped == []


def test_a_set_that_fails_leaves_the_value_and_its_time(store: Store[Any, Any], clock: Clock) -> None:
    ttl = TTL(store, 10, clock=clock)
    ttl["a"] = b"small"
    store.cgroup.write("memory.max", "64K")
    with pytest.raises(MemoryError):
        ttl.set("a", list(range(100_000)), 1000)
    assert ttl["a"] == b"small"
    assert ttl.expires_in("a") == 10


def test_an_interrupted_set_leaves_no_value_that_lives_for_ever(clock: Clock) -> None:
    class Interrupted(dict[str, int]):
        def __setitem__(self, key: str, value: int) -> None:
            super().__setitem__(key, value)
            raise KeyboardInterrupt

    ttl = TTL(Interrupted(), 10, clock=clock)
    with pytest.raises(KeyboardInterrupt):
        ttl["a"] = 1
    ttl.check()
    assert ttl["a"] == 1
    clock.now += 10
    assert "a" not in ttl
    assert len(ttl) == 0


@pytest.mark.parametrize("ttl", [0, -1, math.nan, -math.inf])
def test_a_time_to_live_is_above_zero(store: Store[Any, Any], ttl: float) -> None:
    with pytest.raises(InvalidArgumentError, match="give seconds above 0"):
        TTL(store, ttl)
    mapping = TTL(store, 1)
    with pytest.raises(InvalidArgumentError):
        mapping.set("a", 1, ttl)
    assert "a" not in mapping


def test_what_a_layer_below_drops_leaves_no_deadline_behind(engine: EngineFactory, clock: Clock) -> None:
    with Store[int, bytes](engine().cgroup("/a")) as store:
        ttl = TTL(Bounded(store, memory="256K", disk=0), 1e9, clock=clock)
        for key in range(200):
            ttl[key] = os.urandom(8000)
        assert len(store) < 100
        assert len(ttl._deadlines) == len(store)
        ttl.check()


def test_a_setter_and_those_who_see_it_expire_do_not_lose_the_new_value(store: Store[Any, Any], clock: Clock) -> None:
    """Whoever meets the expired value while it is replaced does not drop the new one."""
    ttl = TTL(store, 10, clock=clock)
    for _ in range(30):
        ttl["a"] = "old"
        clock.now += 10
        start = threading.Barrier(4)

        def set_it(start: threading.Barrier = start) -> None:
            start.wait(PATIENCE)
            ttl["a"] = "new"

        def look(start: threading.Barrier = start) -> None:
            start.wait(PATIENCE)
            for _ in range(20):
                assert ttl.get("a") in (None, "new")
                len(ttl)

        run(set_it, look, look, look)
        assert ttl["a"] == "new"
        ttl.check()


def test_threads_set_expire_and_delete_the_same_keys(store: Store[Any, Any], clock: Clock) -> None:
    dropped = Dropped()
    ttl = TTL(store, 5, clock=clock, on_evict=dropped)

    def work(seed: int) -> None:
        for step in range(300):
            key = (step * seed) % 7
            match step % 5:
                case 0 | 1:
                    ttl.set(key, [key] * 50, 1 + step % 9)
                case 2:
                    value = ttl.get(key)
                    assert value is None or value == [key] * 50
                case 3:
                    ttl.discard(key)
                case _:
                    clock.now += 1
                    store.reclaim(4096)

    run(*(lambda seed=seed: work(seed) for seed in (1, 2, 3)))
    ttl.check()
    clock.now += 100
    assert len(ttl) == len(store) == 0
    assert all(reason == "expired" for _, _, reason in dropped)
