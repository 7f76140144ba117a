"""The store as a mapping, whatever is resident at the time."""

from __future__ import annotations

import copy
import errno
import gc
import pickle
import random
import string
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import counters, evict, noise

import uzswap
from uzswap import Store

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

SITUATIONS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "plenty of memory": ({}, {}),
    "hardly any memory": ({}, {"memory.max": "64K"}),
    "zswap is full": ({"max_pool": "4K"}, {"memory.max": "64K"}),
    "no device": ({"swap": None}, {"memory.high": "64K"}),
    "zstd": ({"compressor": "zstd"}, {"memory.max": "64K"}),
}


@pytest.fixture(params=SITUATIONS)
def store(request: pytest.FixtureRequest, engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    options, limits = SITUATIONS[request.param]
    z = engine(**options)
    cgroup = z.cgroup("/jobs/a")
    for name, text in limits.items():
        cgroup.write(name, text)
    with Store[Any, Any](cgroup) as store:
        yield store
        z.flush_work()
        store.check()
    assert counters(cgroup)["current"] == 0
    assert int(cgroup.read("memory.swap.current")) == 0


def check_items(mapping: MutableMapping[Any, Any], expected: list[tuple[Any, Any]]) -> None:
    """As zict's: all views agree, in the same order."""
    assert list(mapping) == list(mapping.keys()) == [key for key, _ in expected]
    assert list(mapping.items()) == expected
    assert list(mapping.values()) == [value for _, value in expected]
    assert list(reversed(mapping)) == [key for key, _ in reversed(expected)]  # type: ignore[call-overload]
    assert len(mapping) == len(expected)
    assert all(key in mapping for key, _ in expected)
    assert mapping == dict(expected)


@pytest.mark.parametrize("between", [lambda store: None, evict], ids=["", "all evicted in between"])
def test_it_is_a_mapping(store: Store[Any, Any], between: Callable[[Store[Any, Any]], None]) -> None:
    assert isinstance(store, MutableMapping)
    assert not store
    check_items(store, [])
    store["abc"] = b"456"
    store["xyz"] = [12]
    between(store)
    assert store["abc"] == b"456"
    check_items(store, [("abc", b"456"), ("xyz", [12])])
    assert "def" not in store
    with pytest.raises(KeyError, match="def"):
        store["def"]
    assert store.get("def") is None
    assert store.get("def", 5) == 5
    between(store)
    store.update(xyz=b"707", uvw=None)
    check_items(store, [("abc", b"456"), ("xyz", b"707"), ("uvw", None)])
    store.update([("xyz", {"a": [1]}), ("uvw", b"999" * 5000)])
    between(store)
    check_items(store, [("abc", b"456"), ("xyz", {"a": [1]}), ("uvw", b"999" * 5000)])
    assert store.setdefault("xyz", 1) == {"a": [1]}
    assert store.setdefault("new", [5]) == [5]
    between(store)
    assert store.setdefault("new", 1) == [5]
    del store["abc"]
    with pytest.raises(KeyError, match="abc"):
        del store["abc"]
    between(store)
    assert store.pop("xyz") == {"a": [1]}
    assert store.pop("xyz", 7) == 7
    with pytest.raises(KeyError, match="xyz"):
        store.pop("xyz")
    assert store.popitem() == ("new", [5])
    assert store.discard("uvw")
    assert not store.discard("uvw")
    with pytest.raises(KeyError):
        store.popitem()
    check_items(store, [])
    store["a"] = [1]
    between(store)
    store.clear()
    check_items(store, [])


@pytest.mark.slow
def test_many_updates_in_random_order(store: Store[Any, Any]) -> None:
    rng = random.Random(42)
    model: dict[str, bytes] = {}
    for _ in range(300):
        key = rng.choice(string.ascii_lowercase)
        if rng.random() < 0.2 and key in model:
            del store[key], model[key]
        else:
            model[key] = rng.randbytes(rng.randrange(20_000))
            store[key] = bytes(bytearray(model[key]))  # an object of its own
        if rng.random() < 0.1:
            assert list(store) == list(model)
            # One after the other: all at once are more than some of the limits allow.
            assert all(store[key] == value for key, value in model.items())


@pytest.mark.parametrize(
    "make",
    [lambda: None, lambda: 0, lambda: b"", lambda: "", list, dict, lambda: (), lambda: b"x", lambda: np.zeros(0)],
    ids=["None", "0", "bytes", "str", "list", "dict", "tuple", "one byte", "array"],
)
def test_empty_and_tiny_values(store: Store[Any, Any], make: Callable[[], Any]) -> None:
    store["key"] = make()
    evict(store)
    assert type(store["key"]) is type(make())
    assert np.array_equal(store.pop("key"), make())


@pytest.mark.parametrize("key", [0, "a", (1, ("b", 2.5)), None, b"x", frozenset({1}), 2**100, uzswap.Store], ids=repr)
def test_any_hashable_key(store: Store[Any, Any], key: Any) -> None:
    store[key] = [1]
    evict(store)
    assert key in store
    assert store[key] == [1]
    assert list(store) == [key]


def test_equal_keys_are_one(store: Store[Any, Any]) -> None:
    store[1] = "one"
    store[1.0] = "one again"
    store[True] = "and again"
    assert list(store.items()) == [(1, "and again")]
    assert type(next(iter(store))) is int


def test_an_unhashable_key_changes_nothing(store: Store[Any, Any]) -> None:
    store["a"] = [1]
    before = store.resident_bytes
    for use in (
        lambda: store[[]],
        lambda: store.get([]),
        lambda: store.__setitem__([], 1),
        lambda: store.setdefault([], 1),
        lambda: store.pop([], None),
        lambda: store.discard([]),
        lambda: [] in store,
        lambda: store.where([]),
    ):
        with pytest.raises(TypeError, match="unhashable"):
            use()
    assert dict(store) == {"a": [1]}
    assert store.resident_bytes == before == counters(store.cgroup)["current"]


def test_a_hot_value_is_the_very_object(engine: EngineFactory) -> None:
    with Store[str, list[int]](engine().cgroup("/a")) as store:
        value = [1, 2]
        store["a"] = value
        assert store["a"] is value
        assert store.get("a") is value
        assert store.setdefault("a", []) is value
        assert next(iter(store.values())) is value
        assert store.popitem() == ("a", value)
        store["a"] = value
        assert store.pop("a") is value


def test_what_was_evicted_comes_back_once(engine: EngineFactory) -> None:
    with Store[str, list[int]](engine().cgroup("/a")) as store:
        store["a"] = [1, 2]
        evict(store)
        assert store.where("a") == "zswap"
        back = store["a"]
        assert store["a"] is back
        assert store.where("a") == "resident"
        back.append(3)
        assert store["a"] == [1, 2, 3]


def test_iterating_and_asking_touches_nothing(engine: EngineFactory) -> None:
    z = engine()
    with Store[int, bytearray](z.cgroup("/a")) as store:
        for i in range(20):
            store[i] = noise(5000, i)
        freed = store.reclaim(50_000).freed_bytes
        assert 50_000 <= freed < 60_000
        gone = [key for key in store if store.where(key) != "resident"]
        assert gone == list(range(len(gone)))
        before = counters(store.cgroup), store.stats(), z.core.globals()
        for _ in range(2):
            assert list(store) == list(range(20))
            assert list(store.keys()) == list(range(20))
            assert list(reversed(store)) == list(range(19, -1, -1))
            assert len(store) == 20
            assert all(key in store for key in range(20))
            assert 20 not in store
            assert len(store.items()) == 20
            repr(store)
        assert (counters(store.cgroup), store.stats(), z.core.globals()) == before
        store.reclaim(5000)
        assert store.where(len(gone)) != "resident"  # still the coldest, though it was asked about


def test_where(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["zeros"] = bytes(bytearray(200_000))
        store["noise"] = noise(200_000)
        store["mixed"] = bytes(65536) + bytes(noise(65536))
        assert {store.where(key) for key in store} == {"resident"}
        evict(store)
        assert {key: store.where(key) for key in store} == {
            "zeros": "zero",
            "noise": "zswap",
            "mixed": "zero+zswap",
        }
        cgroup.reclaim("70000", source="zswap")
        assert store.where("noise") == "disk+zswap"
        with pytest.raises(KeyError):
            store.where("nothing")
        assert store["noise"] == noise(200_000)
        assert store.where("noise") == "resident"


def test_stats_add_up(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[Any, Any](cgroup) as store:
        for i in range(10):
            store[i] = noise(100_000, i)
        store["function"] = [lambda: 0]
        kept = store["kept"] = [1.5]
        stats = store.stats()
        assert stats["values"] == stats["resident"] == len(store)
        assert stats["resident_bytes"] == store.resident_bytes == counters(cgroup)["anon"]
        evict(store)
        cgroup.reclaim("300000", source="zswap")
        stats = store.stats()
        assert stats["values"] == 12
        assert stats["packed"] == stats["evicted"] == 10
        assert stats["resident"] == 2
        assert stats["unpicklable"] == 1
        assert stats["referenced"] == 1
        assert stats["referenced_bytes"] + stats["unpicklable_bytes"] == stats["resident_bytes"] == store.resident_bytes
        assert 1_000_000 <= stats["packed_bytes"] < 1_010_000
        assert stats["chunks"] == 20
        memory = counters(cgroup)
        assert stats["zswap_bytes"] == memory["zswap"]
        assert stats["disk_bytes"] == z.core.counters(cgroup.index)[5] >= 300_000
        assert memory["current"] == stats["resident_bytes"] + stats["zswap_bytes"]
        assert store[3] == noise(100_000, 3)
        assert store.stats()["loaded"] == 1
        assert store["kept"] is kept


def test_after_close_nothing_is_left(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    store = Store[int, bytearray](cgroup)
    for i in range(10):
        store[i] = noise(10_000, i)
    store.reclaim(40_000)
    cgroup.reclaim("20000", source="zswap")
    with pytest.raises(OSError, match="members") as info:
        cgroup.remove()
    assert info.value.errno == errno.EBUSY
    store.close()
    store.close()
    assert counters(cgroup)["current"] == counters(cgroup)["zswap"] == 0
    assert int(cgroup.read("memory.swap.current")) == 0
    z.check()
    cgroup.remove()


USES: dict[str, Callable[[Store[Any, Any]], object]] = {
    "[]": lambda store: store["a"],
    "get": lambda store: store.get("a"),
    "[]=": lambda store: store.__setitem__("a", 1),
    "setdefault": lambda store: store.setdefault("b", 1),
    "del": lambda store: store.__delitem__("a"),
    "discard": lambda store: store.discard("a"),
    "pop": lambda store: store.pop("a", None),
    "popitem": lambda store: store.popitem(),
    "clear": lambda store: store.clear(),
    "in": lambda store: "a" in store,
    "iter": iter,
    "reversed": reversed,  # type: ignore[dict-item]
    "len": len,
    "update": lambda store: store.update(b=1),
    "where": lambda store: store.where("a"),
    "stats": lambda store: store.stats(),
    "reweigh": lambda store: store.reweigh(),
    "check": lambda store: store.check(),
    "with": lambda store: store.__enter__(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", ["store", "engine"])
def test_use_after_close_is_a_clear_error(engine: EngineFactory, use: str, what: str) -> None:
    z = engine()
    store = Store[str, Any](z.cgroup("/a"))
    store["a"] = [1]
    (store if what == "store" else z).close()
    with pytest.raises(OSError, match="closed: make") as info:
        USES[use](store)
    assert info.value.errno == errno.EBADF
    assert info.value.filename == "/a"
    assert "closed" in repr(store)
    assert store.reclaim(1 << 30) == (0, 0)
    store.close()


def test_values_do_not_outlive_a_closed_engine(engine: EngineFactory) -> None:
    z = engine()
    store = Store[str, Any](z.cgroup("/a"))
    value = {1, 2}
    gone = weakref.ref(value)
    store["a"] = value
    del value
    z.close()
    store.close()
    gc.collect()
    assert gone() is None


def test_a_store_cannot_be_copied_or_pickled(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="/a"):
                attempt(store)
        assert {**store} == store == {}
        with pytest.raises(TypeError, match="unhashable"):
            hash(store)


def test_a_store_in_a_store_stays_resident(engine: EngineFactory) -> None:
    z = engine()
    with Store[str, Any](z.cgroup("/a"), shared="pin") as store, Store[str, Any](z.cgroup("/b")) as other:
        other["many"] = list(range(10**6, 10**6 + 10_000))
        store["other"] = [other]
        assert store.resident_bytes < 1000
        evict(store)
        assert store.where("other") == "resident"
        assert store.stats()["unpicklable"] == 1


def test_stores_share_a_cgroup_and_a_removed_one_cannot_have_any(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as one, Store[str, Any](cgroup) as two:
        one["a"] = [1] * 1000
        two["a"] = [2] * 2000
        assert counters(cgroup)["current"] == one.resident_bytes + two.resident_bytes
        assert one.cgroup is two.cgroup is cgroup
        assert one != two
    cgroup.remove()
    with pytest.raises(OSError, match="/a") as info:
        Store(cgroup)
    assert info.value.errno == errno.ENODEV
