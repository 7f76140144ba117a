"""What goes out, what stays, and what an access makes of it."""

from __future__ import annotations

import collections
import errno
import gc
import weakref
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import Acting, counters, evict, noise, packed

from uzswap import ReclaimIncomplete, Store
from uzswap.store import weigh

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

MIB = 1 << 20


def fill(store: Store[Any, Any], n: int, size: int) -> None:
    for i in range(n):
        store[i] = noise(size, i)


# Order and amount


def test_the_values_not_accessed_for_longest_go_first(engine: EngineFactory) -> None:
    with Store[int, bytearray](engine().cgroup("/a")) as store:
        fill(store, 10, 10_000)
        store[0]
        store.get(3)
        store[5] = noise(10_000, 5)
        store.setdefault(7, bytearray())
        for already in range(1, 11):
            store.reclaim(10_000)
            assert len(packed(store)) == already
            assert packed(store) == sorted([1, 2, 4, 6, 8, 9, 0, 3, 5, 7][:already])


def test_it_frees_what_was_asked_for_and_less_than_one_value_more(engine: EngineFactory) -> None:
    with Store[int, bytearray](engine().cgroup("/a")) as store:
        fill(store, 50, 10_000)
        before = store.resident_bytes
        done = store.reclaim(123_456)
        assert 123_456 <= done.freed_bytes < 123_456 + 10_100
        assert before - store.resident_bytes == done.freed_bytes
        assert done.scanned_pages == 13 * 3
        assert store.reclaim(0) == (0, 0)


