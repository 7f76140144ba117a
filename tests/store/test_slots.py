"""Which values go first, many at once, and what a packed value costs."""

from __future__ import annotations

import errno
import gc
import random
import sys
import weakref
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.values import Acting, counters, evict, noise
from tests.support.child import run
from tests.support.faulty import FaultySwap

import uzswap
from uzswap import ReclaimIncomplete, Store
from uzswap.store import weigh
from uzswap.store.slabs import slab_bytes

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

MIB = 1 << 20


def resident(store: Store[Any, Any]) -> set[Any]:
    return {key for key in store if store.where(key) == "resident"}


def to_disk(store: Store[Any, Any]) -> None:
    evict(store)
    with pytest.raises(ReclaimIncomplete):
        store.cgroup.reclaim("1G", source="zswap")


# Which go first


def test_a_stream_leaves_the_hot_values_alone(engine: EngineFactory) -> None:
    """Fifty times what fits is set and read once; a fifth of the limit is read again and again."""
    z = engine(swap_size="256M")
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "5M")
    rng = random.Random(1)
    with Store[Any, bytes](cgroup) as store:
        for key in range(100):
            store["hot", key] = bytes(noise(10_000, key))
        misses = reads = 0
        for key in range(5000):
            store[key] = bytes(noise(10_000, key))
            for _ in range(4):
                hot = "hot", rng.randrange(100)
                if key > 500:
                    reads += 1
                    misses += store.where(hot) != "resident"
                assert store[hot] == noise(10_000, hot[1])
        assert misses < reads * 0.03
        # The same with values that come back from the pool and the disk.
        misses = reads = 0
        for key in range(4000):
            assert len(store[key]) == 10_000
            for _ in range(4):
                hot = "hot", rng.randrange(100)
                reads += 1
                misses += store.where(hot) != "resident"
                store[hot]
        assert misses < reads * 0.03
        store.check()


def test_what_is_accessed_twice_outlives_what_is_not(engine: EngineFactory) -> None:
    with Store[int, bytearray](engine().cgroup("/a")) as store:
        for key in range(100):
            store[key] = noise(10_000, key)
        for key in range(0, 100, 4):
            store[key]
        store.reclaim(750_000)
        assert resident(store) == set(range(0, 100, 4))
        store.reclaim(1)  # the coldest of them
        assert resident(store) == set(range(4, 100, 4))


def test_what_was_hot_becomes_cold(engine: EngineFactory) -> None:
    cgroup = engine(swap_size="256M").cgroup("/a")
    cgroup.write("memory.max", "2M")
    with Store[int, bytes](cgroup) as store:
        for key in range(50):
            store[key] = bytes(noise(10_000, key))
        for _ in range(10):
            for key in range(50):
                store[key]
        for key in range(100, 150):
            store[key] = bytes(noise(10_000, key))
        for turn in range(20):
            for key in range(100, 150):
                store[key]
            for key in range(50):
                store[1000 + turn * 50 + key] = bytes(noise(10_000, key))
        assert len(resident(store) & set(range(50))) < 5
        assert len(resident(store) & set(range(100, 150))) > 45


