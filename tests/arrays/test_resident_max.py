"""``uzswap.resident.max``: a budget of resident memory that leaves the compressed pool out."""

import numpy as np
import pytest
from tests.conftest import EngineFactory

import uzswap

MIB = 1 << 20


def test_an_array_keeps_to_it_and_its_pool_bytes_do_not_count(engine: EngineFactory) -> None:
    z = engine()
    group = z.cgroup("/job")
    group.write("uzswap.resident.max", "1M")
    x = uzswap.zeros((8, MIB // 8), np.uint64, cgroup=group)
    x[:] = np.arange(x.size, dtype=np.uint64).reshape(x.shape)
    z.flush_work()
    assert int(group.read("uzswap.resident.current")) <= MIB
    assert int(group.read("memory.current")) > MIB
    assert (x == np.arange(x.size, dtype=np.uint64).reshape(x.shape)).all()
    del x


def test_a_store_keeps_to_it(engine: EngineFactory) -> None:
    z = engine()
    group = z.cgroup("/job")
    group.write("uzswap.resident.max", "1M")
    with uzswap.Store[int, bytes](group) as store:
        for number in range(64):
            store[number] = (b"value %d " % number) * 8000
        assert int(group.read("uzswap.resident.current")) <= MIB
        assert all(store[number] == (b"value %d " % number) * 8000 for number in range(64))


def test_writing_it_reclaims_at_once(engine: EngineFactory) -> None:
    z = engine()
    group = z.cgroup("/job")
    x = uzswap.ones(MIB // 2, np.uint64, cgroup=group)
    assert int(group.read("uzswap.resident.current")) >= 4 * MIB
    group.write("uzswap.resident.max", "2M")
    assert int(group.read("uzswap.resident.current")) <= 2 * MIB
    assert group.read("uzswap.resident.max") == f"{2 * MIB}\n"
    with pytest.raises(OSError, match=r"uzswap\.resident\.max"):
        group.write("uzswap.resident.max", "lots")
    assert x.sum() == MIB // 2
    del x