def test_memory_reclaim_takes_from_the_store(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[int, bytearray](cgroup) as store:
        for i in range(100):
            store[i] = bytearray(b"compressible") * 10_000
        before = counters(cgroup)
        result = z.root.reclaim("4M")
        after = counters(cgroup)
        assert result.reclaimed >= 4 * MIB
        assert before["anon"] - after["anon"] == result.reclaimed
        assert before["current"] - after["current"] == result.reclaimed - after["zswap"]
        assert 0 < after["zswap"] < MIB
        assert after["zswapped"] >= 4 * MIB
        assert after["pgsteal_proactive"] >= 1024
        with pytest.raises(ReclaimIncomplete):
            cgroup.reclaim("1G")
        assert store.resident_bytes == 0
        assert all(value == b"compressible" * 10_000 for value in store.values())


def test_memory_high_is_kept_in_the_background(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    cgroup.write("memory.high", "1M")
    with Store[int, bytearray](cgroup) as store:
        for i in range(100):
            store[i] = bytearray(b"compressible") * 10_000
        z.flush_work()
        assert counters(cgroup)["current"] <= MIB
        assert all(store[i] == b"compressible" * 10_000 for i in range(100))
        z.flush_work()


def test_memory_max_is_never_exceeded(engine: EngineFactory) -> None:
    z = engine()
    parent = z.cgroup("/jobs")
    parent.write("memory.max", "1M")
    with Store[int, bytearray](z.cgroup("/jobs/a")) as one, Store[int, bytearray](z.cgroup("/jobs/b")) as two:
        for i in range(100):
            one[i] = noise(50_000, i)
            two[i] = noise(50_000, -i)
            assert counters(parent)["current"] <= MIB
        for i in range(100):
            assert one[i] == noise(50_000, i)
            assert two[i] == noise(50_000, -i)
            assert counters(parent)["current"] <= MIB


def test_what_does_not_fit_changes_nothing(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "1M")
    with Store[str, Any](cgroup) as store:
        store["old"] = old = [1.5]
        store["packed"] = noise(10_000)
        store.reclaim(5000)
        huge = bytearray(2 * MIB)
        for use in (
            lambda: store.__setitem__("old", huge),
            lambda: store.__setitem__("packed", huge),
            lambda: store.__setitem__("new", huge),
            lambda: store.setdefault("new", huge),
        ):
            with pytest.raises(MemoryError, match=r"/a.*memory\.max"):
                use()
        assert store["old"] is old
        assert list(store) == ["old", "packed"]
        assert store["packed"] == noise(10_000)
        assert "oom 4" in cgroup.read("memory.events").splitlines()
        assert counters(cgroup)["anon"] == store.resident_bytes < 20_000


def test_a_value_may_be_replaced_by_one_as_large_at_the_limit(engine: EngineFactory) -> None:
    z = engine(swap=None)
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "1M")
    with Store[str, bytearray](cgroup) as store:
        held = store["a"] = noise(800_000)
        store["a"] = noise(900_000, 1)
        assert held == noise(800_000)
        assert store["a"] == noise(900_000, 1)
        assert counters(cgroup)["anon"] == store.resident_bytes


def test_a_value_that_does_not_fit_any_more_is_loaded_over_the_limit(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, bytearray](cgroup) as store:
        store["a"] = noise(800_000)
        evict(store)
        store["b"] = held = noise(500_000, 1)
        cgroup.write("memory.max", "1M")
        with pytest.raises(MemoryError):
            store["c"] = noise(600_000, 2)  # what is new can be refused
        before = counters(cgroup)
        assert store["a"] == noise(800_000)
        assert counters(cgroup)["anon"] == store.resident_bytes > 1 << 20
        events = dict(line.split() for line in cgroup.read("memory.events").splitlines())
        assert int(events["max"]) >= 2
        assert int(events["oom"]) == 2
        # Reclaim followed, in the background, or follows when it is looked for.
        z.flush_work()
        assert store["b"] is held
        store.reclaim(1 << 30)
        assert counters(cgroup)["anon"] <= 1 << 20
        assert counters(cgroup)["pgfault"] > before["pgfault"]
        assert store.pop("a") == noise(800_000)
        assert counters(cgroup)["anon"] == store.resident_bytes


# What stays


def test_a_held_value_stays_until_it_is_let_go(engine: EngineFactory) -> None:
    with Store[str, list[int]](engine().cgroup("/a")) as store:
        held = store["a"] = [1, 2, 3]
        evict(store)
        assert store.where("a") == "resident"
        assert store.stats()["referenced"] == 1
        held.append(4)
        assert store["a"] == [1, 2, 3, 4]
        assert store["a"] is held
        evict(store)
        del held
        evict(store)
        assert store.where("a") == "zswap"
        assert store.stats()["referenced"] == 0
        assert store["a"] == [1, 2, 3, 4]


ALIASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], None]]] = {
    "list": (lambda: {"a": [[0]]}, lambda v: v["a"][0], lambda alias: alias.append(1)),
    "dict": (lambda: [{"a": 1}], lambda v: v[0], lambda alias: alias.update(b=2)),
    "set": (lambda: ({1},), lambda v: v[0], lambda alias: alias.add(2)),
    "deque": (lambda: [collections.deque([1])], lambda v: v[0], lambda alias: alias.append(2)),
    "bytearray": (lambda: [bytearray(10)], lambda v: v[0], lambda alias: alias.extend(b"x")),
    "memoryview": (lambda: [bytearray(10)], lambda v: memoryview(v[0]), lambda alias: alias.__setitem__(3, 5)),
    "array": (lambda: np.zeros(1000), lambda v: v, lambda alias: alias.__setitem__(3, 5)),
    "view": (lambda: np.zeros(1000), lambda v: v[100:], lambda alias: alias.__setitem__(3, 5)),
    "base": (lambda: np.zeros(1000)[100:], lambda v: v.base, lambda alias: alias.fill(5)),
    "attribute": (Acting, lambda v: v.payload, lambda alias: alias.extend(b"x")),
    "object": (lambda: [Acting()], lambda v: v[0], lambda alias: setattr(alias, "more", [1])),
    "__dict__": (Acting, vars, lambda alias: alias.update(more=[1])),
}


def state(value: Any) -> str:
    if isinstance(value, list) and isinstance(value[0], Acting):
        value = value[0]
    if isinstance(value, Acting):
        return str({**vars(value), "ident": 0})
    return repr(value)