def test_values_that_have_to_stay_are_put_apart(engine: EngineFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reclaim does is bounded, however many values are held or can't be pickled."""
    examined: list[int] = []
    real = weigh.examine

    def count(once: list[Any], shared: weigh.Shared, own: Container[int]) -> weigh.Weight:
        examined.append(1)
        return real(once, shared, own)

    monkeypatch.setattr("uzswap.store.eviction.examine", count)
    cgroup = engine().cgroup("/a")
    with Store[Any, Any](cgroup) as store:
        held = [[float(key)] for key in range(3000)]
        for key, value in enumerate(held):
            store[key] = value
            store["function", key] = [lambda: 0]
        store.reclaim(1 << 40)
        assert len(examined) == 6000
        for key in range(200):
            examined.clear()
            store["new", key] = noise(5000, key)
            assert store.reclaim(1).freed_bytes > 0
            assert len(examined) <= 20
        assert store.stats()["referenced"] == store.stats()["unpicklable"] == 3000
        held.clear()
        del value
        evict(store)
        assert store.stats()["referenced"] == 0
        assert store.stats()["resident"] == store.stats()["unpicklable"] == 3000
        store.check()


# In particular


def test_pinned_values_stay(engine: EngineFactory) -> None:
    with Store[str, bytearray](engine().cgroup("/a")) as store:
        for key in "abc":
            store[key] = noise(10_000)
        evict(store)
        store.pin("a")  # which loads it
        store.pin("a")
        evict(store)
        assert resident(store) == {"a"}
        assert store.info("a").pinned
        assert store.evict("a") == 0
        store["a"] = noise(20_000)
        evict(store)
        assert resident(store) == {"a"}
        store.unpin("a")
        evict(store)
        assert resident(store) == {"a"}
        store.unpin("a")
        assert not store.info("a").pinned
        store.check()
        evict(store)
        assert resident(store) == set()
        for use in store.pin, store.unpin:
            with pytest.raises(KeyError):
                use("d")
        with pytest.raises(ValueError, match=r"'a'.*/a.*not pinned"):
            store.unpin("a")
        store.pin("b")
        del store["b"]
        assert counters(store.cgroup)["anon"] == 0


def test_a_value_that_is_pinned_while_it_is_evicted_stays(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = Acting(on_save=lambda: store.pin("a"))
        evict(store)
        assert resident(store) == {"a"}
        store.check()


def test_one_value_can_be_evicted(engine: EngineFactory) -> None:
    z = engine()
    with Store[str, Any](z.cgroup("/a")) as store:
        store["a"] = noise(10_000)
        store["b"] = noise(100_000)
        store["held"] = held = [1]
        store["function"] = [lambda: 0]
        before = store.resident_bytes
        freed = store.evict("b")
        assert freed == before - store.resident_bytes > 100_000
        assert resident(store) == {"a", "held", "function"}
        assert store.evict("b") == store.evict("held") == store.evict("function") == 0
        assert store.info("held").obstacle == "referenced"
        assert store.info("function").obstacle == "unpicklable"
        assert (
            store.info("b") == ("zswap", freed, 100_064, None, False, False) or store.info("b").stored_bytes > 100_000
        )
        assert store.info("a")[:3] == ("resident", sys.getsizeof(noise(10_000)), 0)
        with pytest.raises(KeyError):
            store.evict("none")
        with pytest.raises(KeyError):
            store.info("none")
        del held
        assert store.evict("held") > 0
        z.check()


def test_info_tells_what_was_accessed(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["a"] = [1.5]
        assert not store.info("a").referenced
        store["a"]
        assert store.info("a").referenced
        evict(store)
        assert store.info("a").place == "zswap"
        assert 0 < store.info("a").stored_bytes < 200


# Many at once

KINDS: list[Any] = [
    lambda i: f"text {i} " * 20,
    lambda i: bytes(noise(3000, i)),
    lambda i: [i, str(i), {"x": float(i)}],
    lambda i: np.arange(i, i + 500),
    lambda i: bytes(noise(100_000, i)),
    lambda i: (i, float(i)),
]


def make(i: int) -> Any:
    return KINDS[i % len(KINDS)](i)


def same(one: Any, other: Any) -> bool:
    return (
        bool(np.array_equal(one, other)) if isinstance(other, np.ndarray) else type(one) is type(other) and one == other
    )


@pytest.mark.parametrize("place", ["resident", "zswap", "disk", "mixed"])
def test_many_are_loaded_as_one_by_one(engine: EngineFactory, place: str) -> None:
    z = engine(swap_size="256M")
    cgroup = z.cgroup("/a")
    with Store[Any, Any](cgroup) as store:
        store.set_many({i: make(i) for i in range(300)})
        store.set_many((i, make(i)) for i in range(300, 600))
        if place == "zswap":
            evict(store)
        elif place == "disk":
            to_disk(store)
        elif place == "mixed":
            store.reclaim(6 * MIB)
            cgroup.reclaim("1M", source="zswap")
            store.reclaim(MIB)
        keys = [*range(0, 600, 7), "none", *range(599, 0, -11), 3, 3]
        before = store.stats()
        loads = len({key for key in keys if key in store and store.where(key) != "resident"})
        found = store.get_many(iter(keys))
        assert list(found) == list(dict.fromkeys(key for key in keys if key != "none"))
        assert all(same(value, make(key)) for key, value in found.items())
        assert store.stats()["loaded"] - before["loaded"] == loads
        assert all(store[key] is value for key, value in found.items())
        z.check()
        store.check()
        evict(store)
        del found
        evict(store)
        assert counters(cgroup)["anon"] == store.resident_bytes


def test_many_come_over_the_limit_when_they_must(engine: EngineFactory) -> None:
    z = engine(swap_size="64M")
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "1M")
    with Store[int, bytes](cgroup) as store:
        for key in range(400):
            store[key] = bytes(noise(10_000, key))
        found = store.get_many(range(400))
        assert all(found[key] == noise(10_000, key) for key in range(400))
        del found
        z.flush_work()
        evict(store)
        store.check()
        z.check()


def test_many_that_lie_far_apart_on_the_disk(engine: EngineFactory) -> None:
    """Several reads are in flight at once; one that fails harms none of the others."""
    with FaultySwap(64 << 20) as disk:
        z = engine(swap=disk.path, swap_size="64M")
        with Store[int, bytes](z.cgroup("/a")) as store:
            for key in range(200):
                store[key] = bytes(noise(50_000, key))
            to_disk(store)
            keys = list(range(0, 200, 2))
            random.Random(1).shuffle(keys)
            disk.fail_reads(errno.EIO)
            with pytest.raises(OSError, match="/a") as info:
                store.get_many(keys)
            assert info.value.errno == errno.EIO
            assert resident(store) == set()
            disk.heal()
            found = store.get_many(keys)
            assert list(found) == keys
            assert all(value == noise(50_000, key) for key, value in found.items())
            assert {store.where(key) for key in range(1, 200, 2)} == {"disk"}
            store.check()
            z.check()
        z.close()


def test_one_of_many_that_fails_is_told_and_kept(engine: EngineFactory) -> None:
    failures = [KeyError("not today")]

    def fail() -> None:
        if failures:
            raise failures[0]

    with Store[int, Any](engine().cgroup("/a")) as store:
        for key in range(10):
            store[key] = [float(key)]
        store[10] = Acting(on_load=fail)
        evict(store)
        with pytest.raises(KeyError, match="not today"):
            store.get_many(range(11))
        assert store.where(10) == "zswap"
        failures.clear()
        assert len(store.get_many(range(11))) == 11
        store.check()


def test_a_value_that_changes_while_many_are_loaded(engine: EngineFactory) -> None:
    z = engine()
    with Store[Any, Any](z.cgroup("/a")) as store:

        def act() -> None:
            store["replaced"] = [2]
            del store["deleted"]
            assert store["other"] == [3]

        for key in ("other", "replaced", "deleted"):
            store[key] = [1.5] if key != "other" else [3]
        store["acting"] = Acting(on_load=act)
        evict(store)
        # Whether "other" can be had depends on whether it was loaded before.
        found = store.get_many(["other", "acting", "replaced", "deleted"])
        assert found["replaced"] == [2]
        assert "deleted" not in found
        assert found["other"] == [3]
        store.check()
        z.check()


def test_prefetched_values_are_there_and_hurt_nobody(engine: EngineFactory) -> None:
    z = engine(swap_size="64M")
    cgroup = z.cgroup("/a")
    with Store[int, Any](cgroup) as store:
        for key in range(60):
            store[key] = make(key)
        to_disk(store)
        store.prefetch(iter([*range(30), "none"]))
        store._slots.settle()
        assert resident(store) == set(range(30))
        assert all(not store.info(key).referenced for key in range(30))
        # No room is made for what may never be used.
        evict(store)
        cgroup.write("memory.max", str(cgroup.usage() + 50_000))
        store.prefetch(range(60))
        store._slots.settle()
        assert cgroup.events["max"] == 0
        cgroup.write("memory.max", "max")
        assert all(same(store[key], make(key)) for key in range(60))
        store.check()
        z.check()


# What they cost


@given(st.text(st.characters(codec=None), max_size=300), st.integers(1, 50))
def test_any_str_comes_back(text: str, times: int) -> None:
    with uzswap.Zswap(swap=None) as z, Store[str, str](z.cgroup("/a")) as store:
        store["a"] = "".join([text] * times)
        evict(store)
        assert store["a"] == text * times


@pytest.mark.parametrize("character", ["a", "é", "ж", "\U0001f600", "\udc80"])
@pytest.mark.parametrize("length", [1, 2, 100, 20_000, 65_536, 200_000])
def test_a_str_is_kept_without_being_pickled(engine: EngineFactory, character: str, length: int) -> None:
    with Store[str, str](engine().cgroup("/a")) as store:
        store["a"] = "x" + character * (length - 1)
        width = sys.getsizeof(character * 20) - sys.getsizeof(character * 19)
        evict(store)
        back = store["a"]
        assert back == "x" + character * (length - 1)
        assert sys.getsizeof(back) - sys.getsizeof("x" + character * (length - 1)) == 0
        assert back.isascii() == ("x" + character * (length - 1)).isascii()
        assert width in (1, 2, 4)


def test_slabs_are_given_back(engine: EngineFactory) -> None:
    gc.collect()
    before = slab_bytes()
    with Store[int, str](engine().cgroup("/a")) as store:
        for key in range(50_000):
            store[key] = f"value {key}"
        assert slab_bytes() >= 50_000 * 32
        rng = random.Random(1)
        keys = list(range(50_000))
        rng.shuffle(keys)
        for key in keys:
            del store[key]
        assert slab_bytes() <= max(before, 1 << 17)


def test_a_packed_value_costs_little_beside_its_key_and_its_bytes() -> None:
    done = run(
        """
        import os, uzswap
        def rss():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        n = 200_000
        z = uzswap.Zswap(swap_size="1G", max_pool="1G")
        store = uzswap.Store(z.cgroup("/a"))
        for key in range(1000):
            store[key] = f"warm {key}"
        store.reclaim(1 << 40)
        store.clear()
        keys = list(range(n))
        before = rss()
        for key in keys:
            store[key] = ("%d " % key) * 20
            if key % 1000 == 0:
                store.reclaim(1 << 40)
        store.reclaim(1 << 40)
        assert store.stats()["packed"] == n, store.stats()
        print((rss() - before - z.core.pool_pages() * 4096) / n)
        """,
        fresh=True,
    ).check()
    assert float(done.stdout) < 250  # 137 were measured: a dict's 40 to 80, 32 of the slot, 48 of the engine's entry


def test_what_refers_to_its_own_store_is_collected_with_it() -> None:
    class Value:
        store: Any

    def make() -> None:
        z = uzswap.Zswap(swap=None)
        store = Store[int, Any](z.cgroup("/a"))
        value = Value()
        value.store = store
        store[0] = value
        alive.append(weakref.ref(value))

    alive: list[weakref.ref[Any]] = []
    make()
    gc.collect()
    assert alive[0]() is None
