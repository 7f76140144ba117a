"""Arrays of datetimes are kept, and come back, as other arrays are."""

from __future__ import annotations

import copyreg
import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.store.values import evict

from uzswap import Store
from uzswap.store.arena import arena_bytes
from uzswap.store.datetimes import dispatch_table, reduced

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


class Asked(pickle.Pickler):
    reducer_override = staticmethod(reduced)


def there_and_back(value: Any, out_of_band: bool, asked: bool = False) -> tuple[Any, int]:
    """The value anew, and how many of its buffers went out of band."""
    file = io.BytesIO()
    buffers: list[Any] = []
    pickler = (Asked if asked else pickle.Pickler)(
        file, protocol=5, buffer_callback=buffers.append if out_of_band else None
    )
    if not asked:
        pickler.dispatch_table = dispatch_table()
    pickler.dump(value)
    return pickle.loads(file.getvalue(), buffers=[bytearray(buffer.raw()) for buffer in buffers]), len(buffers)


@settings(max_examples=80, deadline=None)
@given(
    st.data(),
    st.sampled_from(["M8[s]", "M8[ns]", "m8[ms]", ">M8[us]", "<m8[D]", "M8[25s]", "f8", "O"]),
    st.sampled_from(["C", "F", "reversed", "readonly"]),
    st.booleans(),
    st.booleans(),
)
def test_any_array_comes_back(data: st.DataObject, dtype: str, order: str, out_of_band: bool, asked: bool) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
    numbers = data.draw(hnp.arrays(np.int64, shape))
    array = numbers.astype(dtype) if dtype in ("f8", "O") else numbers.view(dtype)
    if order == "reversed" and array.ndim:
        array = array[::-1]
    elif order == "F":
        array = np.asfortranarray(array)
    elif order == "readonly":
        array.flags.writeable = False
    back, _ = there_and_back(array, out_of_band, asked)
    # Of what is not contiguous numpy turns the bytes round itself, as it does without us.
    native = array.dtype.newbyteorder("=")
    assert back.dtype.newbyteorder("=") == native
    assert back.shape == array.shape
    assert back.flags.writeable or order == "readonly"
    if dtype == "O":
        assert np.array_equal(back, array)
    else:
        assert back.astype(native).tobytes() == array.astype(native).tobytes()


def test_a_reducer_of_the_program_s_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, np.ndarray, lambda array: (list, (array.tolist(),)))
    assert there_and_back([np.arange(3)], True) == ([[0, 1, 2]], 0)


def test_they_go_out_of_band() -> None:
    times = np.arange(100_000).astype("M8[s]")
    back, buffers = there_and_back([times, times], True)
    assert buffers == 1
    assert back[0] is back[1]
    assert there_and_back(times.astype(object)[:10], True)[1] == 0
    assert there_and_back(times[::2], True)[1] == 0


class TestInAStore:
    @pytest.fixture
    def store(self, engine: EngineFactory) -> Store[str, Any]:
        return Store(engine().cgroup("/a"))

    def test_a_frame_of_times_is_small_and_its_own(self, store: Store[str, Any]) -> None:
        def make() -> pandas.DataFrame:
            times = pandas.date_range("2026-01-01", periods=50_000, freq="min", tz="Europe/Berlin")
            return pandas.DataFrame({"time": times, "took": times - times[0], "number": np.arange(50_000)})

        store["frame"] = make()
        before = arena_bytes()
        evict(store)
        assert store.where("frame") == "zswap"
        # As those of other arrays its numbers are shuffled, without which they are half as large as they were.
        assert store.stats()["zswap_bytes"] < make().memory_usage().sum() / 6
        frame = store["frame"]
        pandas.testing.assert_frame_equal(frame, make())
        assert arena_bytes() >= before + 3 * 400_000
        frame.loc[0, "number"] = 7
        assert frame["number"][0] == 7

    def test_rows_of_one_array(self, store: Store[str, Any]) -> None:
        times = np.arange(200_000).astype("M8[s]").reshape(2, -1)
        store["both"] = [times[0], times[1][::-1]]
        del times
        evict(store)
        assert store.where("both") == "zswap"
        first, second = store["both"]
        assert first.base is not None
        assert first[1] == np.datetime64(1, "s")
        assert second[0] == np.datetime64(199_999, "s")