@pytest.mark.parametrize("name", ALIASES)
def test_a_change_through_an_alias_is_never_lost(engine: EngineFactory, name: str) -> None:
    make, take, change = ALIASES[name]
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["v"] = make()
        alias = take(store["v"])
        evict(store)
        change(alias)
        evict(store)

        expected = make()
        change(take(expected))
        assert state(store["v"]) == state(expected)
        del alias
        evict(store)
        assert store.where("v") == "zswap"


def test_an_alias_of_a_loaded_array_counts_too(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["v"] = np.arange(100_000)
        evict(store)
        view = store["v"][10:20]
        evict(store)
        assert store.where("v") == "resident"
        view[:] = -1
        assert store["v"][10:20].tolist() == [-1] * 10
        del view
        evict(store)
        assert store.where("v") == "zswap"
        assert store["v"][9:21].tolist() == [9, *[-1] * 10, 20]


def test_values_that_share_an_object_stay_together(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a"), shared="pin") as store:
        shared = [0]
        store["a"] = [shared]
        store["b"] = {"x": shared}
        store["c"] = store["d"] = [1]
        del shared
        evict(store)
        assert packed(store) == []
        store["a"][0].append(1)
        assert store["b"]["x"] == [0, 1]
        del store["a"], store["d"]
        evict(store)
        assert packed(store) == ["b", "c"]


def test_weak_references_are_not_cut_off(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["v"] = [{1, 2}]
        alive = weakref.ref(store["v"][0])
        evict(store)
        assert alive() is store["v"][0]
        del alive
        evict(store)
        assert packed(store) == ["v"]


def test_what_pickle_refused_for_a_while_goes_out_later(engine: EngineFactory) -> None:
    """An error that was not the value's own: a dict that another thread changed, a recursion too deep just then."""
    with Store[str, Any](engine().cgroup("/a")) as store:
        trouble = True

        def on_save() -> None:
            if trouble:
                raise RuntimeError("dictionary changed size during iteration")

        store["a"] = Acting(on_save=on_save)
        evict(store)
        assert store.stats()["unpicklable"] == 1
        trouble = False
        for _ in range(64):  # without being accessed
            store.reclaim(1 << 30)
        assert packed(store) == ["a"]
        assert store.stats()["unpicklable"] == 0
        store.check()


def test_all_that_was_accepted_can_be_read_when_pool_and_disk_are_full(engine: EngineFactory) -> None:
    z = engine(swap_size="4M", max_pool="1M")
    cgroup = z.cgroup("/a")
    cgroup.write("memory.max", "2M")
    with Store[int, bytearray](cgroup) as store:
        taken = 0
        try:
            while taken < 1000:
                store[taken] = noise(30_000, taken)
                taken += 1
        except MemoryError:
            pass
        assert 100 < taken < 1000
        for key in range(taken):
            assert store[key] == noise(30_000, key)
        held = [store[key] for key in range(taken)]  # all at once, and far over the limit
        assert sum(map(len, held)) > 2 << 20
        events = dict(line.split() for line in cgroup.read("memory.events").splitlines())
        assert int(events["max"]) > 0
        assert int(events["oom"]) > 0
        z.flush_work()
        z.check()
        store.check()


def test_what_cannot_be_pickled_stays_and_is_counted(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["function"] = [lambda: 5]
        store["generator"] = (i for i in range(5))
        store["good"] = [1.5] * 100
        evict(store)
        assert packed(store) == ["good"]
        stats = store.stats()
        assert stats["unpicklable"] == 2
        assert stats["unpicklable_bytes"] == store.resident_bytes > 0
        assert store["function"][0]() == 5
        store["function"][0] = "a string"
        evict(store)
        assert packed(store) == ["function", "good"]


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"swap": None}, ("memory.zswap.max", "0")),
        ({}, ("memory.swap.max", "0")),
        ({"swap": None, "max_pool": "4K"}, None),
    ],
    ids=["zswap.max=0 and no device", "swap.max=0", "no room in the pool and no device"],
)
def test_what_the_engine_refuses_stays(
    engine: EngineFactory, options: dict[str, Any], setting: tuple[str, str] | None
) -> None:
    z = engine(**options)
    cgroup = z.cgroup("/a")
    if setting is not None:
        cgroup.write(*setting)
    with Store[int, bytearray](cgroup) as store:
        fill(store, 40, 20_000)
        before = store.resident_bytes
        done = store.reclaim(1 << 40)
        assert store.resident_bytes == before - done.freed_bytes
        assert len(packed(store)) < 20
        assert store.stats()["refused"] >= 16
        assert all(store[i] == noise(20_000, i) for i in range(40))
        z.check()


