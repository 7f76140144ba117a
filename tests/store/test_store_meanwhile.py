"""What is done to a value while it is on its way out or back: values act while they are pickled and unpickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import Acting, counters, evict, noise, packed

from uzswap import Store

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def test_an_access_during_eviction_wins(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_save=lambda: store["a"])
        evict(store)
        assert store.where("a") == "resident"
        assert store.stats()["evicted"] == 0
        store["a"].on_save = None
        evict(store)
        assert store.where("a") == "zswap"


def test_a_new_value_during_eviction_wins(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_save=lambda: store.__setitem__("a", [5]))
        store.reclaim(1)
        assert store["a"] == [5]


@pytest.mark.parametrize("away", ["del", "pop", "clear", "close"])
def test_a_deletion_during_eviction_wins(engine: EngineFactory, away: str) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    popped = []
    with Store[str, Any](cgroup) as store:
        actions: dict[str, Callable[[], Any]] = {
            "del": lambda: store.__delitem__("a"),
            "pop": lambda: popped.append(store.pop("a")),
            "clear": lambda: store.clear(),
            "close": lambda: store.close(),
        }
        store["a"] = Acting(on_save=actions[away])
        assert store.reclaim(1).freed_bytes == 0
        assert counters(cgroup)["current"] == 0
        assert len(popped) == (away == "pop")
        if away != "close":
            assert "a" not in store
            store["a"] = 1
    z.check()


def test_reclaim_from_within_an_eviction(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_save=lambda: evict(store))
        store["b"] = noise(10_000)
        evict(store)
        assert packed(store) == ["a", "b"]
        assert len(store["a"].payload) == 10_000


def test_an_eviction_may_use_the_store(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_save=lambda: store.update(b=[1] * 100, c=store["d"]))
        store["d"] = noise(10_000)
        evict(store)
        assert store["b"] == [1] * 100
        assert store["c"] == noise(10_000)


def test_a_deletion_during_a_load_takes_effect(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        for away in (lambda: store.__delitem__("a"), store.clear, lambda: store.discard("a")):
            store["a"] = Acting(on_load=away)
            evict(store)
            assert isinstance(store["a"], Acting)
            assert "a" not in store
            assert counters(cgroup)["current"] == 0


def test_a_new_value_during_a_load_stays(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_load=lambda: store.__setitem__("a", [5]))
        evict(store)
        assert isinstance(store["a"], Acting)
        assert store["a"] == [5]
        store["b"] = Acting(on_load=lambda: store.__setitem__("b", [6]))
        evict(store)
        assert store.pop("b") == [6]
        assert "b" not in store


def test_closing_the_store_during_a_load(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    store = Store[str, Any](cgroup)
    store["a"] = Acting(on_load=store.close)
    evict(store)
    assert isinstance(store["a"], Acting)
    assert counters(cgroup)["current"] == 0
    cgroup.remove()


def test_a_value_that_needs_itself(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_load=lambda: store["a"])
        evict(store)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"'a'.*needs itself"):
                store["a"]
            assert store.where("a") == "zswap"


def test_a_load_that_fails_half_way_loses_nothing(engine: EngineFactory) -> None:
    failures = [KeyError("first"), ValueError("second")]

    def fail() -> None:
        if failures:
            raise failures.pop(0)

    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["a"] = [noise(300_000), np.arange(100_000), Acting(on_load=fail)]
        store["b"] = [1]
        evict(store)
        with pytest.raises(KeyError, match="first") as info:
            store.get("a", "the KeyError is not this key's absence")
        assert info.value.__notes__ == ["in the store of /a, while loading the value of 'a': it is kept"]
        with pytest.raises(ValueError, match="second"):
            store.pop("a")
        assert store.where("a") == "zswap"
        assert counters(cgroup)["anon"] == store.resident_bytes
        first, second, _ = store["a"]
        assert first == noise(300_000)
        assert np.array_equal(second, np.arange(100_000))
        z.check()
