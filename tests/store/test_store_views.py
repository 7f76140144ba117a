"""Views of one array that are values of a store: rows, transposes, pieces of a groupby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import counters, evict

from uzswap import Store

try:
    import pandas as pd  # not in a test: it starts threads
except ImportError:
    pd = None

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

    from uzswap.store.weigh import Shared


def rows() -> Iterator[Any]:
    yield from np.arange(200_000.0).reshape(400, -1)


def columns() -> Iterator[Any]:
    yield from np.arange(200_000.0).reshape(-1, 400).T


def transposes() -> Iterator[Any]:
    frame = np.arange(200_000.0).reshape(400, -1)
    for at in range(0, 400, 4):
        yield frame[at : at + 4].T


def rows_in_lists() -> Iterator[Any]:
    frame = np.arange(200_000.0).reshape(400, -1)
    for at in range(0, 400, 4):
        yield {"first": frame[at], "others": [frame[at + 1 : at + 3], frame[at + 2 : at + 4]]}


def pieces_of_a_groupby() -> Iterator[Any]:
    if pd is None:
        pytest.skip("needs pandas: pip install pandas")
    frame = pd.DataFrame({"key": np.arange(60_000) % 30, "a": np.arange(60_000.0), "b": np.arange(60_000) * 0.5})
    for _, piece in frame.groupby("key"):
        yield piece


FAMILIES = [rows, columns, transposes, rows_in_lists, pieces_of_a_groupby]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if hasattr(one, "equals"):
        return bool(one.equals(other))
    return bool(np.array_equal(one, other)) and one.flags.writeable == other.flags.writeable


def fill(store: Store[int, Any], make: Callable[[], Iterator[Any]]) -> int:
    number = 0
    for value in make():
        store[number] = value
        number += 1
    return number


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("shared", ["refer", "pin", "copy"])
def test_views_of_one_array_go_under_a_limit_and_come_back(
    engine: EngineFactory, make: Callable[[], Iterator[Any]], shared: Shared
) -> None:
    if make is pieces_of_a_groupby and shared == "pin":
        pytest.skip("pieces share the index of the columns, which pins them")
    cgroup = engine().cgroup("/a")
    with Store[int, Any](cgroup, shared=shared) as store:
        number = fill(store, make)
        before = store.resident_bytes
        assert 1_400_000 < before < 2_500_000  # the memory once
        cgroup.write("memory.max", "512K")
        assert counters(cgroup)["current"] <= 512 << 10
        store.check()
        for key, value in enumerate(make()):
            assert equal(store[key], value)
            assert counters(cgroup)["anon"] == store.resident_bytes <= 512 << 10
        assert store.stats()["packed_bytes"] + store.resident_bytes < 1.3 * before
        store.check()
        cgroup.write("memory.max", "max")
        assert all(equal(store[key], value) for key, value in enumerate(make()))
        assert store.resident_bytes < 1.3 * before
        assert len(store) == number
        store.clear()
        assert store.resident_bytes == 0
        store.check()


@pytest.mark.parametrize("shared", ["refer", "pin"])
def test_views_stay_while_somebody_outside_sees_their_memory(engine: EngineFactory, shared: Shared) -> None:
    cgroup = engine().cgroup("/a")
    frame = np.arange(200_000.0).reshape(400, -1)
    with Store[int, Any](cgroup, shared=shared) as store:
        for key in range(400):
            store[key] = frame[key]
        evict(store)
        assert store.stats()["resident"] == 400
        assert "399 other values" in store.why(0)
        frame[7, 0] = -1
        assert store[7][0] == -1
        held = store[3]
        del frame
        evict(store)
        assert store.stats()["resident"] == 400
        held.base[8 * 500] = -2  # all of it can be reached from one
        assert store[8][0] == -2
        del held
        assert store.why(0).startswith("nothing keeps it")
        evict(store)
        assert store.stats()["resident"] == 0
        store.check()
        assert store[7][0] == -1
        assert store[8][0] == -2
        assert store[3][0] == 1500


@pytest.mark.parametrize("shared", ["refer", "pin"])
def test_views_that_see_the_same_elements_stay(engine: EngineFactory, shared: Shared) -> None:
    """A change through one is seen in the other, also after a reclaim."""
    with Store[str, Any](engine().cgroup("/a"), shared=shared) as store:
        matrix = np.arange(10_000.0).reshape(100, -1)
        store["matrix"] = matrix[:]
        store["transpose"] = matrix.T
        del matrix
        evict(store)
        store["matrix"][0, 1] = -1
        evict(store)
        assert store["transpose"][1, 0] == -1
        assert "1 other value of the store" in store.why("matrix")
        store["itself"] = store["transpose"].base
        evict(store)
        assert store.stats()["resident"] == 3
        store.check()


def test_a_view_that_is_held_keeps_the_others_in_its_value_together(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        frame = np.arange(10_000.0)
        store["a"] = [frame[:5000], frame[4000:], bytearray(200_000)]
        held = store["a"][0]
        del frame
        evict(store)
        held[4500] = -1
        assert store["a"][0] is held
        assert store["a"][1][500] == -1


def test_what_some_of_a_value_see_of_an_array_comes_back_and_not_the_rest(engine: EngineFactory) -> None:
    with Store[str, Any](engine().cgroup("/a")) as store:
        frame = np.arange(200_000.0)
        store["a"] = [frame[100:200], frame[150:250]]
        del frame
        evict(store)
        assert store.stats()["packed_bytes"] < 2500
        first, second = store["a"]
        first[50:] = -1
        assert (second[:50] == -1).all()
        assert second[50] == 200
