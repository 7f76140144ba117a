"""Many threads on one store, while it is reclaimed from in every way."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import Acting, counters, evict, noise

from uzswap import ReclaimIncomplete, Store, Zswap

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

PATIENCE = 240.0  # seconds until a thread counts as deadlocked


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run(*tasks: Callable[[], object]) -> None:
    """Each in a thread of its own; raises what they raise."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result(PATIENCE)


def reclaimer(store: Store[Any, Any], done: threading.Event, evicted: threading.Event | None = None) -> None:
    rng = random.Random(1)
    while not done.is_set():
        kind = rng.randrange(3)
        try:
            if kind == 0:
                store.reclaim(rng.randrange(1 << 20))
            elif kind == 1:
                store.cgroup.reclaim(rng.randrange(4096, 1 << 18))
            else:
                store.cgroup.reclaim(rng.randrange(1 << 18), source="zswap")
        except ReclaimIncomplete:
            pass
        if evicted is not None and store.stats()["evicted"]:
            evicted.set()


def settled(z: Zswap, store: Store[Any, Any]) -> None:
    z.flush_work()
    z.check()
    store.check()
    assert counters(store.cgroup)["anon"] == store.resident_bytes == store.stats()["resident_bytes"]
    assert counters(store.cgroup)["zswap"] == store.stats()["zswap_bytes"]
    for key in list(store):
        del store[key]
    assert counters(store.cgroup)["current"] == 0
    assert int(store.cgroup.read("memory.swap.current")) == 0


@pytest.mark.parametrize("limit", ["memory.high", "memory.max"])
def test_each_thread_sees_its_own_writes(engine: EngineFactory, limit: str) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    cgroup.write(limit, "512K")
    done = threading.Event()
    with Store[tuple[int, int], Any](cgroup) as store:

        def work(me: int) -> None:
            rng = random.Random(me)
            model: dict[tuple[int, int], int] = {}
            for step in range(300):
                key = me, rng.randrange(30)
                action = rng.random()
                if action < 0.4:
                    store[key] = make(me, step)
                    model[key] = step
                elif action < 0.5 and key in model:
                    assert same(store.pop(key), make(me, model.pop(key)))
                elif action < 0.6 and key in model:
                    assert store.discard(key)
                    del model[key]
                elif key in model:
                    assert same(store[key], make(me, model[key]))
                else:
                    assert key not in store
            for key, step in model.items():
                assert same(store[key], make(me, step))

        def make(me: int, step: int) -> Any:
            if step % 3 == 0:
                return noise(1000 + step * 10, me)
            if step % 3 == 1:
                return np.full(3000, me * 1000 + step)
            return {"me": me, "step": [step] * 100, "deep": [{"x": (float(step),)}]}

        def same(one: Any, other: Any) -> bool:
            return bool(np.array_equal(one, other)) if isinstance(other, np.ndarray) else bool(one == other)

        def workers() -> None:
            try:
                run(*(lambda me=me: work(me) for me in range(4)))
            finally:
                done.set()

        run(workers, lambda: reclaimer(store, done))
        settled(z, store)


def test_changes_in_place_survive_evictions(engine: EngineFactory) -> None:
    """An update that is under way while its value is evicted is never lost."""
    z = engine()
    done = threading.Event()
    with Store[int, Any](z.cgroup("/a")) as store:
        for key in range(5):
            store[key] = {"count": 0, "array": np.zeros(10_000, dtype=np.int64), "padding": noise(1000)}

        def work(me: int) -> None:
            rng = random.Random(me)
            for turn in range(200):
                if turn == 100:
                    # Three quick threads may be done before the reclaimer has had its first turn.
                    assert evicted.wait(PATIENCE)
                for key in rng.sample(range(5), 5):
                    value = store[key]
                    value["array"][me] += 1
                    with locks[key]:
                        value["count"] += 1
                    del value

        def workers() -> None:
            try:
                run(*(lambda me=me: work(me) for me in range(3)))
            finally:
                done.set()

        evicted = threading.Event()
        locks = [threading.Lock() for _ in range(5)]
        run(workers, lambda: reclaimer(store, done, evicted))
        for key in range(5):
            assert store[key]["count"] == 600
            assert store[key]["array"][:4].tolist() == [200, 200, 200, 0]
        assert store.stats()["evicted"] > 0
        settled(z, store)


