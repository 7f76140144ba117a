"""Values that share parts with others, in a store: what comes back, what stays, and why."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import Acting, counters, evict

import uzswap
from uzswap import Store

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def test_values_that_share_an_object_come_back_sharing_it(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        shared = [0]
        store["a"] = [shared]
        store["b"] = {"x": shared}
        evict(store)
        assert store.stats()["packed"] == 2
        store["a"][0].append(1)
        assert store["b"]["x"] == [0, 1]
        assert store["b"]["x"] is shared
        del shared
        evict(store)
        store["b"]["x"].append(2)
        assert store["a"] == [[0, 1, 2]]


def test_a_shared_dict_of_settings_does_not_fill_a_limit(engine: EngineFactory) -> None:
    settings = {"hosts": ["a", "b"], "retries": 3}
    cgroup = engine().cgroup("/a")
    cgroup.write("memory.max", "2M")
    with Store[int, Any](cgroup) as store:
        for key in range(200):
            store[key] = {"settings": settings, "data": [float(number) for number in range(1000)]}
        settings["retries"] = 5
        for key in range(200):
            assert store[key]["settings"] is settings
            assert store[key]["data"][-1] == 999.0


def test_settings_larger_than_what_refers_to_them_are_charged_once(engine: EngineFactory) -> None:
    """A limit that holds two values with their settings holds any number of them."""
    settings = {f"option {i}": [f"value {i}", i] for i in range(200)}
    cgroup = engine().cgroup("/a")
    cgroup.write("memory.max", "256K")
    with Store[int, Any](cgroup) as store:
        for key in range(200):
            store[key] = {"settings": settings, "row": [key]}
        evict(store)
        store.check()
        assert store.stats()["resident"] == 0
        alone = store.resident_bytes
        assert 8000 < alone < 60_000  # the settings, once
        settings["option 0"].append("seen by all")
        for key in range(200):
            assert store[key]["settings"] is settings
            assert store[key]["row"] == [key]
        store.check()
        evict(store)
        store.check()
        for key in range(100):
            del store[key]
        store[100] = "something else"
        assert store.pop(101)["settings"] is settings
        store.check()
        store.clear()
        store.check()
        assert store.resident_bytes == cgroup.usage() == 0


def test_what_frees_less_than_is_charged_for_its_parts_stays(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        part: list[Any] = []
        store["a"] = [part]
        part.extend([float(i)] for i in range(10_000))  # after it was weighed
        evict(store)
        assert store.where("a") == "resident"
        assert store.stats()["referenced"] == 1
        store.check()
        store.reweigh()
        evict(store)
        assert store.where("a") == "zswap"
        assert store["a"][0] is part
        store.check()


def test_copies_do_not_see_later_changes(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a"), shared="copy") as store:
        settings = {"retries": 3}
        store["a"] = whole = {"settings": settings}
        evict(store)
        settings["retries"] = 5
        assert store["a"] == {"settings": {"retries": 3}}
        assert store["a"] is not whole


def test_rows_of_one_array_come_back_as_rows_of_one_array(engine: EngineFactory) -> None:
    cgroup = engine().cgroup("/a")
    with Store[str, Any](cgroup) as store:
        store["rows"] = list(np.arange(100_000.0).reshape(100, 1000))
        for _ in range(2):
            evict(store)
            assert store.where("rows") == "zswap"
            rows = store["rows"]
            assert all(np.array_equal(row, np.arange(1000.0) + 1000 * n) for n, row in enumerate(rows))
            assert store.resident_bytes == counters(cgroup)["anon"] < 900_000
            del rows


def test_why(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        store["free"] = [1.5]
        store["held"] = held = [2.5]
        store["stuck"] = [(number for number in held)]
        assert store.why("free").startswith("nothing keeps it")
        assert "the variable held of test_why()" in store.why("held")
        assert "a generator" in store.why("stuck")
        evict(store)
        assert "coldest" in store.why("free")
        with pytest.raises(KeyError):
            store.why("nothing")


def test_the_programs_own_measure(engine: EngineFactory) -> None:
    cgroup = engine().cgroup("/a")
    with Store[str, Any](cgroup, sizeof=len) as store:
        store["a"] = ["x"] * 5000
        assert store.resident_bytes == counters(cgroup)["anon"] == 5000
        evict(store)
        assert store.resident_bytes == 0
        assert len(store["a"]) == 5000
        assert store.resident_bytes == 5000
        with pytest.raises(TypeError) as raised:
            store["b"] = 5
        assert "sizeof" in raised.value.__notes__[0]
        assert "b" not in store
        assert store.resident_bytes == 5000


def test_an_unknown_way_to_share_is_refused(engine: EngineFactory) -> None:
    with pytest.raises(ValueError, match="refer"):
        Store(engine().cgroup("/a"), shared="maybe")  # type: ignore[arg-type]


def whole_pages(nbytes: int) -> int:
    """As memory.current has them."""
    return -(-nbytes // 4096) * 4096


def test_groups_of_a_frame_are_charged_once(engine: EngineFactory) -> None:
    """Each is a view of the one array: what they weigh together is that, and it goes with the last."""
    cgroup = engine().cgroup("/a")
    frame = np.arange(1 << 18, dtype=np.int64)  # 2 MiB
    with Store[int, Any](cgroup) as store:
        for key in range(32):
            store[key] = frame[key << 13 : (key + 1) << 13]
        assert frame.nbytes <= store.resident_bytes < frame.nbytes + (1 << 16)
        assert whole_pages(store.resident_bytes) == int(cgroup.read("memory.current"))
        store.check()
        for key in range(31):
            del store[key]
        assert store.resident_bytes >= frame.nbytes  # the last keeps all of it alive
        store[31] = "another"
        assert store.resident_bytes < 1 << 10
        store.check()
        store[1] = frame[:100]
        store[2] = frame[100:]
        assert whole_pages(store.reweigh()) == int(cgroup.read("memory.current"))
        store[1] = frame[5:]
        store.check()
        store.clear()
        assert store.resident_bytes == int(cgroup.read("memory.current")) == 0


def test_an_array_of_the_engines_own_is_not_charged_a_second_time(engine: EngineFactory) -> None:
    z = engine()
    cgroup = z.cgroup("/a")
    try:
        array = uzswap.ones(1 << 18, cgroup=cgroup)
    except OSError as refused:
        pytest.skip(f"{refused.strerror}")
    uzswap.advise(array, "willneed")
    before = int(cgroup.read("memory.current"))
    with Store[str, Any](cgroup) as store:
        store["array"] = array
        store["view"] = [array[5:]]
        store["plain"] = np.ones(1 << 15)
        assert int(cgroup.read("memory.current")) - before == whole_pages(store.resident_bytes)
        assert store.resident_bytes < (1 << 18) + 2000
        store.check()
        del store["array"]
        store.check()
        assert (store["view"][0] == 1).all()
    del array


def test_a_value_that_cannot_be_charged_anew_leaves_the_charge_as_it_was(engine: EngineFactory) -> None:
    """There is no room for what it weighs now."""
    cgroup = engine().cgroup("/a")
    with Store[int, Any](cgroup) as store:
        held = store[0] = [b"x" * 1000]
        before = store.resident_bytes
        cgroup.write("memory.max", "8K")
        held.append(b"y" * 100_000)
        with pytest.raises(MemoryError):
            store.reweigh()
        assert store.resident_bytes == before
        assert int(cgroup.read("memory.current")) == whole_pages(before)
        store.check()
        cgroup.write("memory.max", "max")
        assert store.reweigh() > 100_000
        store.check()


def test_a_handler_that_raises_out_of_charging_a_value_anew_leaves_the_charge_as_it_was(engine: EngineFactory) -> None:
    """It runs when the reclaim ends that the charge has begun: a value that goes out for it has sent the signal."""

    class Interrupt(Exception):
        pass

    def handler(*_: object) -> None:
        raise Interrupt

    cgroup = engine().cgroup("/a")
    frame = np.arange(1 << 14)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with Store[str, Any](cgroup) as store:
            held = store["held"] = [frame[:10]]
            store["goes"] = Acting(lambda: signal.raise_signal(signal.SIGUSR1))
            current = cgroup.usage()
            cgroup.write("memory.max", current + 4096)
            held.extend((frame[10:], bytearray(8000)))
            with pytest.raises(Interrupt):
                store.reweigh()
            assert store.where("goes") != "resident"
            assert cgroup.usage() - counters(cgroup)["zswap"] == store.resident_bytes < current
            store.check()
            cgroup.write("memory.max", current - 4096)
            with pytest.raises(MemoryError):
                store.reweigh()
            assert cgroup.usage() - counters(cgroup)["zswap"] == store.resident_bytes < current
            store.check()
            cgroup.write("memory.max", "max")
            assert store.reweigh() > current - 4096
            store.check()
    finally:
        signal.signal(signal.SIGUSR1, before)
