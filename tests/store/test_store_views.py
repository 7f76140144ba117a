"""Views of one array that are values of a store: rows, transposes, pieces of a groupby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.store.values import counters, evict

from uzswap import Store
from uzswap.store import eviction
from uzswap.store.weigh import pieces

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


class TestAnArrayOfTheCallers:
    """One that is larger than the cgroup may have, put in piece by piece while the caller keeps it."""

    @pytest.fixture
    def array(self) -> Any:
        return (np.arange(1 << 20) // 7).reshape(128, -1)

    @pytest.mark.parametrize(
        "pieces",
        [
            lambda array: list(array),
            lambda array: [array[at : at + 3] for at in range(0, 128, 3)],
            lambda array: [array[:, at : at + 64] for at in range(0, 8192, 64)],
            lambda array: [{"row": row, "again": row[:10]} for row in array],
            lambda array: list(array.view([("a", "i4"), ("b", "i4")])),
        ],
        ids=["rows", "slices", "columns", "rows in dicts", "records"],
    )
    def test_fills_a_store_that_copies(
        self, engine: EngineFactory, array: Any, pieces: Callable[[Any], list[Any]]
    ) -> None:
        cgroup = engine().cgroup("/a")
        cgroup.write("memory.max", "2M")
        with Store[int, Any](cgroup, shared="copy") as store:
            expected = pieces(array)
            for key, piece in enumerate(pieces(array)):
                store[key] = piece
                assert counters(cgroup)["current"] <= 2 << 20
            assert store.stats()["packed"] > len(expected) // 2
            assert all(equal(store[key], piece) for key, piece in enumerate(expected))
            assert counters(cgroup)["anon"] == store.resident_bytes <= 2 << 20
            store.check()
            store.clear()
            assert counters(cgroup)["current"] == 0

    def test_is_charged_for_what_is_seen_of_it(self, engine: EngineFactory, array: Any) -> None:
        with Store[Any, Any](engine().cgroup("/a"), shared="copy") as store:
            store["row"] = array[5]
            assert 65_536 <= store.resident_bytes < 66_500
            store["a little"] = array[6, :8]
            assert 65_600 < store.resident_bytes < 67_000
            store["row again"] = array[5]
            assert 65_800 < store.resident_bytes < 67_500  # the same bytes
            store["its own"] = np.arange(1 << 17)[:10]  # nobody else keeps what it is a view of
            assert store.resident_bytes > 1 << 20

    def test_what_goes_out_is_what_was_there_then(self, engine: EngineFactory, array: Any) -> None:
        with Store[Any, Any](engine().cgroup("/a"), shared="copy") as store:
            store["row"] = array[5]
            array[5, 0] = -1
            evict(store)
            array[5, 1] = -2
            assert store["row"][0] == -1
            assert store["row"][1] == 5 * 8192 // 7

    @pytest.mark.parametrize("shared", ["refer", "pin"])
    def test_is_refused_by_others_which_say_what_helps(self, engine: EngineFactory, array: Any, shared: Shared) -> None:
        cgroup = engine().cgroup("/a")
        cgroup.write("memory.max", "2M")
        with Store[int, Any](cgroup, shared=shared) as store:
            with pytest.raises(MemoryError) as caught:
                store[0] = array[0]
            assert "shared='copy'" in caught.value.__notes__[0]
            assert len(store) == 0
            assert counters(cgroup)["current"] == 0
            with pytest.raises(MemoryError) as caught:
                store[0] = array.copy()
            assert not getattr(caught.value, "__notes__", [])
            store.check()


@pytest.mark.parametrize("shared", ["refer", "pin"])
def test_rows_of_an_array_that_was_loaded_go_like_any_others(engine: EngineFactory, shared: Shared) -> None:
    cgroup = engine().cgroup("/a")
    with Store[Any, Any](cgroup, shared=shared) as store:
        store["array"] = np.arange(200_000.0).reshape(400, -1)
        evict(store)
        array = store.pop("array")
        for key in range(400):
            store[key] = array[key]
        assert 1_600_000 < store.resident_bytes < 1_800_000
        evict(store)
        assert store.stats()["resident"] == 400
        array[7, 0] = -1
        del array
        evict(store)
        assert store.stats()["resident"] == 0
        assert store[7][0] == -1
        assert store[399][-1] == 199_999
        store.check()


def test_what_goes_of_an_array_that_was_loaded_is_what_is_seen_of_it(engine: EngineFactory) -> None:
    """Also where a value sees it twice, and has to see it so when it is back."""
    with Store[Any, Any](engine().cgroup("/a")) as store:
        store["array"] = np.random.default_rng(1).integers(0, 1 << 62, (100, 2000))
        evict(store)
        array = store.pop("array")
        expected = array.copy()
        for key in range(100):
            store[key] = [array[key], array[key][:10]]
        del array
        evict(store)
        assert store.stats()["resident"] == 0
        assert store.stats()["zswap_bytes"] < 1.1 * expected.nbytes
        for key in range(100):
            row, start = store[key]
            assert np.array_equal(row, expected[key])
            row[3] = -key
            assert start[3] == -key
        store.check()


def test_rows_of_a_small_array_go_too(engine: EngineFactory) -> None:
    with Store[int, Any](engine().cgroup("/a")) as store:
        for at in range(50):
            for row, values in enumerate(np.full((4, 20), at)):
                store[4 * at + row] = values
        del values
        evict(store)
        assert store.stats()["resident"] == 0
        assert store.resident_bytes == 0
        assert [int(store[key].sum()) for key in range(200)] == [20 * (key // 4) for key in range(200)]
        store.check()


def test_a_large_family_that_somebody_outside_sees_is_looked_at_now_and_then(
    engine: EngineFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0

    def counted(once: list[Any]) -> Any:
        nonlocal looked
        looked += 1
        return pieces(once)

    monkeypatch.setattr(eviction, "pieces", counted)
    with Store[int, Any](engine().cgroup("/a")) as store:
        array = np.zeros((1500, 4))
        for key in range(1500):
            store[key] = array[key]
        for _ in range(64):
            assert store.reclaim(4096).freed_bytes == 0
        assert 1500 <= looked <= 8 * 1500  # not 64 times
        before = looked
        assert store.reclaim(1 << 20).freed_bytes == 0  # so much is worth a look
        assert looked > before
        del array
        evict(store)
        assert store.stats()["resident"] == 0
        store.check()
