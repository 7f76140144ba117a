"""Chunks and back, with a dict in the place of the engine."""

from __future__ import annotations

import array
import collections
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from uzswap.store.arena import Memory
from uzswap.store.packing import BATCH, CHUNK, Packed, Refused, pack, unpack


class Chunks:
    """Where the chunks go, and what was asked of it."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.stored: dict[int, bytes] = {}
        self.room = room
        self.put_from: list[tuple[int, Any]] = []  # bytes, and the object whose memory it was
        self.got_into: list[tuple[int, Any]] = []
        self._next = 1

    def put(self, data: memoryview, array: object = None) -> Any:
        self.put_from.append((data.nbytes, data.obj))
        pieces = [bytes(data[start : start + CHUNK]) for start in range(0, data.nbytes, CHUNK)]
        if len(self.stored) + len(pieces) > self.room:
            raise Refused
        handles = range(self._next, self._next + len(pieces))
        self._next += len(pieces)
        self.stored.update(zip(handles, pieces, strict=True))
        return np.array(handles, np.uint64)

    def get(self, handles: Any, out: memoryview) -> None:
        self.got_into.append((out.nbytes, out.obj))
        data = b"".join(self.stored[int(handle)] for handle in handles)
        assert len(data) == out.nbytes
        out[:] = data

    def free(self, handles: Any) -> None:
        for handle in handles:
            del self.stored[int(handle)]

    def pack(self, value: Any) -> Packed:
        return pack(value, self.put, self.free)

    def unpack(self, packed: Packed) -> Any:
        return unpack(packed, self.get)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


VALUES: dict[str, Callable[[], Any]] = {
    "empty bytes": lambda: b"",
    "a byte": lambda: b"x",
    "one chunk of bytes": lambda: noise(CHUNK),
    "a byte more": lambda: noise(CHUNK + 1),
    "bytes": lambda: noise(5 * CHUNK + 17),
    "empty bytearray": bytearray,
    "bytearray": lambda: bytearray(noise(BATCH + 17)),
    "None": lambda: None,
    "empty list": list,
    "empty string": str,
    "string": lambda: "äöü" * BATCH,
    "many small objects": lambda: {i: str(i) for i in range(200_000)},
    "large bytes among small": lambda: [1, noise(3 * BATCH + 5), "x", noise(BATCH), noise(BATCH - 1), noise(100), 2],
    "array.array": lambda: array.array("d", range(100_000)),
    "deque": lambda: collections.deque(range(100_000), maxlen=100_000),
    "empty array": lambda: np.arange(0),
    "small array": lambda: np.arange(10),
    "array": lambda: np.arange(100_000),
    "scalar array": lambda: np.array(1.5),
    "arrays": lambda: {"a": np.arange(100_000), "b": [np.arange(5), np.arange(50_000, dtype="f4")], "c": "x"},
    "Fortran order": lambda: np.asfortranarray(np.arange(100_000).reshape(100, 1000)),
    "transposed": lambda: np.arange(100_000).reshape(100, 1000).T,
    "not contiguous": lambda: np.arange(200_000)[::2],
    "backwards": lambda: np.arange(100_000)[::-1],
    "big endian": lambda: np.arange(100_000, dtype=">i4"),
    "structured": lambda: np.zeros(50_000, dtype="i4,f8"),
    "strings": lambda: np.array(["abc", "defgh"] * 50_000),
    "dates": lambda: np.arange("2026-01", "2400-01", dtype="datetime64[D]"),
    "objects in an array": lambda: np.array([[i] for i in range(10_000)] + [None], dtype=object),
    "masked": lambda: np.ma.masked_less(np.arange(100_000), 500),
}


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray):
        return pickle.dumps(one) == pickle.dumps(other)
    if other.flags.forc and one.flags.f_contiguous != other.flags.f_contiguous:
        return False
    return one.dtype == other.dtype and np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name: str) -> None:
    chunks = Chunks()
    value = VALUES[name]()
    packed = chunks.pack(value)
    assert sum(packed.lengths) == sum(map(len, chunks.stored.values()))
    assert len(packed.handles) == len(chunks.stored)
    back = chunks.unpack(packed)
    assert type(back) is type(value)
    assert same(back, value)
    assert same(chunks.unpack(packed), value)  # nothing was consumed
    chunks.free(packed.handles)
    assert chunks.stored == {}


def test_bytes_are_stored_as_they_are() -> None:
    chunks = Chunks()
    value = noise(200_000)
    chunks.pack(value)
    assert b"".join(chunks.stored.values()) == value
    assert [source is value for _, source in chunks.put_from] == [True]


def test_a_large_array_is_compressed_where_it_lies_and_loaded_into_its_own_memory() -> None:
    chunks = Chunks()
    value = np.arange(500_000)
    packed = chunks.pack(value)
    assert [(nbytes, source is value) for nbytes, source in chunks.put_from if nbytes >= CHUNK] == [
        (value.nbytes, True)
    ]
    back = chunks.unpack(packed)
    [(nbytes, target)] = [got for got in chunks.got_into if got[0] >= CHUNK]
    assert nbytes == value.nbytes
    assert isinstance(target, Memory)
    assert np.shares_memory(np.frombuffer(target, np.uint8), back)
    assert back.flags.writeable


@pytest.mark.parametrize("make", [bytes, bytearray])
def test_large_bytes_inside_a_value_are_not_copied_either(make: type) -> None:
    chunks = Chunks()
    inner = make(noise(2 * BATCH))
    packed = chunks.pack(["x", inner])
    assert [source is inner for nbytes, source in chunks.put_from if nbytes > BATCH] == [True]
    assert chunks.unpack(packed) == ["x", inner]
    assert [nbytes for nbytes, _ in chunks.got_into if nbytes > BATCH] == [2 * BATCH]


def test_a_read_only_array_stays_read_only() -> None:
    chunks = Chunks()
    value = np.arange(100_000)
    value.flags.writeable = False
    assert not chunks.unpack(chunks.pack(value)).flags.writeable


def test_packing_many_small_objects_needs_little_memory_at_once() -> None:
    chunks = Chunks()
    chunks.pack([noise(1000) + bytes([i % 256]) for i in range(10_000)])
    assert max(nbytes for nbytes, _ in chunks.put_from) <= BATCH + CHUNK
    chunks.unpack(chunks.pack(list(range(10**6))))
    assert max(nbytes for nbytes, _ in chunks.got_into) <= BATCH + CHUNK


def test_neighbours_share_a_chunk() -> None:
    chunks = Chunks()
    packed = chunks.pack([np.arange(100) for _ in range(50)])
    assert packed.stream == len(packed.lengths) == len(packed.handles) == 1


def test_identity_within_a_value_is_kept() -> None:
    inner: list[Any] = []
    inner.append(inner)
    chunks = Chunks()
    back = chunks.unpack(chunks.pack([inner, inner]))
    assert back[0] is back[1] is back[0][0]


@pytest.mark.parametrize("room", range(5))
def test_what_is_refused_half_way_leaves_nothing(room: int) -> None:
    chunks = Chunks(room)
    value = [np.arange(2 * CHUNK, dtype="u1"), noise(BATCH), np.arange(CHUNK, dtype="u1")]
    with pytest.raises(Refused):
        chunks.pack(value)
    assert chunks.stored == {}


@pytest.mark.parametrize(
    "bad", [lambda: 0, (i for i in [1]), memoryview(b"x"), pickle.PickleBuffer(memoryview(b"abcd")[::2])]
)
def test_what_cannot_be_pickled_leaves_nothing(bad: Any) -> None:
    chunks = Chunks()
    with pytest.raises(Exception, match=r"pickle|contiguous"):
        chunks.pack([noise(2 * BATCH), np.arange(100_000), bad])
    assert chunks.stored == {}


class Stubborn:
    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> Any:
    raise KeyError("not today")


def test_an_error_of_the_values_own_comes_through() -> None:
    chunks = Chunks()
    packed = chunks.pack([Stubborn()])
    with pytest.raises(KeyError, match="not today"):
        chunks.unpack(packed)
    assert len(chunks.stored) == len(packed.handles)
