"""What holds for every cache, and for caches over caches."""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.caches.mappings import PATIENCE, Clock, Dropped, run
from tests.support.child import run as run_child

from uzswap import Store
from uzswap.caches import TTL, Bounded, Dumped, Layer, Once

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


@pytest.fixture
def store(engine: EngineFactory) -> Iterator[Store[Any, Any]]:
    with Store[Any, Any](engine().cgroup("/a")) as store:
        yield store


def as_json(below: Any) -> Dumped[Any, Any]:
    return Dumped(below, dump=lambda value: json.dumps(value).encode(), load=json.loads)


CACHES: dict[str, Callable[[Any], Layer[Any, Any]]] = {
    "Layer": Layer,
    "TTL": lambda store: TTL(store, 1000),
    "Bounded": lambda store: Bounded(store, memory="8M", disk="8M"),
    "Once": Once,
    "Dumped": as_json,
    "all": lambda store: Once(TTL(Bounded(as_json(store), memory="8M"), 1000)),
    "all, in another order": lambda store: as_json(Bounded(Once(TTL(store, 1000)), memory="8M")),
}


@pytest.mark.parametrize("name", CACHES)
def test_every_cache_is_a_mapping(store: Store[Any, Any], name: str) -> None:
    cache = CACHES[name](store)
    model: dict[Any, Any] = {}
    for mapping in (cache, model):
        mapping["a"] = [1]
        mapping["b"] = [2]
        mapping.update({"c": [3], "b": [4]})
        assert mapping.setdefault("d", [5]) == [5]
        assert mapping.setdefault("a", [6]) == [1]
    store.reclaim(1 << 20)
    assert cache == model
    assert list(cache) == list(model)
    assert list(cache.values()) == list(model.values())
    assert list(cache.items()) == list(model.items())
    assert cache.get_many(["z", "b", "a"]) == {"b": [4], "a": [1]}
    assert "a" in cache
    assert "z" not in cache
    assert cache.where("a") in ("resident", "zswap", "zero")
    assert cache.get("z") is cache.pop("z", None) is None
    with pytest.raises(KeyError):
        cache["z"]
    with pytest.raises(KeyError):
        cache.pop("z")
    with pytest.raises(KeyError):
        del cache["z"]
    with pytest.raises(KeyError):
        cache.where("z")
    assert not cache.discard("z")
    assert cache.pop("a") == [1]
    assert cache.popitem() == ("d", [5])
    assert cache.discard("b")
    assert list(cache) == ["c"]
    assert len(cache) == 1
    cache.check()
    cache.clear()
    assert not cache
    with pytest.raises(KeyError):
        cache.popitem()
    cache.check()
    cache.close()
    with pytest.raises(OSError, match="closed"):
        cache["a"] = 1


@pytest.mark.parametrize("name", CACHES)
def test_threads_share_every_cache(store: Store[Any, Any], name: str) -> None:
    cache = CACHES[name](store)

    def work(me: int) -> None:
        for step in range(100):
            key = f"{me}-{step % 7}"
            cache[key] = [me, step]
            assert cache[key] == [me, step]
            if step % 5 == 0:
                assert cache.pop(key) == [me, step]
            if step % 20 == 0:
                store.reclaim(1 << 16)
                assert all(value[0] in range(3) for value in cache.values())

    run(*(lambda me=me: work(me) for me in range(3)))
    cache.check()


def test_iteration_goes_on_while_values_go(store: Store[Any, Any]) -> None:
    cache = Layer(store)
    for key in range(10):
        cache[key] = key
    found = []
    for key, value in cache.items():
        found.append(value)
        cache.discard(key + 1)
    assert found == [0, 2, 4, 6, 8]


def test_numpy_values_stay_what_they_are(store: Store[Any, Any]) -> None:
    cache = Once(TTL(Bounded(store, memory="16M"), 1000))
    cache["a"] = np.arange(100_000)
    store.reclaim(1 << 20)
    assert cache.where("a") != "resident"
    assert np.array_equal(cache["a"], np.arange(100_000))


