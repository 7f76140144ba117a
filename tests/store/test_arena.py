"""Memory that large buffers come back into, and the arrays whose data lies there."""

from __future__ import annotations

import copy
import os
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.values import evict

from uzswap import Store
from uzswap.process import resident_set
from uzswap.store.arena import Memory, arena_bytes

if TYPE_CHECKING:
    from tests.conftest import EngineFactory

MIB = 1 << 20


def filled(nbytes: int, byte: int) -> Memory:
    memory = Memory(nbytes)
    memoryview(memory)[:] = bytes([byte]) * nbytes
    return memory


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 65536, 100_000, MIB - 1, 2 * MIB, 4 * MIB, 5 * MIB + 1]), st.integers(0, 2)),
        max_size=24,
    )
)
def test_each_buffer_has_its_bytes_whoever_comes_and_goes_around_it(steps: list[tuple[int, int]]) -> None:
    before = arena_bytes()
    there: list[tuple[Memory, int, int]] = []
    for number, (nbytes, gone) in enumerate(steps):
        there.append((filled(nbytes, number), nbytes, number))
        del there[: min(gone, len(there) - 1)]
        for memory, length, byte in there:
            view = memoryview(memory)
            assert len(memory) == memory.nbytes == view.nbytes == length
            if length:
                assert view[0] == view[length // 2] == view[length - 1] == byte
    there.clear()
    if steps:
        del memory, view
    assert arena_bytes() == before


def test_what_a_buffer_had_goes_back_with_it_beside_those_that_stay() -> None:
    """Every other one of an extent's, so that no huge page goes as a whole."""
    before = resident_set()
    there = [filled(256 << 10, 1) for _ in range(256)]
    full = resident_set() - before
    del there[::2]
    half = resident_set() - before
    there.clear()
    assert full >= 64 * MIB
    assert half <= full - 28 * MIB
    assert resident_set() - before <= full - 60 * MIB


def test_it_is_no_more_than_the_system_has() -> None:
    with pytest.raises(MemoryError, match="bytes for a buffer"):
        Memory(1 << 60)
    with pytest.raises(ValueError, match="-1 bytes: a buffer has 0"):
        Memory(-1)


@pytest.mark.parametrize("protocol", [4, 5])
def test_it_can_be_pickled_and_copied(protocol: int) -> None:
    memory = filled(70_000, 7)
    assert bytes(pickle.loads(pickle.dumps(memory, protocol))) == bytes(memory)
    twin = copy.deepcopy(np.frombuffer(memory, np.uint8))
    memoryview(memory)[0] = 8
    assert twin[0] == 7


def test_out_of_band_it_is_its_own_bytes() -> None:
    memory = filled(70_000, 7)
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(memory, 5, buffer_callback=buffers.append)
    assert len(stream) < 200
    assert buffers[0].raw().nbytes == 70_000


class TestArrays:
    @pytest.fixture
    def store(self, engine: EngineFactory) -> Store[str, Any]:
        return Store(engine().cgroup("/a"))

    def test_come_and_go_any_number_of_times(self, store: Store[str, Any]) -> None:
        expected = np.arange(100_000.0)
        store["array"] = expected.copy()
        weight = store.info("array").weight
        before = arena_bytes()
        for turn in range(3):
            assert store.reclaim(1 << 30).freed_bytes
            assert store.where("array") == "zswap"
            assert arena_bytes() == before
            back = store["array"]
            assert np.array_equal(back, expected)
            assert back.flags.writeable
            back += 1
            expected += 1
            del back
            assert arena_bytes() >= before + 800_000, turn
            assert weight <= store.info("array").weight < weight + 1000

    def test_that_see_one_memory_do_so_again(self, store: Store[str, Any]) -> None:
        array = np.arange(100_000.0)
        store["both"] = [array[:60_000], array[40_000:]]
        del array
        for _ in range(3):
            evict(store)
            assert store.where("both") == "zswap"
            first, second = store["both"]
            first[-1] += 1
            assert second[first.size - 1 - 40_000] == first[-1]
            del first, second
        assert store["both"][0][-1] == 60_002

    def test_outlive_the_store(self, store: Store[str, Any]) -> None:
        store["array"] = np.arange(100_000)
        evict(store)
        array = store["array"]
        store.close()
        assert array.sum() == 4_999_950_000

    def test_are_a_forked_childs_own(self, store: Store[str, Any]) -> None:
        store["array"] = np.arange(100_000)
        evict(store)
        array = store["array"]
        child = os.fork()
        if not child:
            array[0] = 1
            wrong = array[0] != 1
            del array
            memory = filled(100_000, 3)
            os._exit(wrong or memoryview(memory)[99_999] != 3)
        assert os.waitpid(child, 0)[1] == 0
        assert array[0] == 0
