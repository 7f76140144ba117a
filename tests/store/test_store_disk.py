"""Values that stand together on the device come with each other, and never as they were before."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import uzswap
from uzswap import IntegrityError, Store
from uzswap.files.engine import engine_file

if TYPE_CHECKING:
    from tests.conftest import EngineFactory


def to_disk(store: Store[int, bytes]) -> None:
    store.reclaim("1G")
    with contextlib.suppress(uzswap.ReclaimIncomplete):
        store.cgroup.reclaim("1G", source="zswap")


def test_no_value_is_read_as_what_was_in_its_place_before(engine: EngineFactory) -> None:
    """Segments of a small device are used anew all the time, while what is around each value is kept."""
    z = engine(swap_size="4M")
    turns = random.Random(1)
    expected: dict[int, bytes] = {}
    with Store[int, bytes](z.cgroup("/a")) as store:
        for _ in range(30):
            for key in turns.sample(range(300), 100):
                expected[key] = store[key] = turns.randbytes(turns.randrange(1, 6000))
            to_disk(store)
            for key in turns.sample(sorted(expected), min(len(expected), 60)):
                assert store[key] == expected[key]
            for key in turns.sample(sorted(expected), 20):
                del store[key], expected[key]
        assert {key: store[key] for key in store} == expected
        z.check()


def test_what_is_around_a_damaged_value_is_read_and_it_alone_is_told(engine: EngineFactory, tmp_path: Path) -> None:
    path = tmp_path / "swap"
    z = engine(swap=str(path), swap_size="4M", encrypt=False)
    values = {key: bytes([65 + key]) * 40 + os.urandom(1000) for key in range(8)}
    with Store[int, bytes](z.cgroup("/a")) as store:
        for key, value in values.items():
            store[key] = bytes(bytearray(value))  # nobody else's
        to_disk(store)
        assert {store.where(key) for key in store} == {"disk"}
        data = path.read_bytes()
        at = data.index(values[5][100:200])
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes(50))
        with pytest.raises(IntegrityError):
            store[5]
        for key in values.keys() - {5}:
            assert store[key] == values[key]
        with pytest.raises(IntegrityError):
            store[5]
        store.discard(5)


def test_what_is_kept_of_the_device_around_values_is_counted(engine: EngineFactory) -> None:
    z = engine()

    def counted() -> int:
        return int(engine_file("zswap/debug/uzswap.read_around_bytes").read(z, z.root))

    with Store[int, bytes](z.cgroup("/a")) as store:
        for key in range(100):
            store[key] = os.urandom(1000)
        to_disk(store)
        assert counted() == uzswap.report(z).process.read_around == 0
        for key in range(99):
            store[key]
        assert counted() == 1 << 20
        assert 100 * 1000 <= uzswap.report(z).process.read_around <= 1 << 20
        store[99]
        assert counted() == 0  # with the last of what was out


def reads() -> tuple[int, int]:
    """How many there were in this process, and of how many bytes."""
    found = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(found["syscr"]), int(found["rchar"])


def test_where_nothing_around_a_value_is_wanted_only_it_is_read(engine: EngineFactory) -> None:
    """Random places in more than is kept of them; and when values are wanted in order again, their neighbours come."""
    turns = random.Random(1)
    values = {key: turns.randbytes(1000) for key in range(8000)}
    with Store[int, bytes](engine(swap_size="32M").cgroup("/a")) as store:
        for key, value in values.items():
            store[key] = bytes(bytearray(value))
        to_disk(store)

        def get(keys: Iterable[int]) -> tuple[int, int]:
            begin = reads()
            for key in filter(store.__contains__, keys):
                assert store.pop(key) == values[key]
            number, nbytes = (after - before for before, after in zip(begin, reads(), strict=True))
            return number, nbytes

        number, nbytes = get(range(0, 64 * 40, 64))
        assert nbytes > number * 30_000
        get(range(64 * 40, 64 * 80, 64))
        number, nbytes = get(turns.sample(range(32, 8000, 64), 100))
        assert nbytes < number * 12_000
        get(range(4200, 4300))
        number, nbytes = get(range(5000, 6000))
        assert number < 100