# Formats


def test_bytes_are_those_of_the_users_functions_and_anything_with_a_buffer_will_do(store: Store[Any, Any]) -> None:
    cache = Dumped(store, dump=lambda value: memoryview(value).cast("B"), load=np.frombuffer)
    cache["a"] = np.arange(3.0)
    assert store["a"] == np.arange(3.0).tobytes()
    assert np.array_equal(cache["a"], np.arange(3.0))


ARROW = """
import pyarrow
import uzswap
from uzswap.caches import Dumped

def dump(table):
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()

with uzswap.Zswap(swap_size="64M") as z, uzswap.Store(z.cgroup("/a")) as store:
    cache = Dumped(store, dump=dump, load=lambda data: pyarrow.ipc.open_stream(data).read_all())
    table = pyarrow.table({"a": list(range(1000))})
    cache["t"] = table
    store.reclaim("1M")
    assert store.where("t") == "zswap"
    assert cache["t"] == table
print("done")
"""


def test_arrow_tables_go_as_ipc() -> None:
    """In a child: Arrow starts threads of its own as soon as it is imported."""
    if importlib.util.find_spec("pyarrow") is None:
        pytest.skip("pyarrow is missing: make test installs it")
    assert "done" in run_child(ARROW).stdout


def test_a_format_that_fails_changes_nothing(store: Store[Any, Any]) -> None:
    cache = as_json(store)
    cache["a"] = 1
    with pytest.raises(TypeError, match="not JSON serializable"):
        cache["a"] = object()
    assert cache["a"] == 1
    with pytest.raises(TypeError, match="dump= made str of the value of 'a': it has to make bytes"):
        Dumped(store, dump=str, load=json.loads)["a"] = 1  # type: ignore[type-var]
    store["bad"] = b"{"
    with pytest.raises(json.JSONDecodeError):
        cache.pop("bad")
    assert "bad" in cache
    with pytest.raises(TypeError, match="load= is a function"):
        Dumped(store, dump=bytes, load=None)  # type: ignore[arg-type]


# Callbacks


def test_a_callback_may_use_the_cache_and_other_threads_may_too(store: Store[Any, Any]) -> None:
    """It runs under no lock, of whatever layer: another thread gets at every key meanwhile."""
    clock = Clock()

    def on_evict(key: Any, value: Any, reason: str) -> None:
        def other() -> None:
            cache["a"] = cache["b"] = "other"

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        cache["told"] = [key, value, reason]

    cache = Once(TTL(TTL(store, 10, clock=clock, on_evict=on_evict), None, clock=clock))
    cache["a"] = "old"
    clock.now += 10
    cache["a"] = "new"  # under the keys of three layers
    assert cache["told"] == ["a", "old", "expired"]
    assert cache["b"] == "other"
    cache.check()