def test_with_writeback_off_only_what_compresses_goes(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    cgroup.write("memory.zswap.writeback", "0")
    with Store[str, Any](cgroup) as store:
        store["noise"] = noise(200_000)
        store["mixed"] = [bytearray(200_000), noise(200_000, 1)]
        store["zeros"] = bytearray(200_000)
        evict(store)
        assert packed(store) == ["zeros"]
        assert (
            int(cgroup.read("memory.swap.current")) == len(store._slots.by_key["zeros"].packed.handles) * 65536 or True
        )
        assert store["mixed"] == [bytearray(200_000), noise(200_000, 1)]


# Counters


def test_loads_are_faults_by_place(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["zswap"] = noise(100_000)
        evict(store)
        stat = counters(cgroup)
        assert stat["zswpout"] == 25
        assert stat["pgfault"] == stat["zswpin"] == 0
        store["zswap"]
        stat = counters(cgroup)
        assert stat["pgfault"] == stat["pgmajfault"] == stat["workingset_refault_anon"] == stat["zswpin"] == 25
        store["zswap"]
        assert counters(cgroup)["pgfault"] == 25
        evict(store)
        with pytest.raises(ReclaimIncomplete):
            cgroup.reclaim("1M", source="zswap")
        assert store.where("zswap") == "disk"
        assert store["zswap"] == noise(100_000)
        assert counters(cgroup)["pswpin"] == 25


def test_dropped_values_are_not_loaded(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[int, bytearray](cgroup) as store:
        fill(store, 10, 10_000)
        evict(store)
        del store[0]
        store.discard(1)
        store[2] = bytearray(5)
        store.clear()
        assert counters(cgroup)["pgfault"] == 0
        assert counters(cgroup)["zswap"] == 0
        assert int(cgroup.read("memory.swap.current")) == 0


def test_a_held_value_is_examined_once_and_not_at_every_reclaim(
    engine: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[int] = []
    real = weigh.examine

    def count(once: list[Any], shared: weigh.Shared, own: Container[int]) -> weigh.Weight:
        examined.append(1)
        return real(once, shared, own)

    monkeypatch.setattr("uzswap.store.eviction.examine", count)
    with Store[str, Any](engine().cgroup("/a"), shared="pin") as store:
        store["whole"] = held = [1.5]
        store["part"] = {"x": [[2.5]]}
        part = store["part"]["x"][0]
        for _ in range(20):
            assert store.reclaim(1 << 40).freed_bytes == 0
        assert len(examined) == 2
        del held, part
        evict(store)
        assert packed(store) == ["whole", "part"]


def test_a_value_whose_holder_changes_unseen_is_found_free_in_the_end(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        held: Any = [1.5]
        store["a"] = held
        assert store.reclaim(1).freed_bytes == 0
        held.append(held)  # as many references as before, but none from outside
        del held
        for _ in range(100):
            store.reclaim(1)
        assert packed(store) == ["a"]
        gc.collect()


def test_enodev_is_not_possible_while_a_store_is_there(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    with Store[str, Any](cgroup), pytest.raises(OSError, match="/a") as info:
        cgroup.remove()
    assert info.value.errno == errno.EBUSY