def test_reclaims_do_not_get_in_each_others_way(engine: EngineFactory) -> None:
    """Several look at the same values, some of which are held for a while."""
    z = engine()
    with Store[int, Any](z.cgroup("/a")) as store:
        for key in range(20):
            store[key] = [float(key)] * 100

        def reclaim() -> None:
            for _ in range(100):
                store.reclaim(5000)

        def hold(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(100):
                held = [store[key] for key in rng.sample(range(20), 10)]
                assert all(value == [value[0]] * 100 for value in held)

        run(reclaim, reclaim, reclaim, lambda: hold(1), lambda: hold(2))
        assert [store[key] for key in range(20)] == [[float(key)] * 100 for key in range(20)]
        stats = store.stats()
        assert stats["evicted"] == stats["loaded"] > 0
        settled(z, store)


def test_all_who_wait_for_a_load_get_the_same_object(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        loading = threading.Event()
        may_load = threading.Event()

        def on_load() -> None:
            loading.set()
            assert may_load.wait(PATIENCE)

        store["a"] = Acting(on_load=on_load)
        store["b"] = [1]
        evict(store)
        got: list[Any] = []
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(lambda: got.append(store["a"]))
            assert loading.wait(PATIENCE)
            others = [pool.submit(lambda: got.append(store["a"])) for _ in range(3)]
            assert store["b"] == [1]  # nobody else is held up
            assert "a" in store
            assert store.where("a") == "zswap"
            assert len(store) == 2
            store.reclaim(1 << 30)
            may_load.set()
            for future in [first, *others]:
                future.result(PATIENCE)
        assert len({id(value) for value in got}) == 1
        assert store.stats()["loaded"] == 2


def test_a_failed_load_passes_on_to_the_next(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        failures = [ValueError("one"), ValueError("two")]

        def on_load() -> None:
            if failures:
                raise failures.pop()

        store["a"] = Acting(on_load=on_load)
        evict(store)

        def attempt() -> str:
            try:
                return type(store["a"]).__name__
            except ValueError:
                return "ValueError"

        with ThreadPoolExecutor(5) as pool:
            outcomes = [future.result(PATIENCE) for future in [pool.submit(attempt) for _ in range(5)]]
        assert sorted(outcomes) == ["Acting"] * 3 + ["ValueError"] * 2


def test_two_values_that_need_each_other_are_an_error_and_no_deadlock(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        loading = {"a": threading.Event(), "b": threading.Event()}

        def needs(me: str, other: str) -> Callable[[], object]:
            def on_load() -> object:
                loading[me].set()
                assert loading[other].wait(PATIENCE)
                return store[other]

            return on_load

        store["a"] = Acting(on_load=needs("a", "b"))
        store["b"] = Acting(on_load=needs("b", "a"))
        evict(store)

        def attempt(key: str) -> str:
            try:
                return str(store[key])
            except RuntimeError as error:
                return str(error)

        with ThreadPoolExecutor(2) as pool:
            outcomes = [pool.submit(attempt, key).result for key in "ab"]
            said = [outcome(PATIENCE) for outcome in outcomes]
        assert any("needs itself" in text for text in said)
        assert set(store) == {"a", "b"}


def test_evictions_of_one_store_by_the_charges_of_another(engine: EngineFactory) -> None:
    z = engine()
    parent = z.cgroup("/jobs")
    parent.write("memory.max", "2M")
    with Store[int, Any](z.cgroup("/jobs/a")) as one, Store[int, Any](z.cgroup("/jobs/b")) as two:

        def work(store: Store[int, Any], first: int, seed: int) -> None:
            for i in range(60):
                store[first + i % 20] = noise(40_000, seed + i)
                assert store[first + i % 20] == noise(40_000, seed + i)

        run(lambda: work(one, 0, 0), lambda: work(two, 0, 1000), lambda: work(one, 20, 2000))
        assert int(parent.read("memory.current")) <= 2 << 20
        settled(z, one)
        settled(z, two)


@pytest.mark.parametrize("what", ["store", "engine"])
def test_closing_under_load(engine: EngineFactory, what: str) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    cgroup.write("memory.high", "256K")
    store = Store[int, Any](cgroup)
    started = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        started.wait(PATIENCE)
        while True:
            key = rng.randrange(20)
            try:
                if rng.random() < 0.5:
                    store[key] = noise(10_000, key)
                else:
                    assert store.get(key, noise(10_000, key)) == noise(10_000, key)
            except OSError as error:
                said.append(str(error))
                return

    def close() -> None:
        started.wait(PATIENCE)
        for _ in range(50):
            store.reclaim(1 << 20)
        (store if what == "store" else z).close()

    said: list[str] = []
    run(close, *(lambda seed=seed: work(seed) for seed in range(3)))
    assert len(said) == 3
    assert all("is closed: make" in text for text in said)
    if what == "store":
        assert counters(cgroup)["current"] == 0
        z.flush_work()
        z.check()
        cgroup.remove()
    store.close()