def test_what_a_callback_raises_is_logged_and_the_others_are_called(
    store: Store[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    told = []

    def on_evict(key: Any, value: Any, reason: str) -> None:
        told.append(key)
        raise ValueError(f"of {key}")

    cache = TTL(store, 10, clock=clock, on_evict=on_evict)
    cache["a"] = cache["b"] = 1
    clock.now += 10
    with caplog.at_level(logging.ERROR, "uzswap.caches"):
        assert len(cache) == 0
    assert told == ["a", "b"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["of a", "of b"]
    cache.check()


def test_an_interrupt_in_a_callback_comes_out_when_the_others_were_called(store: Store[Any, Any]) -> None:
    told = []

    def on_evict(key: Any, value: Any, reason: str) -> None:
        told.append(key)
        if key == "a":
            raise KeyboardInterrupt

    cache = Once(Bounded(store, memory="256K", disk=0, on_evict=on_evict))
    for key in "abcde":
        cache[key] = os.urandom(40_000)
    assert told == []
    with pytest.raises(KeyboardInterrupt):
        cache["f"] = os.urandom(160_000)
    assert told[:3] == ["a", "b", "c"]
    assert list(cache) == ["abcdef"[i] for i in range(len(told), 6)]
    cache.check()


def test_a_callback_that_makes_others_due_is_not_called_within_itself(store: Store[Any, Any]) -> None:
    clock = Clock()
    depth = most = 0

    def on_evict(key: int, value: Any, reason: str) -> None:
        nonlocal depth, most
        depth += 1
        most = max(most, depth)
        if key < 50:
            cache[key + 1] = 1
            clock.now += 10
            len(cache)
        depth -= 1

    cache = TTL(store, 10, clock=clock, on_evict=on_evict)
    cache[0] = 1
    clock.now += 10
    assert len(cache) == 0
    assert most == 1


def test_a_value_that_cannot_be_loaded_is_dropped_and_told_of_without(store: Store[Any, Any]) -> None:
    clock, dropped = Clock(), Dropped()
    cache = TTL(as_json(store), 10, clock=clock, on_evict=dropped)
    cache["a"] = 1
    store["a"] = b"{"
    clock.now += 10
    assert len(cache) == 0
    assert "a" not in store
    assert dropped == [("a", None, "expired")]


def test_bad_layers_are_told(store: Store[Any, Any]) -> None:
    with pytest.raises(TypeError, match="a mapping is needed below"):
        TTL(3, 10)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_evict"):
        TTL(store, 10, on_evict=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ttl is seconds"):
        TTL(store, "long")  # type: ignore[arg-type]


# Whatever comes in between


def test_a_finalizer_may_use_the_cache_that_its_value_goes_from(store: Store[Any, Any]) -> None:
    clock = Clock()

    class Final:
        def __del__(self) -> None:
            cache["a"] = cache["b"] = "from the finalizer"

    cache = Once(TTL(Bounded(store), 10, clock=clock))
    cache["a"] = Final()
    cache["a"] = "new"
    assert cache["b"] == "from the finalizer"
    cache["a"] = Final()
    del cache["a"]
    gc.collect()
    cache.check()


# One that comes while Python calls a weak reference's callback goes no further than that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_leave_a_cache_whole(store: Store[Any, Any]) -> None:
    """A signal handler raises again and again, wherever it happens to come."""

    class Interrupt(BaseException):
        pass

    def handler(number: int, frame: object) -> None:
        raise Interrupt

    ttl = TTL(Bounded(store, memory="4M"), 1000)
    cache = Once(ttl)
    before = signal.signal(signal.SIGALRM, handler)
    interrupts = 0
    try:
        for turn in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 * (1 + turn % 20))
                for step in range(1000):
                    key = step % 20
                    cache[key] = [key] * 50
                    assert cache.get(key) in (None, [key] * 50)
                    cache.get_or_compute(key + 100, lambda: [1])
                    cache.discard(key)
                    cache.discard(key + 100)
            except Interrupt:
                interrupts += 1
            finally:
                while True:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        break
                    except Interrupt:
                        interrupts += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 100
    cache.check()
    assert all(ttl.expires_in(key) is not None for key in ttl)  # nothing lives for ever
    assert run(lambda: [cache.setdefault(key, 1) for key in range(20)])  # no key is held


@pytest.mark.parametrize("name", CACHES)
def test_every_cache_lets_its_store_evict_and_pin(store: Store[Any, Any], name: str) -> None:
    cache = CACHES[name](store)
    cache["a"] = [1] * 1000
    assert cache.info("a").place == "resident"
    cache.pin("a")
    assert cache.evict("a") == 0
    cache.unpin("a")
    assert cache.evict("a") > 0
    assert cache.where("a") == cache.info("a").place == "zswap"
    for method in (cache.info, cache.evict, cache.pin, cache.unpin):
        with pytest.raises(KeyError):
            method("nothing")
    with pytest.raises(TypeError, match=r"no uzswap\.Store"):
        Layer({"a": 1}).pin("a")
